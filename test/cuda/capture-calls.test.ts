/** Captured steps on CUDA without graphs: replays queue the calls one by one. */
import { setDefaultDevice } from '../../src/core/device.js'
import { testCuda } from '../support/cuda.js'

process.env.ADJOINT_CUDA_GRAPHS = '0'
const cuda = testCuda()
setDefaultDevice(cuda)
const needed = ['crossEntropyMean', 'conv2d', 'batchNorm', 'maxPool2d', 'lstm', 'attention']
if (needed.every((kernel) => kernel in cuda.native.kernels)) {
  await import('../core/capture.test.js')
}
await import('../core/capture-programs.test.js')
