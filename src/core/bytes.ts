import { adopt } from '../bindings/calls.js'
import type { Device } from './device.js'
import { type DType, itemSize } from './dtype.js'
import type { Shape } from './shape.js'
import { Tensor } from './tensor.js'

/** A row-major tensor whose memory holds these bytes, as many as its shape and dtype take. */
export function tensorFromBytes(
  bytes: Uint8Array,
  dtype: DType,
  shape: Shape,
  device: Device,
): Tensor {
  const t = Tensor.pending(device, dtype, shape)
  return adopt(t, device.native.fromHost(bytes, t.dtypeCode, t))
}

/** The memory of a row-major tensor, half types as they are stored. Waits for the device. */
export function bytesOf(t: Tensor): Uint8Array {
  const bytes = new Uint8Array(t.numel * itemSize(t.dtype))
  t.device.native.toHost(bytes, t.handle, t.offset)
  return bytes
}
