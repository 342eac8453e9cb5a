import { describe, expect, test } from 'vitest'
import type { BinaryOpcode } from '../../src/bindings/opcodes.js'
import * as adjoint from '../../src/index.js'
import { ArgumentError, DTypeError, ShapeError, type Tensor, where } from '../../src/index.js'
import { binary, binaryInPlace } from '../../src/ops/elementwise.js'
import {
  dense,
  expectClose,
  expectExact,
  integers,
  laidOut,
  layouts,
  sampled,
  specialValues,
} from '../support/layouts.js'
import * as ref from '../support/reference.js'
import { Random } from '../support/sampler.js'
import { errorOf, values } from '../support/values.js'

const truth = (b: boolean) => (b ? 1 : 0)

/** Pairs of shapes that broadcast: equal, by one axis, by both, by no axes, empty, long. */
const pairs: [number[], number[]][] = [
  [[7], [7]],
  [[], []],
  [[], [2, 3]],
  [[131], []],
  [[3, 5], [5]],
  [
    [3, 5],
    [3, 1],
  ],
  [
    [3, 1],
    [1, 5],
  ],
  [
    [2, 1, 3],
    [4, 1],
  ],
  [[0, 3], [1]],
  [[1], [0]],
  [
    [2, 3, 2, 3],
    [3, 1, 3],
  ],
  [[1, 1], [33]],
]

interface Row {
  readonly f: (a: number, b: number) => number
  readonly ulps: number
  readonly domain?: readonly [number, number]
}

/** IEEE 754's, where JavaScript says NaN: 1 to any power, and -1 to an infinite one, is 1. */
function power(a: number, b: number): number {
  return a === 1 || (a === -1 && Math.abs(b) === Infinity) ? 1 : a ** b
}

/** The ops of floats. Those of one rounding are exact, as IEEE 754 has them. */
const table: Partial<Record<BinaryOpcode, Row>> = {
  add: { f: (a, b) => a + b, ulps: 0.5 },
  sub: { f: (a, b) => a - b, ulps: 0.5 },
  mul: { f: (a, b) => a * b, ulps: 0.5 },
  div: { f: (a, b) => a / b, ulps: 0.5 },
  fmod: { f: (a, b) => a % b, ulps: 0.5 },
  remainder: { f: ref.remainder, ulps: 0.5 },
  pow: { f: power, ulps: 3, domain: [0.1, 4] },
  atan2: { f: Math.atan2, ulps: 3 },
  hypot: { f: Math.hypot, ulps: 2 },
  maximum: { f: Math.max, ulps: 0 },
  minimum: { f: Math.min, ulps: 0 },
  eq: { f: (a, b) => truth(a === b), ulps: 0 },
  ne: { f: (a, b) => truth(a !== b), ulps: 0 },
  lt: { f: (a, b) => truth(a < b), ulps: 0 },
  le: { f: (a, b) => truth(a <= b), ulps: 0 },
  gt: { f: (a, b) => truth(a > b), ulps: 0 },
  ge: { f: (a, b) => truth(a >= b), ulps: 0 },
  logicalAnd: { f: (a, b) => truth(a !== 0 && b !== 0), ulps: 0 },
  logicalOr: { f: (a, b) => truth(a !== 0 || b !== 0), ulps: 0 },
  logicalXor: { f: (a, b) => truth((a !== 0) !== (b !== 0)), ulps: 0 },
}

const rows = Object.entries(table) as [BinaryOpcode, Row][]

function reference(f: Row['f'], a: ref.NdArray, b: ref.NdArray): ref.NdArray {
  return ref.build(ref.broadcast(a.shape, b.shape), (i) => f(ref.at(a, i), ref.at(b, i)))
}

function check(got: Tensor, want: ref.NdArray, ulps: number, what: string): void {
  if (got.dtype === 'bool') expectExact(got, want, what)
  else expectClose(got, want, ulps, what)
}

describe.each(rows)('%s', (name, { f, ulps, domain = [-4, 4] }) => {
  const draw = (shape: number[], dtype: 'float32' | 'float64', random: Random) =>
    // some equal, so that comparisons go both ways
    sampled(shape, dtype, () =>
      random.next() < 0.3 ? Math.max(1, domain[0]) : random.uniform(...domain),
    )

  test('broadcast, in every pair of layouts', () => {
    const random = new Random(1)
    for (const dtype of ['float32', 'float64'] as const) {
      for (const [left, right] of pairs) {
        const [a, b] = [draw(left, dtype, random), draw(right, dtype, random)]
        const want = reference(f, a, b)
        for (const one of layouts) {
          for (const two of layouts) {
            const y = binary(name, laidOut(a, dtype, one), laidOut(b, dtype, two))
            check(y, want, ulps, `${dtype} [${left}] ${one}, [${right}] ${two}`)
          }
        }
      }
    }
  })

  test.each(['float32', 'float64', 'float16', 'bfloat16'] as const)(
    'special values of %s',
    (dtype) => {
      const all = specialValues(dtype)
      const a = { shape: [all.length, 1], data: all }
      const b = { shape: [all.length], data: all }
      const y = binary(name, dense(a, dtype), dense(b, dtype))
      check(y, reference(f, a, b), dtype.endsWith('16') ? 0.6 : Math.max(ulps, 0.5), dtype)
    },
  )

  test('numbers at either side, and the same tensor twice', () => {
    const random = new Random(2)
    const x = draw([3, 5], 'float32', random)
    const t = dense(x, 'float32')
    const two = { shape: [], data: [2] }
    check(binary(name, t, 2), reference(f, x, two), ulps, 'at the right')
    check(binary(name, 2, t), reference(f, two, x), ulps, 'at the left')
    check(binary(name, t, t), reference(f, x, x), ulps, 'twice')
    const square = draw([5, 5], 'float64', random)
    const transposed = ref.build([5, 5], ([i, j]) => ref.at(square, [j, i]))
    const s = dense(square, 'float64')
    check(binary(name, s, s.t()), reference(f, square, transposed), ulps, 'with its transpose')
  })

  test('unaligned parts and tails give the bits of the whole', () => {
    const random = new Random(3)
    const [a, b] = [draw([203], 'float32', random), draw([203], 'float32', random)]
    const [s, t] = [dense(a, 'float32'), dense(b, 'float32')]
    const whole = values(binary(name, s, t))
    for (const start of [1, 3, 8, 17, 202]) {
      const part = binary(name, s.slice(0, start), t.slice(0, start).clone())
      expect(values(part)).toEqual(whole.slice(start))
    }
  })

  if (!['eq', 'ne', 'lt', 'le', 'gt', 'ge'].includes(name) && !name.startsWith('logical')) {
    test('in place, in every layout, broadcasting the other operand alone', () => {
      const random = new Random(4)
      const [a, b] = [draw([5, 7], 'float32', random), draw([7], 'float32', random)]
      for (const layout of layouts) {
        const t = laidOut(a, 'float32', layout)
        expect(binaryInPlace(name, t, dense(b, 'float32'))).toBe(t)
        check(t, reference(f, a, b), ulps, layout)
      }
      const t = dense(a, 'float32')
      check(binaryInPlace(name, t, t), reference(f, a, a), ulps, 'with itself')
      expect(errorOf(ShapeError, () => binaryInPlace(name, dense(b, 'float32'), t))).toMatch(
        new RegExp(`^${name}_: expected a result of the tensor's shape \\[7\\], got \\[5, 7\\]`),
      )
    })
  }
})

type IntegerOp = (a: bigint, b: bigint) => bigint
const floorDivide: IntegerOp = (a, b) => {
  const q = a / b
  return a % b !== 0n && a < 0n !== b < 0n ? q - 1n : q
}
const flag = (b: boolean) => (b ? 1n : 0n)

const integerTable: Partial<Record<BinaryOpcode, IntegerOp>> = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  floorDivide,
  remainder: (a, b) => a - floorDivide(a, b) * b,
  fmod: (a, b) => a % b,
  // biome-ignore-start lint/complexity/useMathMinMax: Math knows no bigint
  maximum: (a, b) => (a > b ? a : b),
  minimum: (a, b) => (a < b ? a : b),
  // biome-ignore-end lint/complexity/useMathMinMax: Math knows no bigint
  eq: (a, b) => flag(a === b),
  lt: (a, b) => flag(a < b),
  ge: (a, b) => flag(a >= b),
  logicalXor: (a, b) => flag((a !== 0n) !== (b !== 0n)),
  bitwiseAnd: (a, b) => a & b,
  bitwiseOr: (a, b) => a | b,
  bitwiseXor: (a, b) => a ^ b,
}

describe.each(Object.entries(integerTable) as [BinaryOpcode, IntegerOp][])(
  'integers: %s',
  (name, f) => {
    test.each(['int64', 'int32', 'int16', 'int8', 'uint8'] as const)(
      '%s, exact and wrapping',
      (dtype) => {
        const random = new Random(7)
        const { bits, signed } = ref.integerFormats[dtype]
        const ends = signed
          ? [-(2n ** BigInt(bits - 1)), 2n ** BigInt(bits - 1) - 1n]
          : [0n, 2n ** BigInt(bits) - 1n]
        const drawn = integers([29], random, signed ? -128 : 0, signed ? 128 : 256)
        const a = { shape: [31], data: [...ends, ...drawn.data] }
        const divides = ['floorDivide', 'remainder', 'fmod'].includes(name)
        const b = {
          shape: [31, 1],
          data: [...a.data].reverse().map((v) => (divides && v === 0n ? 3n : v)),
        }
        const want = ref.build([31, 31], (i) => ref.wrap(dtype, f(ref.at(a, i), ref.at(b, i))))
        expectExact(binary(name, dense(a, dtype), dense(b, dtype)), want, dtype)
        const stepped = binary(name, laidOut(a, dtype, 'stepped'), laidOut(b, dtype, 'permuted'))
        expectExact(stepped, want, dtype)
      },
    )
  },
)

describe('integers', () => {
  test('division by zero is an error; float division gives infinities', () => {
    const [a, zero] = [dense({ shape: [2], data: [1n, 0n] }, 'int32'), adjoint.tensor([1n, 0n])]
    for (const name of ['floorDivide', 'remainder', 'fmod'] as const) {
      expect(errorOf(ArgumentError, () => binary(name, a, zero))).toMatch(/zero/)
      expect(errorOf(ArgumentError, () => binary(name, a, 0))).toMatch(/zero/)
    }
    expect(values(a.div(zero))).toEqual([1, NaN])
  })

  test('numbers beyond 2^53 stay exact', () => {
    const big = adjoint.tensor([2n ** 62n + 1n, -(2n ** 63n)])
    expect(big.add(1).toArray()).toEqual([2n ** 62n + 2n, -(2n ** 63n) + 1n])
    expect(big.mul(2n ** 1n).toArray()).toEqual([-(2n ** 63n) + 2n, 0n])
    expect(big.eq(2n ** 62n + 1n).toArray()).toEqual([true, false])
    expect(big.add(2n ** 62n).toArray()).toEqual([-(2n ** 63n) + 1n, -(2n ** 62n)])
    expect(big.neg().toArray()).toEqual([-(2n ** 62n) - 1n, -(2n ** 63n)])
    expect(errorOf(ArgumentError, () => big.add(2n ** 63n))).toMatch(/^add: expected a bigint/)
  })

  test('bits of floats are refused, arithmetic of bool too', () => {
    const x = adjoint.ones([2])
    for (const name of [
      'bitwiseAnd',
      'bitwiseOr',
      'bitwiseXor',
      'shiftLeft',
      'shiftRight',
    ] as const) {
      expect(errorOf(DTypeError, () => binary(name, x, x))).toMatch(
        new RegExp(`^${name}: expected`),
      )
    }
    const mask = x.gt(0)
    for (const name of ['sub', 'floorDivide', 'remainder', 'fmod', 'pow', 'shiftLeft'] as const) {
      expect(errorOf(DTypeError, () => binary(name, mask, mask))).toMatch(
        new RegExp(`^${name}: expected`),
      )
    }
    expect(mask.add(mask).toArray()).toEqual([true, true])
    expect(mask.mul(false).toArray()).toEqual([false, false])
    expect(mask.sub(1).dtype).toBe('int64')
  })

  test('in place a result of a higher kind is refused, and nothing is written', () => {
    const x = adjoint.tensor([1n, 2n])
    expect(errorOf(DTypeError, () => x.add_(0.5))).toMatch(/^add_: expected .* int64, got float32/)
    expect(errorOf(DTypeError, () => x.div_(2))).toMatch(/^div_: expected/)
    expect(values(x)).toEqual([1, 2])
    expect(values(adjoint.tensor([1.5]).add_(x.select(0, 0)))).toEqual([2.5])
    expect(adjoint.tensor([1], { dtype: 'int8' }).add_(300).item()).toBe(45)
  })
})

describe('where', () => {
  test('broadcast, in every layout', () => {
    const random = new Random(9)
    for (const [left, right] of pairs) {
      const mask = { shape: [3, 1, 1, 1, 1].slice(0, 1), data: [1, 0, 1] }
      const shape = ref.broadcast(left, right)
      const condition = { ...mask, shape: [3, ...shape.map(() => 1)] }
      const a = sampled(left, 'float32', () => random.normal())
      const b = sampled(right, 'float32', () => random.normal())
      const want = ref.build([3, ...shape], (i) =>
        ref.at(condition, i) ? ref.at(a, i) : ref.at(b, i),
      )
      for (const layout of layouts) {
        const c = laidOut(condition, 'bool', layout)
        expectExact(where(c, laidOut(a, 'float32', layout), laidOut(b, 'float32', layout)), want)
      }
    }
  })

  test('takes numbers and booleans, and refuses a condition that is no bool', () => {
    const c = adjoint.tensor([true, false])
    expect(where(c, 1, 2).dtype).toBe('int64')
    expect(values(where(c, NaN, 2))).toEqual([NaN, 2])
    expect(where(c, true, false).dtype).toBe('bool')
    expect(errorOf(DTypeError, () => where(adjoint.tensor([1]), 1, 2))).toMatch(
      /^where: expected a bool/,
    )
  })
})
