import { type DeviceLike, defaultDevice, device as findDevice } from '../core/device.js'
import { Tensor } from '../core/tensor.js'

/** What a device reaches at best. */
export interface Rates {
  /** Float32 operations per second on registers, a multiply-add being two of them. */
  readonly flops: number
  /** The same for products of bfloat16, on the unit that the processor has for them, if it has one. */
  readonly bfloat16Flops: number
  /** Bytes per second that a copy in memory reads and writes, beyond the caches. */
  readonly copyBytes: number
}

/**
 * Measures what a device (default: the default device) reaches now with all threads: the yardstick
 * for rates of kernels. Takes a few tenths of a second.
 * @throws DeviceError for a device that has no such measurement
 */
export function probeRates(device?: DeviceLike): Rates {
  const at = device === undefined ? defaultDevice() : findDevice(device)
  const rates = Tensor.pending(at, 'float64', [3])
  at.calls.begin('probe').output(rates).run()
  const [flops, bfloat16Flops, copyBytes] = rates.dataSync() as Float64Array
  rates.dispose()
  return { flops, bfloat16Flops, copyBytes }
}
