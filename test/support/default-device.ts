import { setDefaultDevice } from '../../src/core/device.js'
import { testCuda } from './cuda.js'

// For vitest.cuda.config.mts: tests that name no device run on that of CUDA.
setDefaultDevice(testCuda())
