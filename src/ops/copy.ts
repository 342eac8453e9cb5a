import { adopt } from '../bindings/calls.js'
import { apply } from '../core/apply.js'
import { isAvailable } from '../core/cuda.js'
import { device as findDevice } from '../core/device.js'
import { checkBigInt, checkDType, type DType, itemSize } from '../core/dtype.js'
import { ArgumentError, DeviceError, describe, ShapeError } from '../core/errors.js'
import { applyInPlace } from '../core/in-place.js'
import { defineOp, from } from '../core/op.js'
import { refuseWhileCapturing } from '../core/recording.js'
import { broadcastShapes, type Shape, sameShape, showShape } from '../core/shape.js'
import { checkTensor, Tensor } from '../core/tensor.js'

function copyTo(x: Tensor, y: Tensor): Tensor {
  x.device.calls.begin('copy').input(x).output(y).run()
  return y
}

const castOp = defineOp<{ dtype: DType }>()({
  name: 'cast',
  inputs: ['x'],
  run: ([x], { dtype }) => copyTo(x, Tensor.pendingLike(x, dtype, x.shape)),
  // converted back, which the engine does
  gradient: { x: from([], ({ dy }) => dy) },
  samples: (s) => [{ inputs: [s.normal([2, 3])], attrs: { dtype: 'float64' } }],
})

/** The elements in another dtype; itself if it has it already. Floats are cut to integers. */
export function cast(x: Tensor, dtype: DType): Tensor {
  checkTensor('to', x)
  return checkDType('to', dtype) === x.dtype ? x : apply(castOp, [x], { dtype })
}

const cloneOp = defineOp()({
  name: 'clone',
  inputs: ['x'],
  run: ([x]) => copyTo(x, Tensor.pending(x.device, x.dtype, x.shape)),
  gradient: { x: from([], ({ dy }) => dy) },
  samples: (s) => [{ inputs: [s.normal([2, 3])], attrs: undefined }],
})

/** A row-major copy with memory of its own; gradients flow through it. */
export function clone(x: Tensor): Tensor {
  return apply(cloneOp, [checkTensor('clone', x)], undefined)
}

/** Itself if it is row-major, else a copy that is. */
export function contiguous(x: Tensor): Tensor {
  return checkTensor('contiguous', x).isContiguous ? x : clone(x)
}

const copyOp = defineOp()({
  name: 'copy',
  inputs: ['self', 'source'],
  inPlace: true,
  run: ([self, source], _attrs, out) => {
    if (!sameShape(broadcastShapes('copy_', self.shape, source.shape), self.shape)) {
      throw new ShapeError(
        `copy_: expected a source that broadcasts to ${showShape(self.shape)}, got ` +
          showShape(source.shape),
      )
    }
    return copyTo(source, out ?? Tensor.pending(self.device, self.dtype, self.shape))
  },
  gradient: { self: from([], ({ dy }) => zerosFor(dy)), source: from([], ({ dy }) => dy) },
  samples: (s) => [{ inputs: [s.normal([2, 3]), s.normal([3])], attrs: undefined }],
})

/** Constant zeros of a tensor's dtype and device: what gradients of slices and picks start from. */
export function zerosFor(like: Tensor, shape: Shape = like.shape): Tensor {
  const y = Tensor.pending(like.device, like.dtype, shape)
  like.device.calls.begin('fill').operand(0).output(y).run()
  return y
}

/** Overwrites the elements with those of `source`, broadcast, converted and from any device. */
export function copyInPlace(self: Tensor, source: Tensor): Tensor {
  checkTensor('copy_', source)
  return applyInPlace(copyOp, [self, toDevice(source, self.device)], undefined)
}

const fillOp = defineOp<{ value: number | bigint }>()({
  name: 'fill',
  inputs: ['self'],
  inPlace: true,
  run: ([self], { value }, out) => {
    const y = out ?? Tensor.pending(self.device, self.dtype, self.shape)
    self.device.calls.begin('fill').operand(value).output(y).run()
    return y
  },
  gradient: { self: from([], ({ dy }) => zerosFor(dy)) },
  samples: (s) => [{ inputs: [s.normal([2, 3])], attrs: { value: 2 } }],
})

/** Overwrites all elements with one number. */
export function fillInPlace(self: Tensor, value: number | bigint | boolean): Tensor {
  if (!['number', 'bigint', 'boolean'].includes(typeof value)) {
    throw new ArgumentError(`fill_: expected a number, got ${describe(value)}`)
  }
  const number = typeof value === 'boolean' ? Number(value) : value
  if (typeof number === 'bigint') checkBigInt('fill_', number)
  return applyInPlace(fillOp, [self], { value: number })
}

const toDeviceOp = defineOp<{ device: Tensor['device'] }>()({
  name: 'toDevice',
  inputs: ['x'],
  run: ([x], { device }) => (device === x.device ? clone(x) : x.copyToDevice(device)),
  // copied back
  gradient: { x: from([], ({ dy, inputs: [x] }) => toDevice(dy, (x as Tensor).device)) },
  samples: (s) => {
    const x = s.normal([2])
    return [{ inputs: [x], attrs: { device: x.device } }]
  },
})

/**
 * A row-major copy in pinned memory of the CPU, from which copies to the GPU go without a wait and
 * without a buffer between; itself if it is that already, and where there is no GPU. It has no
 * history.
 * @throws DeviceError for a tensor of a GPU
 */
export function pinMemory(x: Tensor): Tensor {
  const { device, dtype, shape } = checkTensor('pinMemory', x)
  if (device.type !== 'cpu') {
    throw new DeviceError(`pinMemory: expected a tensor on cpu, got one on ${device}`)
  }
  if (!isAvailable() || (x.isPinned() && x.isContiguous)) return x
  refuseWhileCapturing('pinMemory', 'memory that a GPU reads')
  const memory = findDevice('cuda').native.pinnedMemory() as object
  const y = Tensor.pending(device, dtype, shape)
  const bytes = y.numel * itemSize(dtype)
  return copyTo(x, adopt(y, device.native.reservePinned(bytes, y.dtypeCode, y, memory)))
}

/** The elements on another device; itself if it is there already. Gradients flow back. */
export function toDevice(x: Tensor, device: Tensor['device']): Tensor {
  return device === x.device ? x : apply(toDeviceOp, [x], { device })
}
