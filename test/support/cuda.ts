import { deviceCount } from '../../src/core/cuda.js'
import { type Device, device } from '../../src/core/device.js'
import { emulatedCuda } from './emulated.js'

/** Whether tests of the device 'cuda' run on a GPU rather than on its emulation. */
export const isRealCuda = process.env.ADJOINT_TEST_CUDA === 'real'

/**
 * The CUDA device of this run of the tests: with `ADJOINT_TEST_CUDA=real` the GPU, by the addon in
 * build/Release or `ADJOINT_ADDON_DIR`; else the emulation.
 * @throws DeviceError where the real one is asked for and does not load, with the reason
 */
export function testCuda(): Device {
  return isRealCuda ? device('cuda') : emulatedCuda()
}

/**
 * The first two CUDA devices. A real machine may have one, which is then given twice: such tests are
 * skipped there. To be called before anything has used the emulation.
 */
export function twoCards(): { hasTwo: boolean; first: Device; second: Device } {
  process.env.ADJOINT_EMULATION_DEVICES = '2'
  const first = testCuda()
  const hasTwo = deviceCount() > 1
  return { hasTwo, first, second: hasTwo ? device('cuda:1') : first }
}

/** The kernels that a body calls on a device. */
export function kernelsOf(at: Device, body: () => void): Set<string> {
  const { calls } = at
  const seen = new Set<string>()
  const begin = calls.begin
  calls.begin = (kernel) => {
    seen.add(String(kernel))
    return begin.call(calls, kernel)
  }
  try {
    body()
  } finally {
    calls.begin = begin
  }
  return seen
}
