/** Captured steps on CUDA without graphs: replays queue the calls one by one. */
import { setDefaultDevice } from '../../src/core/device.js'
import { testCuda } from '../support/cuda.js'

process.env.ADJOINT_CUDA_GRAPHS = '0'
setDefaultDevice(testCuda())
await import('../core/capture.test.js')
