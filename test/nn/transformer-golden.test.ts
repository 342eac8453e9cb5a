// The layers of transformers against PyTorch's values (test/golden/make_transformer.py).
import { describe, expect, test } from 'vitest'
import type { Tensor } from '../../src/index.js'
import * as nn from '../../src/nn/index.js'
import { expectGolden, type Packed, readGolden, unpack } from '../support/golden.js'

const F = nn.functional

interface OpCase {
  readonly op: string
  readonly options: Record<string, never>
  readonly inputs: Record<string, Packed | null>
  readonly weights: Packed
  readonly y: Packed
  readonly grads: Record<string, Packed>
}

type Inputs = Record<string, Tensor>

const functions: Record<string, (i: Inputs, options: OpCase['options']) => Tensor> = {
  layerNorm: ({ x, weight, bias }, { normalizedShape, eps }) =>
    F.layerNorm(x, normalizedShape, { weight, bias, eps }),
  rmsNorm: ({ x, weight }, { normalizedShape, eps }) =>
    F.rmsNorm(x, normalizedShape, { weight, eps }),
  embedding: ({ index, weight }, options) => F.embedding(index, weight, options),
  gelu: ({ x }, options) => F.gelu(x, options),
  silu: ({ x }) => F.silu(x),
  elu: ({ x }, options) => F.elu(x, options),
  leakyRelu: ({ x }, options) => F.leakyRelu(x, options),
  softplus: ({ x }, options) => F.softplus(x, options),
}

const modules: Record<string, nn.Module> = {
  LayerNorm: new nn.LayerNorm([2, 3]),
  'LayerNorm without bias': new nn.LayerNorm(3, { bias: false }),
  'LayerNorm without affine': new nn.LayerNorm(3, { elementwiseAffine: false }),
  RMSNorm: new nn.RMSNorm(3),
  Embedding: new nn.Embedding(4, 2, { paddingIdx: 1 }),
}

const { ops, stateDicts } = readGolden('transformer.json') as {
  ops: OpCase[]
  stateDicts: Record<string, [key: string, shape: number[]][]>
}

const name = ({ op, options, inputs }: OpCase, i: number) => {
  const shapes = Object.entries(inputs).map(([key, v]) => `${key} ${v ? `[${v.shape}]` : 'none'}`)
  return `${i}: ${op} ${JSON.stringify(options)} ${shapes.join(' ')}`
}

describe.each(ops.map((c, i) => [name(c, i), c] as const))('%s', (_name, c) => {
  const check = (convert: (t: Tensor) => Tensor, tolerance: number) => {
    const inputs = Object.fromEntries(
      Object.entries(c.inputs).map(([key, v]) => {
        const t = v && unpack(v)
        return [key, t?.dtype === 'float64' ? convert(t).requiresGrad_() : t]
      }),
    ) as Inputs
    const y = functions[c.op](inputs, c.options)
    expectGolden(y, c.y, tolerance)
    y.mul(convert(unpack(c.weights)))
      .sum()
      .backward()
    for (const [key, golden] of Object.entries(c.grads)) {
      expectGolden(inputs[key].grad, golden, 4 * tolerance)
    }
  }

  test('value and gradients', () => check((t) => t, 1e-10))

  // A mean of 1000 leaves three digits less.
  const large = Math.max(...(c.inputs.x?.data ?? [0]).map(Math.abs)) > 100
  test('the same in float32, within its precision', () =>
    check((t) => t.float(), large ? 5e-4 : 5e-6))
})

test.each(Object.entries(stateDicts))('the state dictionary of %s', (module, expected) => {
  const entries = Object.entries(modules[module].stateDict())
  expect(entries.map(([key, t]) => [key, t.shape])).toEqual(expected)
})
