import { adopt } from '../bindings/calls.js'
import { commonDevice, type Device, type DeviceLike, device as findDevice } from './device.js'
import { type DType, dtypeCodes, isFloating, itemSize } from './dtype.js'
import {
  ArgumentError,
  AutogradError,
  DisposedError,
  DTypeError,
  describe,
  ShapeError,
} from './errors.js'
import { formatTensor } from './format.js'
import { allocate, checkHeap } from './heap.js'
import { recording, refuseWhileCapturing } from './recording.js'
import { track } from './scope.js'
import {
  channelsLastStrides,
  isChannelsLast,
  isContiguous,
  numelOf,
  rowMajor,
  type Shape,
  showShape,
} from './shape.js'
import type { Edge, GradSlot } from './tape.js'

/** The typed array that holds the elements of a dtype on the JavaScript side. */
export type TypedArray =
  | Float32Array
  | Float64Array
  | BigInt64Array
  | Int32Array
  | Int16Array
  | Int8Array
  | Uint8Array

// Of one element of `toArray`, while its array grows.
const HEAP_BYTES = 24

/** A number, or arrays of it, as deep as the tensor has axes. */
export type NestedArray = number | bigint | boolean | NestedArray[]

/** The element types as JavaScript holds them; half types are read and written as float32. */
const hostArrays = {
  float32: Float32Array,
  float64: Float64Array,
  bfloat16: Float32Array,
  float16: Float32Array,
  int64: BigInt64Array,
  int32: Int32Array,
  int16: Int16Array,
  int8: Int8Array,
  uint8: Uint8Array,
  bool: Uint8Array,
} as const satisfies Record<DType, unknown>

/**
 * An n-dimensional array on a device: a handle to native memory, with the shape, the strides and
 * the offset of a view into it. Made by `tensor`, `zeros`, `randn` and by operations; those that
 * read no memory but rearrange it (`reshape`, `permute`, slices) share it.
 */
export class Tensor {
  /** Native handle: 0 until a call has made the memory, -1 once disposed. Internal. */
  handle = 0
  /** What made it, if gradients flow through it; see `tape.ts`. Internal. */
  edge: Edge | null = null
  /** Where its gradient is kept: of a leaf, and of others after `retainGrad`. Internal. */
  slot: GradSlot | null = null
  /** The tensor that this is a view of, never itself a view. Internal. */
  base: Tensor | null = null
  /** Of a base: how often its history was rewritten; of a view: the base's when it was read. */
  history = 0
  /** In how many places backward passes refer to it as a gradient. Internal. */
  uses = 0
  /** @internal */ readonly dtypeCode: number

  constructor(
    /** @internal */ readonly device: Device,
    readonly dtype: DType,
    readonly shape: Shape,
    readonly strides: Shape,
    readonly offset = 0,
  ) {
    this.dtypeCode = dtypeCodes[dtype]
    track(this)
  }

  /** A result that a call is about to make: row-major, on `device`. Internal. */
  static pending(device: Device, dtype: DType, shape: Shape): Tensor {
    const layout = rowMajor(shape)
    return new Tensor(device, dtype, layout.shape, layout.strides)
  }

  /**
   * As `pending`, but images keep the order of memory of `x`, or of `other`: channels-last where
   * one of them is. Shares the arrays of a row-major `x` of that very shape. Internal.
   */
  static pendingLike(x: Tensor, dtype: DType, shape: Shape, other: Tensor | null = null): Tensor {
    if (shape === x.shape && x.isContiguous) return new Tensor(x.device, dtype, shape, x.strides)
    const isLast = x.isChannelsLast || other?.isChannelsLast === true
    if (isLast && shape.length === 4) return Tensor.pendingChannelsLast(x.device, dtype, shape)
    return Tensor.pending(x.device, dtype, shape)
  }

  /** As `pending`, for images with the channels innermost in memory. Internal. */
  static pendingChannelsLast(device: Device, dtype: DType, shape: Shape): Tensor {
    return new Tensor(device, dtype, rowMajor(shape).shape, channelsLastStrides(shape))
  }

  /** Row-major memory with undefined contents. Internal. */
  static reserve(device: Device, dtype: DType, shape: Shape): Tensor {
    return Tensor.reserved(Tensor.pending(device, dtype, shape))
  }

  /** Gives a pending tensor its memory, with undefined contents. Internal. */
  static reserved(t: Tensor): Tensor {
    const bytes = t.numel * itemSize(t.dtype)
    return adopt(t, t.device.native.reserve(bytes, t.dtypeCode, t))
  }

  get ndim(): number {
    return this.shape.length
  }

  /** How many elements. */
  get numel(): number {
    return numelOf(this.shape)
  }

  /** Whether the elements lie in row-major order without gaps. */
  get isContiguous(): boolean {
    return isContiguous(this.shape, this.strides)
  }

  /**
   * Whether it is images on a GPU with the channels innermost in memory, an order that results keep.
   * On the CPU, where kernels want the pixels of a channel side by side, results are row-major.
   * Internal.
   */
  get isChannelsLast(): boolean {
    return this.device.type !== 'cpu' && isChannelsLast(this.shape, this.strides)
  }

  get isDisposed(): boolean {
    return this.handle < 0
  }

  /** Whether a `tidy` must leave it alone: the graph or a gradient refers to it. Internal. */
  get isHeld(): boolean {
    return this.slot !== null
  }

  /** The rows of a tensor: the size of its first axis. */
  get length(): number {
    if (this.ndim === 0) throw new ShapeError('length: expected a tensor with axes, got []')
    return this.shape[0]
  }

  /** How often its memory has been written to since it was made. Shared by all its views. */
  get version(): number {
    this.checkLive('version')
    return this.device.native.version(this.handle)
  }

  /** @internal */
  checkLive(op: string): void {
    if (this.handle < 0) {
      throw new DisposedError(`${op}: expected a live tensor, got a disposed one`)
    }
  }

  /** Another tensor on the same memory, with no history. Internal: views are made by `ops`. */
  alias(shape: Shape, strides: Shape, offset: number): Tensor {
    this.checkLive('view')
    const view = new Tensor(this.device, this.dtype, shape, strides, offset)
    return this.device.calls.alias(view, this)
  }

  /**
   * Gives up its memory for that of a tensor of its shape, with its dtype and device. Its history
   * is the caller's to mend. Internal.
   */
  takeOver(source: Tensor): void {
    const handle = source.device.native.alias(source.handle, this)
    this.dispose()
    const { device, dtype, strides, offset } = source
    Object.assign(this, { device, dtype, strides, offset })
    adopt(this, handle)
  }

  // ------------------------------------------------------------------ reading

  /**
   * The elements in row-major order, in a new typed array: Float32Array for float32, float16 and
   * bfloat16, BigInt64Array for int64, Uint8Array of 0 and 1 for bool. They are those of the moment
   * of the call; where the device has not come so far, other JavaScript runs meanwhile.
   */
  async data(): Promise<TypedArray> {
    this.checkLive('data')
    checkReadable('data')
    const array = hostArray('data', this)
    const dense = this.dense()
    const pending = dense.device.native.toHostAsync(array, dense.handle, dense.offset)
    if (dense !== this) dense.dispose()
    if (pending !== undefined) await pending
    return array
  }

  /** As `data`, at once; it waits for the device. */
  dataSync(): TypedArray {
    const array = hostArray('dataSync', this)
    this.copyTo(array)
    return array
  }

  /** Fills an existing typed array of the kind that `data` returns, without making a new one. */
  copyTo(array: TypedArray): void {
    this.checkLive('data')
    checkReadable('data')
    const kind = hostArrays[this.dtype]
    if (!(array instanceof kind) || array.length !== this.numel) {
      throw new ArgumentError(
        `copyTo: expected a ${kind.name} of ${this.numel} elements, got ` +
          `${array?.constructor?.name} of ${array?.length}`,
      )
    }
    const dense = this.dense()
    dense.device.native.toHost(array, dense.handle, dense.offset)
    if (dense !== this) dense.dispose()
  }

  /** A row-major tensor of a dtype that JavaScript holds, with the same elements. */
  private dense(): Tensor {
    const half = this.dtype === 'float16' || this.dtype === 'bfloat16'
    if (this.isContiguous && !half) return this
    const copy = Tensor.pending(this.device, half ? 'float32' : this.dtype, this.shape)
    this.device.calls.begin('copy').input(this).output(copy).run()
    return copy
  }

  /**
   * The value of a tensor with one element. Booleans come as 0 or 1.
   * @throws DTypeError for an int64 beyond 2^53: use `itemBigInt`.
   */
  item(): number {
    checkReadable('item')
    if (this.numel !== 1) {
      throw new ShapeError(`item: expected one element, got shape ${showShape(this.shape)}`)
    }
    const value = this.dataSync()[0]
    if (typeof value === 'number') return value
    const number = Number(value)
    if (!Number.isSafeInteger(number)) {
      throw new DTypeError(`item: expected an int64 within 2^53, got ${value}n; use itemBigInt()`)
    }
    return number
  }

  /** The value of an integer or bool tensor with one element, exactly. */
  itemBigInt(): bigint {
    checkReadable('itemBigInt')
    if (this.numel !== 1) {
      throw new ShapeError(`itemBigInt: expected one element, got shape ${showShape(this.shape)}`)
    }
    if (isFloating(this.dtype)) {
      throw new DTypeError(`itemBigInt: expected an integer tensor, got ${this.dtype}`)
    }
    return BigInt(this.dataSync()[0])
  }

  /** Nested arrays; booleans for bool, bigint for int64. A zero-dimensional tensor is its value. */
  toArray(): NestedArray {
    checkReadable('toArray')
    checkHeap('toArray', this.numel, HEAP_BYTES, Math.max(...this.shape))
    const flat = this.dataSync()
    const value = (i: number): NestedArray => (this.dtype === 'bool' ? flat[i] !== 0 : flat[i])
    let position = 0
    const build = (axis: number): NestedArray => {
      if (axis === this.ndim) return value(position++)
      return Array.from({ length: this.shape[axis] }, () => build(axis + 1))
    }
    return build(0)
  }

  toString(): string {
    checkReadable('toString')
    return formatTensor(this)
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return formatTensor(this)
  }

  // ------------------------------------------------------------------ memory

  /** Frees the memory now, if no other tensor or tape node shares it. Never needed. */
  dispose(): void {
    if (this.handle > 0) this.device.native.dispose(this.handle)
    this.handle = -1
  }

  declare [Symbol.dispose]: () => void

  /** A tensor with the same elements on another device; itself if it is there already. Internal. */
  copyToDevice(target: DeviceLike): Tensor {
    this.checkLive('to')
    const to = findDevice(target)
    if (to === this.device) return this
    refuseWhileCapturing('to', 'a copy to another device')
    const bytes = this.numel * itemSize(this.dtype)
    const { type, index, native } = this.device
    const dense = this.isContiguous ? this : Tensor.pending(this.device, this.dtype, this.shape)
    if (dense !== this) this.device.calls.begin('copy').input(this).output(dense).run()
    const { handle, offset } = dense
    const copy = Tensor.pending(to, this.dtype, this.shape)
    if (type === to.type) {
      adopt(copy, to.native.fromDevice(index, handle, offset, bytes, copy.dtypeCode, copy))
    } else if (to.type === 'cuda' && this.isPinned() && dense === this) {
      const begin = native.storageOf(handle).address + offset * itemSize(this.dtype)
      adopt(copy, to.native.fromPinned(begin, bytes, copy.dtypeCode, copy))
    } else {
      const array = new Uint8Array(bytes)
      native.toHost(array, handle, offset)
      adopt(copy, to.native.fromHost(array, copy.dtypeCode, copy))
    }
    if (dense !== this) dense.dispose()
    return copy
  }

  /**
   * Whether its memory is pinned, so that a copy to the GPU waits for nothing and goes through no
   * buffer. Changing the elements waits until copies that are under way have read them.
   */
  isPinned(): boolean {
    this.checkLive('isPinned')
    return this.device.native.storageOf(this.handle).isPinned
  }

  // ------------------------------------------------------------------ gradients

  /** Whether `backward` reaches it: a leaf that was asked to, or a result of one. */
  get requiresGrad(): boolean {
    return this.gradEdge() !== null
  }

  /** A tensor that no recorded op has made. */
  get isLeaf(): boolean {
    const edge = this.gradEdge()
    return edge === null || edge.node.isLeaf
  }

  /** The gradient that `backward` has accumulated: of a leaf, or after `retainGrad`. */
  get grad(): Tensor | null {
    const { slot } = this
    if (slot === null || slot.grad === null) return null
    recording()?.touch(slot, 'read')
    slot.isShared = true
    return slot.grad
  }

  set grad(value: Tensor | null) {
    if (value === null && this.slot === null) return
    if (this.slot === null) {
      throw new AutogradError('grad: expected a leaf that requires a gradient')
    }
    if (value !== null) checkTensor('grad', value)
    if (value !== null && showShape(value.shape) !== showShape(this.shape)) {
      throw new ShapeError(
        `grad: expected shape ${showShape(this.shape)}, got ${showShape(value.shape)}`,
      )
    }
    if (value !== null) commonDevice('grad', this.device, value.device)
    recording()?.touch(this.slot, 'replaced')
    this.slot.grad = value
    this.slot.isShared = true
  }

  /** Where its gradient goes, up to date with in-place changes of its base. Internal. */
  gradEdge(): Edge | null {
    if (this.base !== null && this.history !== this.base.history) regenerateEdge(this)
    return this.edge
  }
}

function hostArray(op: string, { dtype, numel }: Tensor): TypedArray {
  const kind = hostArrays[dtype]
  return allocate<TypedArray>(op, `a ${kind.name} of ${numel} elements`, () => new kind(numel))
}

function checkReadable(op: string): void {
  refuseWhileCapturing(op, 'a reading of values')
}

Object.defineProperty(Tensor.prototype, Symbol.dispose ?? Symbol.for('Symbol.dispose'), {
  value: Tensor.prototype.dispose,
})

/** Checks that a user's argument is a tensor, and a live one. */
export function checkTensor(op: string, x: unknown): Tensor {
  if (x instanceof Tensor) {
    x.checkLive(op)
    return x
  }
  throw new ArgumentError(`${op}: expected a tensor, got ${describe(x)}`)
}

/** Set by `tape.ts`, which imports this file. */
let regenerateEdge: (view: Tensor) => void
export function setRegenerateEdge(f: (view: Tensor) => void): void {
  regenerateEdge = f
}
