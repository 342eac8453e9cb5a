import { type DeviceLike, defaultDevice, device as findDevice } from '../core/device.js'
import { Tensor } from '../core/tensor.js'

/** What a device reaches at best. */
export interface Rates {
  /** Float32 operations per second on registers, a multiply-add being two of them. */
  readonly flops: number
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
  const rates = Tensor.pending(at, 'float64', [2])
  at.calls.begin('probe').output(rates).run()
  const [flops, copyBytes] = rates.dataSync() as Float64Array
  rates.dispose()
  return { flops, copyBytes }
}
