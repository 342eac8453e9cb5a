import { Kernel } from '../bindings/calls.js'
import { type BinaryOpcode, opcodes, type UnaryOpcode } from '../bindings/opcodes.js'
import { apply } from '../core/apply.js'
import {
  canCast,
  type DType,
  dtypeCodes,
  floatType,
  isFloating,
  resultType,
} from '../core/dtype.js'
import { DTypeError, ShapeError } from '../core/errors.js'
import { applyInPlace } from '../core/in-place.js'
import { defineOp, deviceOf, isTensor, type Op, type Value } from '../core/op.js'
import { broadcastShapes, type Shape, sameShape, showShape } from '../core/shape.js'
import { Tensor } from '../core/tensor.js'
import { binaryRules } from './elementwise-binary.js'
import { unaryRules } from './elementwise-unary.js'

const unaryKernel = new Kernel('unary')
const binaryKernel = new Kernel('binary')

/** What an elementwise op returns: the common dtype, at least float32, or bool. */
export type ResultKind = 'same' | 'float' | 'bool'

function resultDType(kind: ResultKind, common: DType): DType {
  return kind === 'bool' ? 'bool' : kind === 'float' ? floatType(common) : common
}

function checkOut(name: string, out: Tensor, shape: Shape, dtype: DType): Tensor {
  if (!sameShape(out.shape, shape)) {
    throw new ShapeError(
      `${name}_: expected a result of the tensor's shape ${showShape(out.shape)}, got ` +
        showShape(shape),
    )
  }
  if (!canCast(dtype, out.dtype)) {
    throw new DTypeError(`${name}_: expected a result that fits ${out.dtype}, got ${dtype}`)
  }
  return out
}

/** Arithmetic that has no meaning for truth values, as in PyTorch. */
const notOfBool = new Set<UnaryOpcode | BinaryOpcode>([
  ...(['neg', 'abs', 'square', 'floor', 'ceil', 'round', 'trunc', 'relu'] as const),
  ...(['sub', 'floorDivide', 'remainder', 'fmod', 'pow', 'shiftLeft', 'shiftRight'] as const),
])

function refuseBool(name: string): DTypeError {
  return new DTypeError(`${name}: expected numbers, got bool; convert it first`)
}

/** What running an op needs of it, so that no call looks anything up by its name. */
interface Form {
  readonly name: UnaryOpcode | BinaryOpcode
  readonly code: number
  readonly kind: ResultKind
}

function runUnary({ name, code, kind }: Form, x: Tensor, out: Tensor | null): Tensor {
  if (x.dtype === 'bool' && notOfBool.has(name)) throw refuseBool(name)
  const common = kind === 'float' ? floatType(x.dtype) : x.dtype
  const dtype = resultDType(kind, common)
  const y = out ? checkOut(name, out, x.shape, dtype) : Tensor.pendingLike(x, dtype, x.shape)
  x.device.calls
    .begin(unaryKernel)
    .input(x)
    .output(y)
    .number(code)
    .number(common === x.dtype ? x.dtypeCode : dtypeCodes[common])
    .run()
  return y
}

const noAxes: Shape = []

function shapeOf(x: Value): Shape {
  return isTensor(x) ? x.shape : noAxes
}

/** As resultType, which is not asked in the common cases: one dtype, or floats and a number. */
function meet(name: string, a: Value, b: Value): DType {
  if (isTensor(a)) {
    if (isTensor(b) ? a.dtype === b.dtype : isFloating(a.dtype)) return a.dtype
  } else if (isTensor(b) && isFloating(b.dtype)) {
    return b.dtype
  }
  return resultType(name, [a, b])
}

/** Computes a binary op, into `out` if it is given, without recording it. */
function runBinary(
  { name, code, kind }: Form,
  inputs: readonly Value[],
  out: Tensor | null,
): Tensor {
  const a = inputs[0]
  const b = inputs[1]
  const device = deviceOf(name, inputs)
  const met = meet(name, a, b)
  if (met === 'bool' && notOfBool.has(name)) throw refuseBool(name)
  const common = kind === 'float' ? floatType(met) : met
  const dtype = resultDType(kind, common)
  const shape = broadcastShapes(name, shapeOf(a), shapeOf(b))
  const y = out
    ? checkOut(name, out, shape, dtype)
    : isTensor(a)
      ? Tensor.pendingLike(a, dtype, shape, isTensor(b) ? b : null)
      : Tensor.pendingLike(b as Tensor, dtype, shape)
  device.calls
    .begin(binaryKernel)
    .operand(a)
    .operand(b)
    .output(y)
    .number(code)
    .number(common === y.dtype ? y.dtypeCode : dtypeCodes[common])
    .run()
  return y
}

/** Those of PyTorch's list for CUDA, where half types would overflow or lose too much. */
const inFloat32OnCuda: ReadonlySet<string> = new Set<UnaryOpcode | BinaryOpcode>([
  'acos',
  'asin',
  'cosh',
  'exp',
  'expm1',
  'log',
  'log10',
  'log1p',
  'log2',
  'reciprocal',
  'rsqrt',
  'sinh',
  'softplus',
  'tan',
  'pow',
])
const autocastOf = (name: string) => (inFloat32OnCuda.has(name) ? 'float32 on cuda' : undefined)

/** One record for each opcode of the unary family. */
export const unaryOps = Object.fromEntries(
  opcodes.unary.map((name, code) => {
    const { kind, x: rule, samples } = unaryRules[name]
    const form: Form = { name, code, kind }
    const op = defineOp()({
      name,
      inputs: ['x'],
      run: (inputs, _attrs, out) => runUnary(form, inputs[0], out),
      gradient: rule === null ? null : { x: rule },
      inPlace: kind !== 'bool',
      autocast: autocastOf(name),
      samples: samples && ((s) => samples(s).map((x) => ({ inputs: [x], attrs: undefined }))),
    })
    return [name, op]
  }),
) as unknown as Record<UnaryOpcode, Op<void>>

/** One record for each opcode of the binary family. */
export const binaryOps = Object.fromEntries(
  opcodes.binary.map((name, code) => {
    const { kind, a, b, samples } = binaryRules[name]
    const form: Form = { name, code, kind }
    const op = defineOp()({
      name,
      inputs: ['a', 'b'],
      run: (inputs, _attrs, out) => runBinary(form, inputs, out),
      gradient: a === null && b === null ? null : { a, b },
      inPlace: kind !== 'bool' && !name.endsWith('Backward'),
      autocast: autocastOf(name),
      samples: samples && ((s) => samples(s).map((inputs) => ({ inputs, attrs: undefined }))),
    })
    return [name, op]
  }),
) as unknown as Record<BinaryOpcode, Op<void>>

/** Computes a binary op by name, without recording it. */
export function computeBinary(name: BinaryOpcode, a: Value, b: Value): Tensor {
  return binaryOps[name].run([a, b] as readonly Tensor[], undefined, null) as Tensor
}

/** Runs a unary op by name. */
export function unary(name: UnaryOpcode, x: Tensor): Tensor {
  return apply(unaryOps[name], [x], undefined)
}

/** Runs a binary op by name, with broadcasting and type promotion. */
export function binary(name: BinaryOpcode, a: Value, b: Value): Tensor {
  return apply(binaryOps[name], [a, b], undefined)
}

export function unaryInPlace(name: UnaryOpcode, x: Tensor): Tensor {
  return applyInPlace(unaryOps[name], [x], undefined)
}

export function binaryInPlace(name: BinaryOpcode, a: Tensor, b: Value): Tensor {
  return applyInPlace(binaryOps[name], [a, b], undefined)
}
