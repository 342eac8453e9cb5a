import { test } from 'vitest'
import { registry } from '../../src/core/op.js'
import { setDefaultDevice } from '../../src/index.js'
import { missingFor, testCuda } from '../support/cuda.js'
import { gradcheck, gradcheckTwice } from '../support/gradcheck.js'
import { describeGradients } from '../support/gradient-suite.js'
import { casesOf, fitsInPlace } from '../support/op-cases.js'
import { loadAllOps } from '../support/rooms.js'

// The tests of test/autograd/gradcheck.test.ts with everything on the device: inputs, finite
// differences and gradients, in float64.
await loadAllOps()

for (const op of registry.values()) {
  if (op.gradient === null) continue
  setDefaultDevice('cpu')
  const missing = missingFor(() => {
    for (const c of casesOf(op)) {
      gradcheckTwice(c.function(), c.variables)
      if (op.inPlace && fitsInPlace(c)) {
        gradcheck(c.inPlaceOnView(), [c.base(), ...c.variables.slice(1)])
      }
    }
  })
  if (missing.length > 0) test.skip(`${op.name}: not yet on cuda: ${missing.join(', ')}`)
  else describeGradients(op)
}
setDefaultDevice(testCuda())
