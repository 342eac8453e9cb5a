// scaledDotProductAttention against PyTorch (test/golden/make_attention.py) and against its composed
// form: matmul, softmax, matmul.
import { describe, expect, test } from 'vitest'
import {
  type AttentionOptions,
  type DType,
  dropout,
  getNumThreads,
  grad,
  manualSeed,
  matmul,
  ones,
  randn,
  scaledDotProductAttention,
  setNumThreads,
  softmax,
  type Tensor,
  tensor,
  where,
  zeros,
} from '../../src/index.js'
import { expectGolden, type Packed, readGolden, unpack } from '../support/golden.js'
import { values } from '../support/values.js'

interface Golden {
  readonly options: AttentionOptions
  readonly inputs: Readonly<Record<'q' | 'k' | 'v', Packed>> & { readonly mask: Packed | null }
  readonly weights: Packed
  readonly y: Packed
  readonly grads: Readonly<Record<string, Packed>>
}
type Inputs = readonly [q: Tensor, k: Tensor, v: Tensor]

const { cases } = readGolden('attention.json') as { cases: Golden[] }

test.each(cases.map((c, i) => [i, c] as const))('PyTorch, case %i', (_i, c) => {
  const { mask: packed, ...rest } = c.inputs
  const inputs = Object.fromEntries(Object.entries(rest).map(([name, x]) => [name, unpack(x)]))
  if (packed !== null) inputs.mask = packed.dtype ? unpack(packed).ne(0) : unpack(packed)
  for (const name of Object.keys(c.grads)) inputs[name].requiresGrad_()
  const { q, k, v, mask = null } = inputs
  const y = scaledDotProductAttention(q, k, v, { ...c.options, attnMask: mask })
  expectGolden(y, c.y)
  y.mul(unpack(c.weights)).sum().backward()
  for (const [name, golden] of Object.entries(c.grads)) expectGolden(inputs[name].grad, golden)
})

/** Lower triangle, the diagonal included. */
const triangle = (rows: number, columns: number) =>
  tensor(Array.from({ length: rows }, (_, i) => Array.from({ length: columns }, (_, j) => j <= i)))

function composed([q, k, v]: Inputs, options: AttentionOptions): Tensor {
  const scale = options.scale ?? 1 / Math.sqrt(q.shape[q.ndim - 1])
  let scores = matmul(q, k.transpose(-2, -1)).mul(scale)
  const mask = options.isCausal ? triangle(q.shape[2], k.shape[2]) : options.attnMask
  if (mask) scores = mask.dtype === 'bool' ? where(mask, scores, -Infinity) : scores.add(mask)
  return matmul(softmax(scores), v)
}

/** The largest difference, or infinity where there is a NaN. */
function difference(a: Tensor, b: Tensor): number {
  expect(a.shape).toEqual(b.shape)
  const expected = values(b)
  const found = values(a).map((x, i) => Math.abs(x - expected[i]))
  return found.reduce((most, x) => (x <= most ? most : Number.isNaN(x) ? Infinity : x), 0)
}

function gradients(
  f: (inputs: Inputs) => Tensor,
  inputs: Inputs,
  dtype: DType,
  weights: Tensor,
): Tensor[] {
  const leaves = inputs.map((x) => x.to(dtype).detach().requiresGrad_()) as unknown as Inputs
  const y = f(leaves)
  return [y, ...grad([y.mul(weights.to(dtype)).sum()], leaves)] as Tensor[]
}

/** Value and gradients in a dtype, against the composed form in float64. */
function check(inputs: Inputs, options: AttentionOptions, dtype: DType, tolerance: number): void {
  const [q, , v] = inputs
  const weights = randn([...q.shape.slice(0, -1), v.shape[3]], { dtype: 'float64' })
  const mask = options.attnMask
  const own = { ...options, attnMask: mask && (mask.dtype === 'bool' ? mask : mask.to(dtype)) }
  const found = gradients((x) => scaledDotProductAttention(...x, own), inputs, dtype, weights)
  const expected = gradients((x) => composed(x, options), inputs, 'float64', weights)
  found.forEach((x, i) => {
    expect(difference(x, expected[i]), `result ${i}`).toBeLessThanOrEqual(tolerance)
  })
}

const normal = (...shape: number[]) => randn(shape, { dtype: 'float64' })
const sequence = (b: number, h: number, tq: number, tk: number, d: number): Inputs => [
  normal(b, h, tq, d),
  normal(b, h, tk, d),
  normal(b, h, tk, d),
]

describe.each([1, 7, 65, 130])('%i queries', (tq) => {
  test.each([1, 7, 65, 130])('%i keys: the composed form, in float32 and float64', (tk) => {
    manualSeed(tq * 1000 + tk)
    for (const d of [1, 3, 32, 64, 80]) {
      const inputs = sequence(1, 2, tq, tk, d)
      const added = normal(1, 1, tq, tk)
      const isSeen = normal(2, tq, tk).gt(-0.5).logicalOr(triangle(tq, tk))
      for (const options of [{}, { isCausal: true }, { attnMask: added }, { attnMask: isSeen }]) {
        check(inputs, options, 'float64', 1e-12)
        check(inputs, options, 'float32', 2e-5)
      }
    }
  })
})

test('half types are computed in float32', () => {
  manualSeed(1)
  const inputs = sequence(1, 2, 9, 17, 8).map((x) => x.to('bfloat16').double())
  check(inputs as unknown as Inputs, { isCausal: true }, 'bfloat16', 0.06)
})

test('views of one tensor [B, T, 3, H, D], and a result whose heads are joined without a copy', () => {
  manualSeed(2)
  const [b, t, h, d] = [2, 33, 3, 16]
  const packed = randn([b, t, 3, h, d]).requiresGrad_()
  const f = (x: Tensor) => {
    const [q, k, v] = x.permute([2, 0, 3, 1, 4]).unbind()
    return [q, k, v] as const
  }
  const y = scaledDotProductAttention(...f(packed), { isCausal: true })
  const joined = y.transpose(1, 2)
  expect(joined.isContiguous).toBe(true)
  expect(joined.reshape([b, t, h * d]).base).not.toBe(null)
  const copies = f(packed.detach()).map((x) => x.clone().requiresGrad_()) as unknown as Inputs
  const expected = scaledDotProductAttention(...copies, { isCausal: true })
  expect(values(y)).toEqual(values(expected))
  y.square().sum().backward()
  expected.square().sum().backward()
  f(packed.grad as Tensor).forEach((g, i) => {
    expect(values(g)).toEqual(values(copies[i].grad))
  })
})

test('transposed, stepped and repeated operands', () => {
  manualSeed(3)
  const q = normal(2, 3, 8, 40).transpose(2, 3).slice(2, 1, null, 2)
  const k = normal(2, 1, 25, 16).slice(3, 0, null, 2).expand([2, 3, 25, 8])
  const v = normal(25, 8).expand([2, 3, 25, 8])
  check([q, k, v], {}, 'float64', 1e-12)
})

test('axes before the last two broadcast, and may be none or many', () => {
  manualSeed(4)
  const [q, k, v] = [normal(2, 1, 3, 5, 4), normal(3, 1, 6, 4), normal(1, 3, 1, 6, 4)]
  const y = scaledDotProductAttention(q, k, v, { attnMask: ones([5, 6]).gt(0) })
  expect(y.shape).toEqual([2, 3, 3, 5, 4])
  expect(difference(y, composed([q, k, v], {}))).toBeLessThan(1e-12)
})

test('a query that sees no key gives 0, and gradients of 0', () => {
  const inputs = sequence(1, 1, 3, 4, 2).map((x) => x.requiresGrad_()) as unknown as Inputs
  const [q, k, v] = inputs
  const isSeen = tensor([[true, false, true, true], Array(4).fill(false), Array(4).fill(true)])
  const added = where(isSeen, zeros([3, 4], { dtype: 'float64' }), -Infinity)
  for (const attnMask of [isSeen, added, added.detach().requiresGrad_()]) {
    for (const dropoutP of [0, 1e-12]) {
      const y = scaledDotProductAttention(q, k, v, { attnMask, dropoutP })
      expect(values(y.select(2, 1))).toEqual([0, 0])
      const gs = grad([y.sum()], attnMask.requiresGrad ? [...inputs, attnMask] : inputs)
      expect(values(gs[0].select(2, 1))).toEqual([0, 0])
      for (const g of gs) expect(values(g).every(Number.isFinite)).toBe(true)
    }
  }
})

test('NaN and infinity stay in the rows that read them', () => {
  const [q, k, v] = sequence(1, 1, 200, 200, 4)
  const bad = q.clone()
  bad.select(2, 3).fill_(Number.NaN)
  const y = scaledDotProductAttention(bad, k, v, { isCausal: true })
  expect(values(y.select(2, 3)).every(Number.isNaN)).toBe(true)
  expect(y.isnan().any(-1).sum().item()).toBe(1)
  // Queries of the block that an infinity is in may see it through a weight of 0, later ones do.
  const late = v.clone()
  // Kernels take keys in blocks of 64 at most.
  late.select(2, 66).fill_(Number.POSITIVE_INFINITY)
  const z = scaledDotProductAttention(q, k, late, { isCausal: true })
  expect(z.slice(2, 0, 32).isfinite().all().item()).toBe(1)
  expect(z.slice(2, 66).isinf().all().item()).toBe(1)
})

test('empty sizes', () => {
  const attend = (q: number[], k: number[], v: number[], options = {}) =>
    scaledDotProductAttention(ones(q), ones(k), ones(v), options)
  expect(attend([0, 2, 3, 4], [0, 2, 3, 4], [0, 2, 3, 4]).shape).toEqual([0, 2, 3, 4])
  expect(attend([2, 0, 4], [2, 3, 4], [2, 3, 4]).shape).toEqual([2, 0, 4])
  expect(attend([3, 4], [3, 4], [3, 0]).shape).toEqual([3, 0])
  for (const dropoutP of [0, 0.5]) {
    expect(values(attend([1, 2], [0, 2], [0, 2], { dropoutP }))).toEqual([0, 0])
  }
})

test('dropout is that of the weights', () => {
  const [q, k, v] = sequence(2, 2, 5, 6, 4)
  manualSeed(7)
  const y = scaledDotProductAttention(q, k, v, { dropoutP: 0.3 })
  manualSeed(7)
  const weights = softmax(matmul(q, k.transpose(-2, -1)).mul(0.5))
  expect(difference(y, matmul(dropout(weights, 0.3), v))).toBeLessThan(1e-12)
  expect(values(scaledDotProductAttention(q, k, v, { dropoutP: 1 })).every((x) => x === 0)).toBe(
    true,
  )
})

test('the same bits at any number of threads', () => {
  const threads = getNumThreads()
  manualSeed(8)
  const inputs = sequence(1, 3, 520, 520, 8).map((x) => x.float().requiresGrad_())
  const run = (count: number) => {
    setNumThreads(count)
    const y = scaledDotProductAttention(...(inputs as unknown as Inputs), { isCausal: true })
    return [y, ...grad([y.square().sum()], inputs)].map((x) => values(x))
  }
  expect(run(1)).toEqual(run(2))
  setNumThreads(threads)
})
