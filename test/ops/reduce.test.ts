import { describe, expect, test } from 'vitest'
import {
  ArgumentError,
  argmax,
  argmin,
  type DType,
  DTypeError,
  IndexError,
  ShapeError,
  type Tensor,
  tensor,
  zeros,
} from '../../src/index.js'
import {
  expectClose,
  expectExact,
  integers,
  laidOut,
  layouts,
  sampled,
} from '../support/layouts.js'
import * as ref from '../support/reference.js'
import { Random } from '../support/sampler.js'
import { errorOf, values } from '../support/values.js'

type Axes = readonly number[]

/** Shapes with the axes to reduce: every subset of small ones, long rows, long columns, empty. */
const reductions: [number[], Axes[]][] = [
  [[], [[]]],
  [[7], [[0], []]],
  [[1031], [[0]]],
  [
    [3, 5],
    [[0], [1], [0, 1], []],
  ],
  [
    [2, 3, 4],
    [[0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]],
  ],
  [
    [3, 301],
    [[0], [1], [0, 1]],
  ],
  [
    [301, 3],
    [[0], [1]],
  ],
  [
    [2, 1, 3, 2],
    [[1], [0, 3], [1, 2]],
  ],
  [
    [2, 0, 3],
    [[1], [0, 1, 2], [0]],
  ],
  [[0], [[0]]],
]

/** The elements of x that each element of the result is made of, in row-major order. */
function groups<T extends ref.Num>(x: ref.NdArray<T>, axes: Axes): ref.NdArray<T>[] {
  const kept = x.shape.map((size, axis) => (axes.includes(axis) ? 1 : size))
  const inner = x.shape.map((size, axis) => (axes.includes(axis) ? size : 1))
  return [...ref.indices(kept)].map((outer) =>
    ref.build(inner, (index) =>
      ref.at(
        x,
        outer.map((o, axis) => o + index[axis]),
      ),
    ),
  )
}

function reduced<T extends ref.Num>(
  x: ref.NdArray<T>,
  axes: Axes,
  f: (group: readonly T[]) => ref.Num,
): ref.NdArray<ref.Num> {
  const shape = x.shape.filter((_, axis) => !axes.includes(axis))
  return { shape, data: groups(x, axes).map((g) => f(g.data)) }
}

const total = (v: readonly number[]) => v.reduce((a, b) => a + b, 0)
const floats: Record<string, (v: readonly number[]) => number> = {
  sum: total,
  mean: (v) => total(v) / v.length,
  prod: (v) => v.reduce((a, b) => a * b, 1),
  amax: (v) => Math.max(...v),
  amin: (v) => Math.min(...v),
}
const call = (t: Tensor, name: string, axes: Axes, options?: object) =>
  (t as unknown as Record<string, (a: Axes, o?: object) => Tensor>)[name](axes, options)

describe.each(Object.keys(floats))('%s', (name) => {
  const isExtreme = name.startsWith('am')

  test.each(['float32', 'float64', 'float16', 'bfloat16'] as const)(
    'of %s, over any axes, in every layout',
    (dtype) => {
      const random = new Random(1)
      const epsilon = ref.ulp(dtype === 'float64' ? 'float64' : 'float32', 1)
      for (const [shape, choices] of reductions) {
        // near 1, so that long products neither vanish nor overflow
        const x = sampled(shape, dtype, () =>
          name === 'prod' ? random.uniform(0.98, 1.02) : random.normal(),
        )
        for (const axes of choices) {
          if (isExtreme && axes.some((axis) => shape[axis] === 0)) continue
          const parts = groups(x, axes).map((g) => g.data)
          const want = parts.map(floats[name])
          // what pairwise sums of at least float32, rounded once to the dtype, may lose
          const bounds = parts.map((v, i) => {
            if (isExtreme) return 0
            const size = total(v.map(Math.abs))
            const scale = name === 'mean' ? size / v.length : name === 'prod' ? v.length : size
            return 4 * epsilon * scale + 0.51 * ref.ulp(dtype, want[i])
          })
          for (const layout of layouts) {
            const got = call(laidOut(x, dtype, layout), name, axes)
            const what = `${dtype} [${shape}] over [${axes}], ${layout}`
            expect(got.shape, what).toEqual(shape.filter((_, axis) => !axes.includes(axis)))
            const wrong = values(got).filter(
              (value, i) => !(Math.abs(value - want[i]) <= bounds[i]) && !Object.is(value, want[i]),
            )
            expect(wrong, what).toEqual([])
          }
          const kept = call(laidOut(x, dtype, 'dense'), name, axes, { keepdim: true })
          expect(kept.shape).toEqual(shape.map((size, axis) => (axes.includes(axis) ? 1 : size)))
        }
      }
    },
  )
})

describe('integers and bool', () => {
  const exact: Record<string, (v: readonly bigint[]) => bigint> = {
    sum: (v) => v.reduce((a, b) => a + b, 0n),
    prod: (v) => v.reduce((a, b) => a * b, 1n),
    // biome-ignore-start lint/complexity/useMathMinMax: Math knows no bigint
    amax: (v) => v.reduce((a, b) => (a >= b ? a : b)),
    amin: (v) => v.reduce((a, b) => (a <= b ? a : b)),
    // biome-ignore-end lint/complexity/useMathMinMax: Math knows no bigint
  }

  test.each(['int64', 'int32', 'int16', 'int8', 'uint8'] as const)(
    '%s: exact, sums in int64',
    (dtype) => {
      const random = new Random(2)
      for (const [shape, choices] of reductions) {
        const x = integers(shape, random, dtype === 'uint8' ? 0 : -100, 101)
        for (const axes of choices) {
          for (const [name, f] of Object.entries(exact)) {
            const extreme = name.startsWith('am')
            if (extreme && axes.some((axis) => shape[axis] === 0)) continue
            const got = call(laidOut(x, dtype, 'stepped'), name, axes)
            expect(got.dtype).toBe(extreme ? dtype : 'int64')
            const want = reduced(x, axes, (v) => ref.wrap('int64', f(v)))
            expect(Array.from(got.dataSync() as ArrayLike<ref.Num>, BigInt)).toEqual(want.data)
          }
        }
      }
    },
  )

  test('any, all, and sums of bool', () => {
    const random = new Random(3)
    for (const [shape, choices] of reductions) {
      const x = sampled(shape, 'bool', () => random.integer(0, 2))
      for (const axes of choices) {
        for (const layout of layouts) {
          const t = laidOut(x, 'bool', layout)
          expectExact(
            t.any(axes),
            reduced(x, axes, (v) => Number(v.some((b) => b !== 0))),
          )
          expectExact(
            t.all(axes),
            reduced(x, axes, (v) => Number(v.every((b) => b !== 0))),
          )
          const s = t.sum(axes)
          expect(s.dtype).toBe('int64')
          expectExact(s, reduced(x, axes, total))
        }
      }
    }
    expect(tensor([NaN]).any().item()).toBe(1)
    expect(tensor([true, false]).amax().dtype).toBe('bool')
  })
})

describe('argmax and argmin', () => {
  test.each(['float32', 'float64', 'int32', 'int8'] as DType[])(
    'of %s: the first of equals, along each axis',
    (dtype) => {
      const random = new Random(4)
      for (const shape of [[7], [3, 5], [2, 3, 4], [1, 1], [301, 2], [2, 301]]) {
        const x = sampled(shape, dtype, () => random.integer(-3, 4))
        shape.forEach((_, axis) => {
          const first = (pick: (v: readonly number[]) => number) =>
            reduced(x, [axis], (v) => v.indexOf(pick(v)))
          for (const layout of layouts) {
            const t = laidOut(x, dtype, layout)
            expectExact(
              argmax(t, axis),
              first((v) => Math.max(...v)),
            )
            expectExact(
              argmin(t, axis),
              first((v) => Math.min(...v)),
            )
            const { values: top, indices } = t.max(axis)
            expectExact(
              top,
              reduced(x, [axis], (v) => Math.max(...v)),
            )
            expectExact(
              indices,
              first((v) => Math.max(...v)),
            )
          }
        })
        expect(argmax(laidOut(x, dtype, 'permuted')).item()).toBe(
          x.data.indexOf(Math.max(...x.data)),
        )
      }
    },
  )

  test('the first NaN wins; keepdim; min with indices', () => {
    const t = tensor([
      [1, NaN, 3, NaN],
      [4, 2, 2, 9],
    ])
    expect(values(t.argmax(1))).toEqual([1, 3])
    expect(values(t.argmin(1))).toEqual([1, 1])
    expect(t.argmax(1, { keepdim: true }).shape).toEqual([2, 1])
    expect(t.argmax(undefined, { keepdim: true }).shape).toEqual([1, 1])
    const { values: low, indices } = t.min(0, { keepdim: true })
    expect([values(low), values(indices), low.shape]).toEqual([
      [1, NaN, 2, NaN],
      [0, 0, 1, 0],
      [1, 4],
    ])
  })
})

describe('composed reductions', () => {
  const random = new Random(5)
  const x = sampled([4, 6], 'float64', () => random.normal())
  const t = () => laidOut(x, 'float64', 'permuted')

  test('var and std with any correction', () => {
    for (const correction of [0, 1, 2.5]) {
      const variance = (v: readonly number[]) => {
        const m = total(v) / v.length
        return total(v.map((e) => (e - m) ** 2)) / Math.max(0, v.length - correction)
      }
      for (const axes of [[0], [1], [0, 1]]) {
        const want = reduced(x, axes, variance) as ref.NdArray
        expectClose(t().var(axes, { correction }), want, 8)
        const root = { ...want, data: want.data.map(Math.sqrt) }
        expectClose(t().std(axes, { correction }), root, 8)
      }
    }
    expect(t().var([1], { keepdim: true }).shape).toEqual([4, 1])
  })

  test('norms', () => {
    for (const p of [1, 2, 3, 1.5]) {
      const norm = (v: readonly number[]) => total(v.map((e) => Math.abs(e) ** p)) ** (1 / p)
      expectClose(t().norm(p, [1]), reduced(x, [1], norm) as ref.NdArray, 16)
    }
    expect(t().norm().item()).toBeCloseTo(Math.sqrt(total(x.data.map((e) => e * e))), 12)
    // The squares and their sum are beyond float16.
    for (const dtype of ['float16', 'bfloat16'] as const) {
      const half = tensor([300, 400], { dtype }).norm()
      expect([half.dtype, half.item()]).toEqual([dtype, 500])
    }
  })

  test('logSumExp is exact where exp would overflow', () => {
    const far = tensor(
      [
        [1000, 999],
        [-1000, -1001],
      ],
      { dtype: 'float64' },
    )
    const one = Math.log1p(Math.exp(-1))
    expect(values(far.logSumExp([1]))).toEqual([1000 + one, -1000 + one])
    expect(far.logSumExp([0, 1], { keepdim: true }).shape).toEqual([1, 1])
  })
})

describe('what is refused', () => {
  test.each([
    ['an axis too far', IndexError, () => zeros([2]).sum(1)],
    ['an axis twice', ArgumentError, () => zeros([2, 2]).sum([0, -2])],
    ['an axis of no kind', ArgumentError, () => zeros([2]).sum('rows' as never)],
    ['amax of nothing', ShapeError, () => zeros([0]).amax()],
    ['argmin of nothing', ShapeError, () => zeros([2, 0]).argmin(1)],
    ['mean of integers', DTypeError, () => zeros([2], { dtype: 'int32' }).mean()],
    ['var of integers', DTypeError, () => zeros([2], { dtype: 'int32' }).var()],
    ['a dtype of no name', DTypeError, () => zeros([2]).sum(0, { dtype: 'float' as never })],
  ])('%s', (_what, kind, f) => {
    expect(errorOf(kind, f)).toMatch(/^\w+: expected .*, got .+/)
  })

  test('an axis of a tensor that has none is allowed, as in PyTorch', () => {
    expect(tensor(5).sum(0).item()).toBe(5)
    expect(tensor(5).amax(-1).item()).toBe(5)
  })
})
