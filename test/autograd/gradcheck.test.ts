import { expect, test } from 'vitest'
import { registry } from '../../src/core/op.js'
import { customFunction, type Tensor } from '../../src/index.js'
import { gradcheckTwice } from '../support/gradcheck.js'
import { describeGradients } from '../support/gradient-suite.js'
import { loadAllOps } from '../support/rooms.js'
import { SeededSampler } from '../support/sampler.js'

await loadAllOps()

const differentiable = [...registry.values()].filter((op) => op.gradient !== null)

test('the registry is not empty', () => {
  expect(differentiable.length).toBeGreaterThan(60)
})

test('gradcheck notices a wrong gradient and a wrong second one', () => {
  const square = (slope: (x: Tensor) => Tensor) =>
    customFunction({
      forward: (context, x: Tensor) => {
        context.saveForBackward(x)
        return x.mul(x)
      },
      backward: (context, dy) => dy.mul(slope(context.savedTensors[0])),
    })
  const check = (slope: (x: Tensor) => Tensor) => () =>
    gradcheckTwice(([x]) => [square(slope)(x)], [new SeededSampler(1).normal([3])])
  expect(check((x) => x.mul(2))).not.toThrow()
  expect(check((x) => x.mul(2.001))).toThrow(/^input 0: expected a derivative/)
  expect(check((x) => x.detach().mul(2))).toThrow(/^second order: input 0/)
})

for (const op of differentiable) describeGradients(op)
