import { registry } from '../../src/core/op.js'
import { setDefaultDevice } from '../../src/index.js'
import { testCuda } from '../support/cuda.js'
import { describeGradients } from '../support/gradient-suite.js'
import { loadAllOps } from '../support/rooms.js'

// The tests of test/autograd/gradcheck.test.ts with everything on the device: inputs, finite
// differences and gradients, in float64.
await loadAllOps()
setDefaultDevice(testCuda())

for (const op of registry.values()) {
  if (op.gradient !== null) describeGradients(op)
}
