import { customFunction } from '../core/custom-function.js'
import { commonDevice, type Device } from '../core/device.js'
import {
  checkBigInt,
  checkDType,
  type DType,
  dtypeCodes,
  isFloating,
  itemSize,
} from '../core/dtype.js'
import {
  ArgumentError,
  AutogradError,
  checkFunction,
  checkList,
  checkOptions,
  DeviceError,
  DTypeError,
  describe,
} from '../core/errors.js'
import { isGradEnabled } from '../core/grad-mode.js'
import { checkShape, type Shape } from '../core/shape.js'
import { checkTensor, Tensor } from '../core/tensor.js'
import { contiguous } from './copy.js'

/** Blocks of a grid, or threads of a block, along one to three axes. */
export type CudaExtent = number | readonly [x: number, y?: number, z?: number]

/** What decides about a launch: a value, or a function of the tensors that the kernel is called with. */
type OfInputs<T> = T | ((...inputs: readonly Tensor[]) => T)

export interface CudaKernelOutput {
  readonly shape: Shape
  readonly dtype: DType
}

/** What a kernel's gradient is made from. */
export interface CudaKernelCall {
  readonly inputs: readonly Tensor[]
  /** Empty unless `savesOutputs`. */
  readonly outputs: readonly Tensor[]
  readonly scalars: readonly (number | bigint)[]
}

/**
 * A kernel in CUDA C++. Its parameters are a pointer for each input, a pointer for each output, and
 * the scalars, in this order.
 */
export interface CudaKernelSpec {
  /** The text of a .cu file without its host side. */
  readonly source: string
  /** The `__global__` function: `'scale'`, or of a template an instance, `'scale<float>'`. */
  readonly name: string
  /** The dtype of each tensor that the kernel reads. */
  readonly inputs: readonly DType[]
  /** What each scalar is to the kernel, as a dtype: `'int32'` is `int`, `'int64'` `long long`. */
  readonly scalars?: readonly DType[]
  /** The tensors that the kernel writes, every element of them; at most 8. */
  readonly outputs: (...inputs: readonly Tensor[]) => readonly CudaKernelOutput[]
  /** A grid with a 0 launches nothing. */
  readonly grid: OfInputs<CudaExtent>
  readonly block: OfInputs<CudaExtent>
  /** Bytes of dynamic shared memory; default 0. */
  readonly sharedBytes?: OfInputs<number>
  /** For the compiler, such as `'--use_fast_math'` or `'-DSIZE=3'`. */
  readonly options?: readonly string[]
  /**
   * The gradients of the inputs, in their order, from those of the outputs; null for none. Made of
   * ops, or of other kernels.
   */
  readonly gradient?: (
    call: CudaKernelCall,
    ...dys: readonly Tensor[]
  ) => Tensor | null | readonly (Tensor | null)[]
  /** Whether the gradient reads the outputs; default false. */
  readonly savesOutputs?: boolean
}

/** Takes the inputs, then the scalars; gives back one tensor, or several as `outputs` says. */
export type CudaKernel = (...args: readonly (Tensor | number | bigint)[]) => Tensor | Tensor[]

const MAX_OUTPUTS = 8
const MAX_ARGUMENTS = 64
const MAX_THREADS = 1024
const GRID_LIMITS = [2 ** 31 - 1, 65535, 65535]
const BLOCK_LIMITS = [MAX_THREADS, MAX_THREADS, 64]

function checkText(what: string, text: unknown): string {
  if (typeof text === 'string' && text !== '' && !text.includes('\0')) return text
  throw new ArgumentError(`cudaKernel: expected ${what} as a string, got ${describe(text)}`)
}

function checkDTypes(what: string, list: readonly DType[] | undefined): readonly DType[] {
  const dtypes = list ?? []
  checkList('cudaKernel', what, dtypes)
  if (dtypes.length > MAX_ARGUMENTS) {
    throw new ArgumentError(`cudaKernel: expected at most ${MAX_ARGUMENTS} ${what}`)
  }
  return dtypes.map((dtype) => checkDType('cudaKernel', dtype))
}

function checkExtent(
  op: string,
  what: string,
  extent: CudaExtent,
  least: number,
  limits: readonly number[],
): number[] {
  const list = Array.isArray(extent) ? extent : [extent]
  const full = limits.map((_, i) => (i < list.length ? (list[i] ?? 1) : 1) as number)
  const isFit = full.every((n, i) => Number.isInteger(n) && n >= least && n <= limits[i])
  if (!isFit || list.length < 1 || list.length > 3) {
    throw new ArgumentError(
      `${op}: expected a ${what} of one to three sizes from ${least} to ` +
        `${limits.join(', ')}, got ${describe(extent)}`,
    )
  }
  return full
}

function checkBlock(op: string, extent: CudaExtent): number[] {
  const block = checkExtent(op, 'block', extent, 1, BLOCK_LIMITS)
  if (block[0] * block[1] * block[2] > MAX_THREADS) {
    throw new ArgumentError(
      `${op}: expected a block of at most ${MAX_THREADS} threads, got ${describe(extent)}`,
    )
  }
  return block
}

function checkScalar(op: string, dtype: DType, x: unknown): number | bigint {
  if (typeof x === 'bigint' && dtype === 'int64') return checkBigInt(op, x)
  const isFit =
    typeof x === 'number' &&
    (isFloating(dtype) || (Number.isSafeInteger(x) && fitsInteger(dtype, x)))
  if (isFit) return x
  throw new ArgumentError(`${op}: expected a number that is ${dtype}, got ${describe(x)}`)
}

function fitsInteger(dtype: DType, x: number): boolean {
  const bits = dtype === 'bool' ? 1 : 8 * itemSize(dtype)
  const isUnsigned = dtype === 'bool' || dtype === 'uint8'
  return isUnsigned ? x >= 0 && x < 2 ** bits : x >= -(2 ** (bits - 1)) && x < 2 ** (bits - 1)
}

const ofInputs = <T>(value: OfInputs<T>, inputs: readonly Tensor[]): T =>
  typeof value === 'function' ? (value as (...list: readonly Tensor[]) => T)(...inputs) : value

/** A kernel whose text was checked. */
class Kernel {
  private readonly op: string
  private readonly inputs: readonly DType[]
  private readonly scalars: readonly DType[]
  private readonly options: readonly string[]
  /** By device, once compiled for it. */
  private readonly numbers = new Map<Device, number>()

  constructor(private readonly spec: CudaKernelSpec) {
    checkOptions('cudaKernel', spec)
    checkText('a source', spec.source)
    this.op = `cudaKernel ${checkText('a name', spec.name)}`
    this.inputs = checkDTypes('inputs', spec.inputs)
    if (this.inputs.length === 0) {
      throw new ArgumentError('cudaKernel: expected the dtype of at least one input, got none')
    }
    this.scalars = checkDTypes('scalars', spec.scalars)
    this.options = [...(spec.options ?? [])]
    checkList('cudaKernel', 'options as strings', spec.options ?? [])
    for (const option of this.options) checkText('an option', option)
    checkFunction('cudaKernel', spec.outputs)
    if (spec.gradient !== undefined) checkFunction('cudaKernel', spec.gradient)
  }

  /** The tensors and the scalars of a call. */
  split(args: readonly unknown[]): [inputs: Tensor[], scalars: (number | bigint)[]] {
    const { op, inputs, scalars } = this
    if (args.length !== inputs.length + scalars.length) {
      throw new ArgumentError(
        `${op}: expected ${inputs.length} tensors and ${scalars.length} scalars, got ` +
          `${args.length} arguments`,
      )
    }
    const tensors = inputs.map((dtype, i) => {
      const x = checkTensor(op, args[i])
      if (x.dtype !== dtype) {
        throw new DTypeError(`${op}: expected input ${i} to be ${dtype}, got ${x.dtype}`)
      }
      return x
    })
    const device = tensors.map((x) => x.device).reduce((a, b) => commonDevice(op, a, b))
    if (device.type !== 'cuda') {
      throw new DeviceError(`${op}: expected tensors on a CUDA device, got ${device}`)
    }
    const rest = args.slice(inputs.length)
    return [tensors, scalars.map((dtype, i) => checkScalar(op, dtype, rest[i]))]
  }

  launch(inputs: readonly Tensor[], scalars: readonly (number | bigint)[]): Tensor[] {
    const { op, spec } = this
    const { device } = inputs[0]
    const outputs = this.makeOutputs(device, inputs)
    const grid = checkExtent(op, 'grid', ofInputs(spec.grid, inputs), 0, GRID_LIMITS)
    const block = checkBlock(op, ofInputs(spec.block, inputs))
    const sharedBytes = ofInputs(spec.sharedBytes ?? 0, inputs)
    if (!Number.isInteger(sharedBytes) || sharedBytes < 0 || sharedBytes > 2 ** 31 - 1) {
      throw new ArgumentError(
        `${op}: expected sharedBytes as a size of 0 or more, got ${describe(sharedBytes)}`,
      )
    }
    const number = this.compiledFor(device)
    const dense = inputs.map(contiguous)
    const calls = device.calls.begin('cudaKernel').number(dense.length).number(outputs.length)
    for (const x of dense) calls.input(x)
    for (const y of outputs) calls.output(y)
    calls.number(number)
    for (const n of [...grid, ...block, sharedBytes, scalars.length]) calls.number(n)
    scalars.forEach((x, i) => {
      calls.number(dtypeCodes[this.scalars[i]]).operand(x)
    })
    calls.run()
    dense.forEach((x, i) => {
      if (x !== inputs[i]) x.dispose()
    })
    return outputs
  }

  private makeOutputs(device: Device, inputs: readonly Tensor[]): Tensor[] {
    const outputs = this.spec.outputs(...inputs)
    checkList(this.op, 'outputs as a list', outputs)
    if (outputs.length < 1 || outputs.length > MAX_OUTPUTS) {
      throw new ArgumentError(
        `${this.op}: expected 1 to ${MAX_OUTPUTS} outputs, got ${outputs.length}`,
      )
    }
    return outputs.map((output) => {
      checkOptions(this.op, output)
      const dtype = checkDType(this.op, output.dtype)
      return Tensor.pending(device, dtype, checkShape(this.op, output.shape))
    })
  }

  private compiledFor(device: Device): number {
    let number = this.numbers.get(device)
    if (number === undefined) {
      const { source, name } = this.spec
      number = device.native.compileCudaKernel(source, name, this.options)
      this.numbers.set(device, number)
    }
    return number
  }

  run(inputs: readonly Tensor[], scalars: readonly (number | bigint)[]): Tensor[] {
    if (this.spec.gradient !== undefined) return this.withGradient(scalars)(...inputs)
    if (isGradEnabled() && inputs.some((x) => x.requiresGrad)) {
      throw new AutogradError(
        `${this.op}: expected a gradient in its description, since an input requires one, got none`,
      )
    }
    return this.launch(inputs, scalars)
  }

  /** What it refers to lives as long as the graph, so it must not see the tensors of the call. */
  private withGradient(scalars: readonly (number | bigint)[]) {
    const { name, savesOutputs } = this.spec
    const gradient = this.spec.gradient as NonNullable<CudaKernelSpec['gradient']>
    const n = this.inputs.length
    return customFunction<readonly Tensor[], Tensor[]>({
      name,
      forward: (context, ...inputs) => {
        const outputs = this.launch(inputs, scalars)
        context.saveForBackward(...inputs, ...(savesOutputs ? outputs : []))
        return outputs
      },
      backward: (context, ...dys) => {
        const saved = context.savedTensors
        return gradient({ inputs: saved.slice(0, n), outputs: saved.slice(n), scalars }, ...dys)
      },
    })
  }
}

/**
 * A function of tensors from a kernel in CUDA C++, which is compiled at its first call and once for
 * each text (by NVRTC, which is looked for as cuBLAS is). Inputs come to the kernel row-major.
 * @throws ArgumentError with the compiler's log; DeviceError for tensors that are not on a GPU
 * @example
 * const scale = cudaKernel({
 *   source: `extern "C" __global__ void scale(const float* x, float* y, int n, float factor) {
 *     int i = blockIdx.x * blockDim.x + threadIdx.x;
 *     if (i < n) y[i] = factor * x[i];
 *   }`,
 *   name: 'scale',
 *   inputs: ['float32'],
 *   scalars: ['int32', 'float32'],
 *   outputs: (x) => [x],
 *   grid: (x) => Math.ceil(x.numel / 256),
 *   block: 256,
 *   gradient: ({ scalars: [, factor] }, dy) => dy.mul(factor),
 * })
 * const y = scale(x, x.numel, 2)
 */
export function cudaKernel(spec: CudaKernelSpec): CudaKernel {
  const kernel = new Kernel(spec)
  return (...args) => {
    const [inputs, scalars] = kernel.split(args)
    const outputs = kernel.run(inputs, scalars)
    return outputs.length === 1 ? outputs[0] : outputs
  }
}
