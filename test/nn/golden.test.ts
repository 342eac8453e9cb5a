// Forward values and gradients against PyTorch's (test/golden/make_nn.py).
import { describe, expect, test } from 'vitest'
import type { Tensor } from '../../src/index.js'
import * as F from '../../src/nn/functional.js'
import { expectGolden, type Packed, readGolden, unpack } from '../support/golden.js'
import { values } from '../support/values.js'

interface OpCase {
  readonly op: string
  readonly options: Record<string, never>
  readonly inputs: Record<string, Packed | null>
  readonly weights: Packed
  readonly y: Packed
  readonly grads: Record<string, Packed>
  readonly kernel?: number | [number, number]
  readonly indices?: Packed
  readonly after?: { runningMean: Packed; runningVar: Packed }
}

type Inputs = Record<string, Tensor>

const functions: Record<string, (i: Inputs, c: OpCase) => Tensor> = {
  conv2d: ({ x, w, bias }, { options }) => F.conv2d(x, w, bias, options),
  maxPool2d: ({ x }, { kernel, options }) => F.maxPool2d(x, kernel as number, options),
  avgPool2d: ({ x }, { kernel, options }) => F.avgPool2d(x, kernel as number, options),
  adaptiveAvgPool2d: ({ x }, { kernel }) => F.adaptiveAvgPool2d(x, kernel as number),
  batchNorm: ({ x, weight, bias, runningMean, runningVar }, { options }) =>
    F.batchNorm(x, runningMean, runningVar, { ...(options as object), weight, bias }),
  crossEntropy: ({ x, target, weight }, { options }) =>
    F.crossEntropy(x, target, { ...(options as object), weight }),
  nllLoss: ({ x, target, weight }, { options }) =>
    F.nllLoss(x, target, { ...(options as object), weight }),
  mseLoss: ({ x, target }, { options }) => F.mseLoss(x, target, options),
  l1Loss: ({ x, target }, { options }) => F.l1Loss(x, target, options),
  binaryCrossEntropyWithLogits: ({ x, target, weight, posWeight }, { options }) =>
    F.binaryCrossEntropyWithLogits(x, target, { ...(options as object), weight, posWeight }),
}

const { ops } = readGolden('nn.json') as { ops: OpCase[] }

const name = ({ op, options, inputs }: OpCase) => {
  const shapes = Object.entries(inputs).map(([key, v]) => `${key} ${v ? `[${v.shape}]` : 'none'}`)
  return `${op} ${JSON.stringify(options)} ${shapes.join(' ')}`
}

describe.each(ops.map((c) => [name(c), c] as const))('%s', (_name, c) => {
  const load = () =>
    Object.fromEntries(
      Object.entries(c.inputs).map(([key, v]) => [key, v && unpack(v)]),
    ) as unknown as Inputs

  test('value and gradients', () => {
    const inputs = load()
    for (const key of Object.keys(c.grads)) inputs[key].requiresGrad_()
    const y = functions[c.op](inputs, c)
    expectGolden(y, c.y)
    y.mul(unpack(c.weights)).sum().backward()
    for (const [key, golden] of Object.entries(c.grads)) expectGolden(inputs[key].grad, golden)
    if (c.after) {
      expectGolden(inputs.runningMean, c.after.runningMean)
      expectGolden(inputs.runningVar, c.after.runningVar)
    }
  })

  test('the same in float32, within its precision', () => {
    const inputs = Object.fromEntries(
      Object.entries(load()).map(([key, t]) => [key, t?.dtype === 'float64' ? t.float() : t]),
    )
    for (const key of Object.keys(c.grads)) inputs[key] = inputs[key].detach().requiresGrad_()
    const y = functions[c.op](inputs, c)
    expect(y.dtype).toBe('float32')
    expectGolden(y, c.y, 5e-6)
    y.mul(unpack(c.weights).float()).sum().backward()
    for (const [key, golden] of Object.entries(c.grads)) {
      expectGolden(inputs[key].grad, golden, 2e-5)
    }
  })
})

test('maxPool2d tells where the maxima are', () => {
  const cases = ops.filter((c) => c.indices)
  expect(cases.length).toBeGreaterThan(3)
  for (const { inputs, kernel, options, indices, y } of cases) {
    const pooled = F.maxPool2d(unpack(inputs.x as Packed), kernel as number, {
      ...(options as object),
      returnIndices: true,
    })
    expect(pooled.indices.dtype).toBe('int64')
    expect(values(pooled.indices)).toEqual(indices?.data)
    expectGolden(pooled.values, y)
  }
})
