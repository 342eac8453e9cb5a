// `feedForward`: what two calls of `linear` make.
import { describe, expect, test } from 'vitest'
import {
  ArgumentError,
  autocast,
  type DType,
  feedForward,
  linear,
  manualSeed,
  memoryStats,
  noGrad,
  randn,
  ShapeError,
  type Tensor,
  tensor,
} from '../../src/index.js'
import { errorOf, values } from '../support/values.js'

const activations = ['relu', 'gelu', 'geluTanh'] as const
type Activation = (typeof activations)[number]
const roundoff = { float32: 2 ** -24, float64: 2 ** -53, bfloat16: 2 ** -8, float16: 2 ** -11 }

/** x, w1, b1, w2, b2 */
type Inputs = [Tensor, Tensor, Tensor | null, Tensor, Tensor | null]

function inputs(lead: number[], [k, m, l]: number[], dtype: DType, hasBias = true): Inputs {
  const make = (...shape: number[]) => randn(shape).mul(0.5).to(dtype).requiresGrad_()
  const bias = (size: number) => (hasBias ? make(size) : null)
  return [make(...lead, k), make(m, k), bias(m), make(l, m), bias(l)]
}

const apart = ([x, w1, b1, w2, b2]: Inputs, activation: Activation) =>
  linear(linear(x, w1, b1, { activation }), w2, b2)

/** y, and the gradients of the inputs. */
function results(given: Inputs, dy: Tensor, f: (given: Inputs) => Tensor): Tensor[] {
  const y = f(given)
  y.backward(dy)
  const grads = given.filter((t) => t !== null).map((t) => t.grad as Tensor)
  for (const t of given) if (t) t.grad = null
  return [y, ...grads]
}

function expectAsApart(given: Inputs, dy: Tensor, activation: Activation, terms: number): void {
  const got = results(given, dy, (inputs) => feedForward(...inputs, { activation }))
  const want = results(given, dy, (inputs) => apart(inputs, activation))
  expect(got.length).toBe(want.length)
  got.forEach((t, i) => {
    expect(t.shape).toEqual(want[i].shape)
    expect(t.dtype).toBe(want[i].dtype)
    const wanted = values(want[i])
    // Other orders of sums, and dz where it has not been rounded yet.
    const largest = Math.max(1, ...wanted.map(Math.abs))
    const bound = roundoff[t.dtype as keyof typeof roundoff] * Math.sqrt(terms) * largest * 4
    values(t).forEach((value, j) => {
      expect(Math.abs(value - wanted[j]), `${i}, ${j}`).toBeLessThanOrEqual(bound)
    })
  })
}

describe.each(activations)('with %s', (activation) => {
  test.each(['float32', 'float64', 'bfloat16', 'float16'] as const)('is its parts, %s', (dtype) => {
    manualSeed(1)
    for (const [lead, sizes] of [
      [[3], [5, 4, 2]],
      [[1], [10, 10, 10]],
      [
        [2, 3],
        [17, 33, 5],
      ],
      [[], [4, 3, 2]],
      [[70], [24, 40, 16]],
      [[5], [2, 1, 1]],
    ] as [number[], number[]][]) {
      for (const hasBias of [true, false]) {
        const given = inputs(lead, sizes, dtype, hasBias)
        const terms = Math.max(...sizes, ...lead)
        expectAsApart(given, randn([...lead, sizes[2]]).to(dtype), activation, terms)
      }
    }
  })

  test('is its parts under autocast', () => {
    manualSeed(2)
    const given = inputs([33], [40, 24, 16], 'float32')
    const dy = randn([33, 16]).to('bfloat16')
    const [y, ...grads] = results(given, dy, (inputs) =>
      autocast('bfloat16', () => feedForward(...inputs, { activation })),
    )
    const [wantY, ...wanted] = results(given, dy, (inputs) =>
      autocast('bfloat16', () => apart(inputs, activation)),
    )
    expect(y.dtype).toBe('bfloat16')
    expect(values(y)).toEqual(values(wantY))
    grads.forEach((grad, i) => {
      expect(grad.dtype).toBe('float32')
      const want = values(wanted[i])
      const largest = Math.max(...want.map(Math.abs))
      values(grad).forEach((g, j) => {
        expect(Math.abs(g - want[j])).toBeLessThanOrEqual(2 ** -6 * largest)
      })
    })
  })

  test('takes gradients of any strides', () => {
    manualSeed(3)
    const given = inputs([6], [5, 4, 3], 'float64')
    expectAsApart(given, randn([3, 6], { dtype: 'float64' }).transpose(0, 1), activation, 6)
    expectAsApart(given, tensor(0.5, { dtype: 'float64' }).expand([6, 3]), activation, 6)
  })

  test('gives the gradients that are asked for', () => {
    manualSeed(4)
    const given = inputs([4], [3, 5, 2], 'float64')
    const dy = randn([4, 2], { dtype: 'float64' })
    const [, ...all] = results(given, dy, (inputs) => feedForward(...inputs, { activation }))
    for (let wanted = 1; wanted < 32; wanted++) {
      const isWanted = (i: number) => (wanted & (1 << i)) !== 0
      const parts = given.map((t, i) => {
        const leaf = (t as Tensor).detach()
        return isWanted(i) ? leaf.requiresGrad_() : leaf
      }) as Inputs
      feedForward(...parts, { activation }).backward(dy)
      const got = parts.map((t) => t?.grad && values(t.grad))
      expect(got).toEqual(all.map((grad, i) => (isWanted(i) ? values(grad) : null)))
    }
  })

  test('keeps nothing where there is nothing to differentiate', () => {
    const x = randn([16, 8])
    const w1 = randn([32, 8], { requiresGrad: true })
    const w2 = randn([4, 32])
    const before = memoryStats().liveBytes
    const y = noGrad(() => feedForward(x, w1, null, w2, null, { activation }))
    expect(memoryStats().liveBytes - before).toBe(y.numel * 4)
    const z = feedForward(x, w1.detach(), null, w2, null, { activation })
    expect(memoryStats().liveBytes - before).toBe(2 * z.numel * 4)
  })
})

test('GELU is the default, and other activations are refused', () => {
  const given: Inputs = [randn([2, 3]), randn([4, 3]), null, randn([5, 4]), null]
  const [x, w1, b1, w2, b2] = given
  expect(values(feedForward(x, w1, b1, w2, b2))).toEqual(values(apart(given, 'gelu')))
  const call = () => feedForward(x, w1, b1, w2, b2, { activation: 'tanh' as 'relu' })
  expect(errorOf(ArgumentError, call)).toBe(
    `feedForward: expected 'relu', 'gelu', 'geluTanh' or null as activation, got "tanh"`,
  )
})

test('operands of several dtypes meet as those of linear do', () => {
  manualSeed(5)
  const [x, w1, b1, w2, b2] = inputs([3], [4, 5, 2], 'float32')
  const given: Inputs = [x, w1, b1, w2.detach().to('float64'), b2]
  const y = feedForward(...given)
  expect(y.dtype).toBe('float64')
  expect(values(y)).toEqual(values(apart(given, 'gelu')))
})

test('sizes that do not fit are refused', () => {
  const refused = (x: Tensor, w1: Tensor, b1: Tensor | null, w2: Tensor, b2: Tensor | null) =>
    errorOf(ShapeError, () => feedForward(x, w1, b1, w2, b2))
  const [x, w1, b1, w2, b2] = [[2, 3], [4, 3], [4], [5, 4], [5]].map((shape) => randn(shape))
  expect(refused(x, w2, null, w2, null)).toBe(
    'feedForward: expected x [.., K] and w [M, K], got [2, 3] and [5, 4]',
  )
  expect(refused(x, w1, b2, w2, b2)).toBe('feedForward: expected a bias of shape [4], got [5]')
  expect(refused(x, w1, b1, w1, b2)).toBe('feedForward: expected w2 of shape [L, 4], got [4, 3]')
  expect(refused(x, w1, b1, w2, b1)).toBe('feedForward: expected a bias of shape [5], got [4]')
})
