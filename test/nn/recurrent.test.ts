import { describe, expect, test } from 'vitest'
import {
  DTypeError,
  manualSeed,
  randn,
  ShapeError,
  type Tensor,
  tensor,
  zeros,
} from '../../src/index.js'
import * as nn from '../../src/nn/index.js'
import { gru } from '../../src/ops/gru.js'
import { lstm } from '../../src/ops/lstm.js'
import { Adam } from '../../src/optim/index.js'
import { expectGolden, type Packed, readGolden, unpack } from '../support/golden.js'
import { gradcheck } from '../support/gradcheck.js'
import { Random, SeededSampler } from '../support/sampler.js'
import { errorOf, values } from '../support/values.js'

interface Case {
  readonly kind: 'LSTM' | 'GRU' | 'LSTMCell' | 'GRUCell'
  readonly sizes: readonly [number, number]
  readonly options: nn.RecurrentOptions
  readonly parameters: Record<string, Packed>
  readonly inputs: readonly Packed[]
  readonly weights: readonly Packed[]
  readonly results: readonly Packed[]
  readonly grads: readonly Packed[]
}

const layers = {
  LSTM: nn.LSTM,
  GRU: nn.GRU,
  LSTMCell: nn.LSTMCell,
  GRUCell: nn.GRUCell,
}
type AnyLayer = nn.LSTM | nn.GRU | nn.LSTMCell | nn.GRUCell

/** The results of any of the layers, one after the other. */
function run(layer: AnyLayer, [x, ...state]: readonly Tensor[]): Tensor[] {
  const isLstm = layer instanceof nn.LSTM || layer instanceof nn.LSTMCell
  const before = isLstm ? state : state[0]
  const forward = layer.forward as (x: Tensor, state?: unknown) => unknown
  const results = forward.call(layer, x, state.length > 0 ? before : undefined)
  return [results].flat(2) as Tensor[]
}

interface Half {
  readonly kind: 'LSTM' | 'GRU'
  readonly sizes: readonly [number, number]
  readonly parameters: Record<string, Packed>
  readonly x: Packed
  readonly weights: Packed
  /** Root mean squares, of y and of the gradients of x and the parameters. */
  readonly errors: readonly number[]
}

const { cases, halves } = readGolden('recurrent.json') as { cases: Case[]; halves: Half[] }

describe.each(cases.map((c) => [`${c.kind} ${JSON.stringify(c.options)}`, c] as const))(
  'as PyTorch: %s',
  (_name, c) => {
    test.each([
      ['float64', 1e-10],
      ['float32', 2e-5],
    ] as const)('results and gradients in %s', (dtype, tolerance) => {
      const layer = new layers[c.kind](...c.sizes, { ...c.options, dtype })
      expect(Object.keys(layer.stateDict())).toEqual(Object.keys(c.parameters))
      layer.loadStateDict(
        Object.fromEntries(Object.entries(c.parameters).map(([key, p]) => [key, unpack(p)])),
      )
      const inputs = c.inputs.map((x) => unpack(x).to(dtype).requiresGrad_())
      const results = run(layer, inputs)
      expect(results).toHaveLength(c.results.length)
      for (const [i, y] of results.entries()) {
        expect(y.dtype).toBe(dtype)
        expectGolden(y, c.results[i], tolerance)
      }
      results
        .map((y, i) => y.mul(unpack(c.weights[i]).to(dtype)).sum())
        .reduce((a, b) => a.add(b))
        .backward()
      for (const [i, t] of [...inputs, ...layer.parameters()].entries()) {
        expectGolden(t.grad, c.grads[i], tolerance)
      }
    })
  },
)

// ---------------------------------------------------------------- the kernels, by plain loops

interface Naive {
  readonly x: Float64Array
  readonly wIh: Float64Array
  readonly wHh: Float64Array
  readonly bIh: Float64Array
  readonly bHh: Float64Array
  readonly h0: Float64Array
  readonly c0: Float64Array
}

const sigmoid = (v: number) => 1 / (1 + Math.exp(-v))

/** h of each step and the last cells, unit by unit; gates i, f, g, o or r, z, n. */
function naive(
  kind: 'lstm' | 'gru',
  [steps, batch, features, size]: readonly number[],
  reverse: boolean,
  v: Naive,
): { y: number[]; c: number[] } {
  const y = new Array<number>(steps * batch * size)
  const h = Array.from(v.h0)
  const c = Array.from(v.c0)
  for (let s = 0; s < steps; s++) {
    const at = reverse ? steps - 1 - s : s
    const before = [...h]
    for (let n = 0; n < batch; n++) {
      for (let unit = 0; unit < size; unit++) {
        const fromX = (gate: number) => {
          const row = gate * size + unit
          let sum = v.bIh[row]
          for (let k = 0; k < features; k++) {
            sum += v.wIh[row * features + k] * v.x[(at * batch + n) * features + k]
          }
          return sum
        }
        const fromH = (gate: number) => {
          const row = gate * size + unit
          let sum = v.bHh[row]
          for (let k = 0; k < size; k++) sum += v.wHh[row * size + k] * before[n * size + k]
          return sum
        }
        const both = (gate: number) => fromX(gate) + fromH(gate)
        const place = n * size + unit
        if (kind === 'lstm') {
          c[place] = sigmoid(both(1)) * c[place] + sigmoid(both(0)) * Math.tanh(both(2))
          h[place] = sigmoid(both(3)) * Math.tanh(c[place])
        } else {
          const z = sigmoid(both(1))
          const candidate = Math.tanh(fromX(2) + sigmoid(both(0)) * fromH(2))
          h[place] = (1 - z) * candidate + z * before[place]
        }
        y[at * batch * size + place] = h[place]
      }
    }
  }
  return { y, c }
}

describe.each(['lstm', 'gru'] as const)('%s', (kind) => {
  const gates = kind === 'lstm' ? 4 : 3
  const sizes = [
    [1, 1, 1, 1],
    [1, 3, 2, 7],
    [5, 1, 3, 33],
    [4, 9, 5, 7],
    [3, 30, 4, 40],
    [6, 2, 1, 1],
    [2, 0, 3, 4],
  ]

  function draw([steps, batch, features, size]: readonly number[]): Naive {
    const random = new Random(5)
    const scaled = (n: number) => random.normals(n).map((value) => value / Math.sqrt(size))
    return {
      x: random.normals(steps * batch * features),
      wIh: scaled(gates * size * features),
      wHh: scaled(gates * size * size),
      bIh: scaled(gates * size),
      bHh: scaled(gates * size),
      h0: random.normals(batch * size),
      c0: random.normals(batch * size),
    }
  }

  function tensors(v: Naive, [steps, batch, features, size]: readonly number[]) {
    const weights = {
      wIh: tensor(v.wIh, { shape: [gates * size, features] }),
      wHh: tensor(v.wHh, { shape: [gates * size, size] }),
      bIh: tensor(v.bIh),
      bHh: tensor(v.bHh),
    }
    const x = tensor(v.x, { shape: [steps, batch, features] })
    const state = [v.h0, v.c0].map((part) => tensor(part, { shape: [batch, size] }))
    return { x, weights, state }
  }

  const call = (
    { x, weights, state: [h0, c0] }: ReturnType<typeof tensors>,
    reverse: boolean,
  ): Tensor[] =>
    kind === 'lstm' ? lstm(x, weights, h0, c0, { reverse }) : [gru(x, weights, h0, { reverse })]

  test.each(sizes)('loops over %i steps, a batch of %i, %i features, %i units', (...shape) => {
    const v = draw(shape)
    for (const reverse of [false, true]) {
      const expected = naive(kind, shape, reverse, v)
      const [y, c] = call(tensors(v, shape), reverse)
      const distance = (t: Tensor, numbers: readonly number[]) =>
        Math.max(0, ...values(t).map((value, i) => Math.abs(value - numbers[i])))
      expect(y.numel).toBe(expected.y.length)
      expect(distance(y, expected.y)).toBeLessThan(1e-13)
      if (c) expect(distance(c, expected.c)).toBeLessThan(1e-13)
    }
  })

  test('gradients of several chunks of rows and odd sizes', () => {
    const shape = [3, 19, 2, 5]
    const { x, weights, state } = tensors(draw(shape), shape)
    const { wIh, wHh, bIh, bHh } = weights
    for (const reverse of [false, true]) {
      gradcheck(
        ([a, b, c, d, e, ...rest]) =>
          call({ x: a, weights: { wIh: b, wHh: c, bIh: d, bHh: e }, state: rest }, reverse),
        [x, wIh, wHh, bIh, bHh, ...state.slice(0, kind === 'lstm' ? 2 : 1)],
      )
    }
  })

  test('NaN and infinity stay in their row and pass on to later steps', () => {
    const shape = [3, 10, 2, 5]
    const v = draw(shape)
    v.x[(1 * 10 + 4) * 2] = Number.NaN
    v.x[(0 * 10 + 7) * 2] = Number.POSITIVE_INFINITY
    const [y] = call(tensors(v, shape), false)
    const expected = naive(kind, shape, false, v)
    const got = values(y)
    expect(got.map(Number.isNaN)).toEqual(expected.y.map(Number.isNaN))
    expect(got.slice((1 * 10 + 4) * 5, (1 * 10 + 5) * 5)).toEqual(Array(5).fill(Number.NaN))
  })
})

// ---------------------------------------------------------------- the layers

describe('layers', () => {
  const make = {
    LSTM: (options: nn.RecurrentOptions) => new nn.LSTM(3, 4, options),
    GRU: (options: nn.RecurrentOptions) => new nn.GRU(3, 4, options),
  }

  describe.each(['LSTM', 'GRU'] as const)('%s', (kind) => {
    test('parameters start uniform in ±1 / √hiddenSize', () => {
      const layer = new layers[kind](30, 16, { numLayers: 2, bidirectional: true })
      const names = layer.namedParameters().map(([name]) => name)
      expect(names).toHaveLength(16)
      expect(names.slice(4, 8)).toEqual(
        ['weight_ih', 'weight_hh', 'bias_ih', 'bias_hh'].map((name) => `${name}_l0_reverse`),
      )
      expect(layer.weight_ih_l1.shape).toEqual([kind === 'LSTM' ? 64 : 48, 32])
      for (const p of layer.parameters()) {
        const sizes = values(p).map(Math.abs)
        expect(Math.max(...sizes)).toBeLessThanOrEqual(0.25)
        expect(Math.max(...sizes)).toBeGreaterThan(0.22)
      }
    })

    test('a state dictionary goes round', () => {
      const options = { numLayers: 2, bidirectional: true }
      const [a, b] = [make[kind](options), make[kind](options)]
      b.loadStateDict(a.stateDict())
      const x = randn([5, 2, 3])
      expect(values(b.forward(x)[0])).toEqual(values(a.forward(x)[0]))
    })

    test('a strided input, a sequence with no batch, and both layouts agree', () => {
      const layer = make[kind]({ bidirectional: true })
      const x = randn([2, 5, 6]).slice(2, 0, null, 2).transpose(0, 1)
      expect(x.isContiguous).toBe(false)
      const y = layer.forward(x)[0]
      expect(y.shape).toEqual([5, 2, 8])
      expect(values(layer.forward(x.contiguous())[0])).toEqual(values(y))
      const first = make[kind]({ bidirectional: true, batchFirst: true })
      first.loadStateDict(layer.stateDict())
      const z = first.forward(x.transpose(0, 1))[0]
      expect(z.shape).toEqual([2, 5, 8])
      expect(values(z.transpose(0, 1))).toEqual(values(y))
      const alone = first.forward(x.select(1, 1))[0]
      expect(alone.shape).toEqual([5, 8])
      const same = values(z.select(0, 1))
      values(alone).forEach((value, i) => void expect(value).toBeCloseTo(same[i], 5))
    })

    test('a state that goes on equals one long sequence', () => {
      const layer = make[kind]({ numLayers: 2, dtype: 'float64' })
      const x = randn([6, 2, 3], { dtype: 'float64' })
      const [whole] = layer.forward(x)
      const [, state] = layer.forward(x.slice(0, 0, 2))
      const [rest] = layer.forward(x.slice(0, 2), state as never)
      const expected = values(whole.slice(0, 2))
      values(rest).forEach((value, i) => void expect(value).toBeCloseTo(expected[i], 12))
    })

    test('dropout is between the layers, in training alone', () => {
      const layer = make[kind]({ numLayers: 2, dropout: 1 })
      const x = randn([4, 2, 3])
      const dropped = values(layer.forward(x)[0])
      expect(values(layer.forward(x.mul(2))[0])).toEqual(dropped)
      layer.eval()
      expect(values(layer.forward(x)[0])).not.toEqual(dropped)
    })

    test('float16 has sums in float32 and is given back as it came', () => {
      const layer = make[kind]({ dtype: 'float16' })
      const x = randn([4, 2, 3]).half().requiresGrad_()
      const [y] = layer.forward(x)
      expect(y.dtype).toBe('float16')
      y.sum().backward()
      expect(x.grad?.dtype).toBe('float16')
      expect(layer.weight_hh_l0.grad?.dtype).toBe('float16')
      const full = make[kind]({})
      full.loadStateDict(layer.stateDict())
      const want = values(full.forward(x.detach().float())[0].half())
      // The CPU computes all of it in float32; a GPU keeps the state in float16 between the steps.
      const bound = y.device.type === 'cpu' ? 0 : 2 ** -10
      values(y).forEach((v, i) => void expect(Math.abs(v - want[i])).toBeLessThanOrEqual(bound))
    })

    test('bfloat16 has no larger errors than in PyTorch', () => {
      const half = halves.find((h) => h.kind === kind) as Half
      const given = (['bfloat16', 'float64'] as const).map((dtype) => {
        const layer = new layers[kind](...half.sizes, { dtype })
        layer.loadStateDict(
          Object.fromEntries(Object.entries(half.parameters).map(([key, p]) => [key, unpack(p)])),
        )
        const x = unpack(half.x).to(dtype).requiresGrad_()
        const [y] = layer.forward(x)
        y.backward(unpack(half.weights).to(dtype))
        const results = [y, x.grad, ...layer.parameters().map((p) => p.grad)] as Tensor[]
        for (const t of results) expect(t.dtype).toBe(dtype)
        return results.map((t) => values(t))
      })
      const errors = given[1].map((exact, i) => {
        const squares = exact.map((v, j) => (v - given[0][i][j]) ** 2)
        return Math.sqrt(squares.reduce((a, b) => a + b) / squares.length)
      })
      expect(errors).toHaveLength(half.errors.length)
      errors.forEach((error, i) => void expect(error).toBeLessThanOrEqual(half.errors[i]))
    })

    test('no gradient is recorded for a frozen layer without inputs that need one', () => {
      const layer = make[kind]({}).requiresGrad_(false)
      expect(layer.forward(randn([2, 2, 3]))[0].requiresGrad).toBe(false)
      const x = randn([2, 2, 3]).requiresGrad_()
      layer.forward(x)[0].sum().backward()
      expect(x.grad?.shape).toEqual([2, 2, 3])
      expect(layer.weight_ih_l0.grad).toBe(null)
    })

    test('prints its sizes and what is not the default', () => {
      expect(String(make[kind]({}))).toBe(`${kind}(inputSize=3, hiddenSize=4)`)
      expect(String(make[kind]({ numLayers: 2, batchFirst: true, bias: false }))).toBe(
        `${kind}(inputSize=3, hiddenSize=4, numLayers=2, bias=false, batchFirst=true)`,
      )
    })
  })

  test('learns to remember the first of a sequence', () => {
    manualSeed(3)
    const sampler = new SeededSampler(3)
    const x = sampler.normal([6, 16, 3]).float()
    const target = x.select(0, 0).slice(1, 0, 1)
    const layer = new nn.LSTM(3, 8)
    const head = new nn.Linear(8, 1)
    const parameters = [...layer.parameters(), ...head.parameters()]
    const loss = () => {
      const [, [h]] = layer.forward(x)
      return head.forward(h.select(0, 0)).sub(target).square().mean()
    }
    const before = loss().item()
    const optimizer = new Adam(parameters, { lr: 0.02 })
    for (let i = 0; i < 60; i++) {
      optimizer.zeroGrad()
      loss().backward()
      optimizer.step()
    }
    expect(loss().item()).toBeLessThan(0.1 * before)
  })

  test('wrong input has a typed error', () => {
    const layer = new nn.LSTM(3, 4)
    const x = randn([5, 2, 3])
    const state = zeros([1, 2, 4])
    const any = <T>(value: unknown) => value as T
    expect(errorOf(ShapeError, () => layer.forward(randn([5, 2, 4])))).toBe(
      'LSTM: expected x of shape [T, N, 3] or [T, 3] with a step or more, got [5, 2, 4]',
    )
    expect(errorOf(ShapeError, () => layer.forward(x, [state, zeros([2, 2, 4])]))).toBe(
      'LSTM: expected c of shape [1, 2, 4], got [2, 2, 4]',
    )
    expect(errorOf(DTypeError, () => layer.forward(x.int()))).toBe(
      'LSTM: expected floating inputs, got int32',
    )
    expect(errorOf(ShapeError, () => layer.forward(zeros([0, 2, 3])))).toMatch(/^LSTM: expected x/)
    expect(errorOf(ShapeError, () => new nn.GRUCell(3, 4).forward(x))).toMatch(/^GRUCell: expected/)
    const gone = randn([5, 2, 3])
    gone.dispose()
    const wrong: (() => unknown)[] = [
      () => layer.forward(any(null)),
      () => layer.forward(any([x])),
      () => layer.forward(x, any(state)),
      () => layer.forward(x, any([state])),
      () => layer.forward(x, any([state, null])),
      () => layer.forward(x, [state.long(), state]),
      () => layer.forward(gone),
      () => new nn.GRU(3, 4).forward(x, any([state])),
      () => new nn.LSTM(0, 4),
      () => new nn.LSTM(3, any('4')),
      () => new nn.LSTM(3, 4, { numLayers: 0 }),
      () => new nn.LSTM(3, 4, { dropout: 2 }),
      () => new nn.GRU(3, 4, { dropout: any('1') }),
      () => new nn.LSTMCell(3, 4).forward(randn([2, 3]), [zeros([1, 4]), zeros([1, 4])]),
      () => new nn.LSTMCell(3, -1),
      () => new nn.GRUCell(3, 4).forward(randn([2, 3]), any(3)),
    ]
    for (const f of wrong) expect(f).toThrow(/^\w+: expected .+, got /s)
  })
})
