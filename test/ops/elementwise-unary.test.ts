import { describe, expect, test } from 'vitest'
import { opcodes, type UnaryOpcode } from '../../src/bindings/opcodes.js'
import { type DType, DTypeError, type Tensor } from '../../src/index.js'
import { unary, unaryInPlace } from '../../src/ops/elementwise.js'
import {
  dense,
  expectClose,
  expectExact,
  integers,
  laidOut,
  layouts,
  sampled,
  shapes,
  specialValues,
} from '../support/layouts.js'
import * as ref from '../support/reference.js'
import { Random } from '../support/sampler.js'

const cubic = (x: number) => Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)
const truth = (b: boolean) => (b ? 1 : 0)

interface Row {
  readonly f: (x: number) => number
  /** Where random arguments come from. */
  readonly domain: readonly [number, number]
  /** How far from exact arithmetic, in units of the last place of float32 and of float64. */
  readonly ulps: readonly [number, number]
  /** Whether large arguments are left out: their reduction is not what this tests. */
  readonly bounded?: true
}

const row = (
  f: (x: number) => number,
  domain: readonly [number, number] = [-4, 4],
  ulps: readonly [number, number] = [0.51, 0.51],
): Row => ({ f, domain, ulps })
const bounded = (r: Row): Row => ({ ...r, bounded: true })

/** Every opcode, as mathematics has it; what Math computes is itself an ulp or so off. */
const table: Record<Exclude<UnaryOpcode, 'bitwiseNot'>, Row> = {
  neg: row((x) => -x),
  abs: row(Math.abs),
  sign: row((x) => (x > 0 ? 1 : x < 0 ? -1 : 0)),
  square: row((x) => x * x),
  sqrt: row(Math.sqrt, [0, 9]),
  rsqrt: row((x) => 1 / Math.sqrt(x), [0.01, 9], [1.5, 1.5]),
  reciprocal: row((x) => 1 / x),
  exp: row(Math.exp, [-20, 20], [2, 2]),
  exp2: row((x) => 2 ** x, [-20, 20], [2, 2]),
  expm1: row(Math.expm1, [-3, 3], [2, 3]),
  log: row(Math.log, [0.01, 20], [2, 2]),
  log2: row(Math.log2, [0.01, 20], [2, 3]),
  log10: row(Math.log10, [0.01, 20], [2, 3]),
  log1p: row(Math.log1p, [-0.9, 9], [2, 2]),
  sin: bounded(row(Math.sin, [-30, 30], [2, 2])),
  cos: bounded(row(Math.cos, [-30, 30], [2, 2])),
  tan: bounded(row(Math.tan, [-1.5, 1.5], [4, 3])),
  asin: row(Math.asin, [-1, 1], [3, 2]),
  acos: row(Math.acos, [-1, 1], [3, 2]),
  atan: row(Math.atan, [-9, 9], [3, 2]),
  sinh: row(Math.sinh, [-9, 9], [3, 3]),
  cosh: row(Math.cosh, [-9, 9], [3, 3]),
  tanh: row(Math.tanh, [-9, 9], [3, 3]),
  asinh: row(Math.asinh, [-30, 30], [4, 3]),
  acosh: row(Math.acosh, [1, 30], [4, 3]),
  atanh: row(Math.atanh, [-0.99, 0.99], [4, 3]),
  floor: row(Math.floor),
  ceil: row(Math.ceil),
  round: row(ref.roundEven),
  trunc: row(Math.trunc),
  erf: row(ref.erf, [-4, 4], [3, 6]),
  erfc: row(ref.erfc, [-4, 9], [4, 8]),
  sigmoid: row(ref.sigmoid, [-20, 20], [3, 5]),
  softplus: row((x) => (x > 20 ? x : Math.log1p(Math.exp(x))), [-20, 30], [3, 4]),
  relu: row((x) => Math.max(0, x)),
  // In the far negative tail the product vanishes; -∞ · 0 is NaN, as in PyTorch.
  gelu: row((x) => x * 0.5 * ref.erfc(-x / Math.SQRT2), [-5, 5], [6, 40]),
  geluTanh: row((x) => x * ref.sigmoid(2 * cubic(x)), [-4, 4], [32, 32]),
  silu: row((x) => x * ref.sigmoid(x), [-20, 20], [4, 6]),
  isnan: row((x) => truth(Number.isNaN(x))),
  isinf: row((x) => truth(Math.abs(x) === Infinity)),
  isfinite: row((x) => truth(Number.isFinite(x))),
  logicalNot: row((x) => truth(x === 0)),
}

const names = opcodes.unary.filter((name) => name !== 'bitwiseNot')
const predicates = new Set<string>(['isnan', 'isinf', 'isfinite', 'logicalNot'])
const keepsIntegers = new Set<string>([
  ...['neg', 'abs', 'sign', 'square', 'floor', 'ceil', 'round', 'trunc', 'relu'],
])

function check(got: Tensor, x: ref.NdArray, { f, ulps }: Row, what: string): void {
  const want = ref.build(x.shape, (index) => f(ref.at(x, index)))
  // A half type holds the float32 result, rounded once more.
  const bound = got.dtype === 'float64' ? ulps[1] : got.dtype === 'float32' ? ulps[0] : 0.6
  if (got.dtype === 'bool') expectExact(got, want, what)
  else expectClose(got, want, bound, what)
}

describe.each(names)('%s', (name) => {
  const r = table[name]

  test('of every shape and layout, against mathematics', () => {
    const random = new Random(1)
    for (const dtype of ['float32', 'float64'] as const) {
      for (const shape of shapes) {
        const x = sampled(shape, dtype, () => random.uniform(...r.domain))
        for (const layout of layouts) {
          const y = unary(name, laidOut(x, dtype, layout))
          check(y, x, r, `${dtype} [${shape}] ${layout}`)
        }
      }
    }
  })

  test.each(['float32', 'float64', 'float16', 'bfloat16'] as const)(
    'special values of %s',
    (dtype) => {
      const all = specialValues(dtype)
      const data = r.bounded ? all.filter((v) => !(Math.abs(v) > 1e4) || !Number.isFinite(v)) : all
      const x = { shape: [data.length], data }
      check(unary(name, dense(x, dtype)), x, r, dtype)
    },
  )

  test('of an expanded tensor, and twice the same on many elements at any alignment', () => {
    const random = new Random(2)
    const line = sampled([1, 37], 'float32', () => random.uniform(...r.domain))
    const y = unary(name, dense(line, 'float32').expand([3, 37]))
    for (const row of y.unbind(0)) check(row.unsqueeze(0), line, r, 'expanded')
    const x = sampled([257], 'float32', () => random.uniform(...r.domain))
    const whole = unary(name, dense(x, 'float32')).dataSync()
    for (const start of [1, 2, 3, 7]) {
      const part = unary(name, dense(x, 'float32').slice(0, start)).dataSync()
      expect(part).toEqual(whole.slice(start))
    }
  })

  test('half types: the float32 result rounded once', () => {
    const random = new Random(3)
    for (const dtype of ['float16', 'bfloat16'] as const) {
      const x = sampled([61], dtype, () => random.uniform(...r.domain))
      const y = unary(name, dense(x, dtype))
      expect(y.dtype).toBe(predicates.has(name) ? 'bool' : dtype)
      check(y, x, r, dtype)
    }
  })

  test('integers: exact, wrapping; or float32 where a float comes out', () => {
    const random = new Random(4)
    for (const dtype of ['int64', 'int32', 'int16', 'int8', 'uint8'] as const) {
      // In the tails of the functions of floats a unit of the last place means little.
      const limit = keepsIntegers.has(name) ? 100 : 9
      const x = integers([45], random, dtype === 'uint8' ? 0 : -limit, limit + 1)
      const y = unary(name, dense(x, dtype))
      const exact = x.data.map((v) => r.f(Number(v)))
      if (keepsIntegers.has(name)) {
        expect(y.dtype).toBe(dtype)
        const want = exact.map((v) => ref.wrap(dtype, BigInt(v)))
        expectExact(y, { shape: [45], data: want }, dtype)
      } else {
        expect(y.dtype).toBe(predicates.has(name) ? 'bool' : 'float32')
        check(y, { shape: [45], data: x.data.map(Number) }, r, dtype)
      }
    }
  })

  test('bool', () => {
    const x = { shape: [3], data: [0, 1, 1] }
    const refused = [...keepsIntegers].filter((n) => n !== 'sign')
    if (refused.includes(name)) {
      expect(() => unary(name, dense(x, 'bool'))).toThrow(DTypeError)
      return
    }
    const y = unary(name, dense(x, 'bool'))
    const want: DType = predicates.has(name) || name === 'sign' ? 'bool' : 'float32'
    expect(y.dtype).toBe(want)
    check(y, x, r, 'bool')
  })

  if (!predicates.has(name)) {
    test('in place, in every layout', () => {
      const random = new Random(5)
      const x = sampled([5, 7], 'float32', () => random.uniform(...r.domain))
      for (const layout of layouts) {
        const t = laidOut(x, 'float32', layout)
        expect(unaryInPlace(name, t)).toBe(t)
        check(t, x, r, layout)
      }
    })
  }
})

test('bitwiseNot: of integers and bool alone', () => {
  const x = integers([21], new Random(6), -128, 128)
  for (const dtype of ['int64', 'int32', 'int16', 'int8', 'uint8'] as const) {
    const stored = x.data.map((v) => ref.wrap(dtype, v))
    const want = stored.map((v) => ref.wrap(dtype, ~v))
    expectExact(
      unary('bitwiseNot', dense({ ...x, data: stored }, dtype)),
      { ...x, data: want },
      dtype,
    )
  }
  const mask = dense({ shape: [2], data: [0, 1] }, 'bool')
  expect(unary('bitwiseNot', mask).toArray()).toEqual([true, false])
  expect(() => unary('bitwiseNot', dense({ shape: [1], data: [1] }, 'float32'))).toThrow(DTypeError)
})
