import { describe, expect, test } from 'vitest'
import {
  ArgumentError,
  arange,
  bernoulli,
  DTypeError,
  Generator,
  getRandomState,
  manualSeed,
  normal,
  rand,
  randint,
  randn,
  randperm,
  setRandomState,
  uniform,
} from '../../src/index.js'
import { errorOf, values } from '../support/values.js'

/** Ten rounds of Philox4x32 (Salmon et al. 2011), in bigint arithmetic. */
function philox(seed: bigint, counter: bigint): bigint[] {
  const word = (x: bigint) => BigInt.asUintN(32, x)
  let [c0, c1, c2, c3] = [word(counter), word(counter >> 32n), 0n, 0n]
  let [k0, k1] = [word(seed), word(seed >> 32n)]
  for (let round = 0; round < 10; round++) {
    const [p, q] = [c0 * 0xd2511f53n, c2 * 0xcd9e8d57n]
    ;[c0, c1, c2, c3] = [(q >> 32n) ^ c1 ^ k0, word(q), (p >> 32n) ^ c3 ^ k1, word(p)]
    ;[k0, k1] = [word(k0 + 0x9e3779b9n), word(k1 + 0xbb67ae85n)]
  }
  return [c0, c1, c2, c3]
}

describe('random numbers', () => {
  const mean = (v: number[]) => v.reduce((a, b) => a + b, 0) / v.length
  const n = 20_000

  test('have their distributions', () => {
    manualSeed(1)
    const u = values(rand([n]))
    expect(Math.min(...u)).toBeGreaterThanOrEqual(0)
    expect(Math.max(...u)).toBeLessThan(1)
    expect(mean(u)).toBeCloseTo(0.5, 1.7)
    const z = values(randn([n], { dtype: 'float64' }))
    expect(mean(z)).toBeCloseTo(0, 1.3)
    expect(mean(z.map((x) => x * x))).toBeCloseTo(1, 1)
    expect(mean(z.map((x) => x ** 4))).toBeCloseTo(3, 0)
    const shifted = values(normal([n], 5, 2))
    expect(mean(shifted)).toBeCloseTo(5, 1)
    const b = values(bernoulli([n], 0.2))
    expect(new Set(b)).toEqual(new Set([0, 1]))
    expect(mean(b)).toBeCloseTo(0.2, 1.5)
    const w = values(uniform([n], -3, -1))
    expect([Math.min(...w) >= -3, Math.max(...w) < -1]).toEqual([true, true])
    const die = randint(1, 7, [n])
    expect(die.dtype).toBe('int64')
    expect(new Set(values(die))).toEqual(new Set([1, 2, 3, 4, 5, 6]))
    expect(values(randperm(100)).sort((a, b) => a - b)).toEqual(values(arange(100)))
    expect(values(randperm(100))).not.toEqual(values(arange(100)))
  })

  test('are Philox, element by element: a stream that files and other devices can rely on', () => {
    const seed = 0x123456789abcdefn
    const generator = new Generator({ seed })
    generator.setState({ seed, offset: 2n ** 33n + 5n })
    const u = values(rand([9], { generator }))
    const want = u.map((_, i) => {
      const lanes = philox(seed, 2n ** 33n + 5n + BigInt(i >> 2))
      return Number(lanes[i % 4] >> 8n) / 2 ** 24
    })
    expect(u).toEqual(want)
    generator.setState({ seed, offset: 0n })
    const d = values(rand([5], { generator, dtype: 'float64' }))
    const wide = d.map((_, i) => {
      const lanes = philox(seed, BigInt(i >> 1))
      const bits = (lanes[2 * (i % 2) + 1] << 32n) | lanes[2 * (i % 2)]
      return Number(bits >> 11n) / 2 ** 53
    })
    expect(d).toEqual(wide)
  })

  test('repeat with the seed, go on otherwise, and can be set back', () => {
    manualSeed(42)
    const first = values(randn([7]))
    const state = getRandomState()
    const second = values(randn([7]))
    expect(second).not.toEqual(first)
    setRandomState(state)
    expect(values(randn([7]))).toEqual(second)
    manualSeed(42n)
    expect(values(randn([7]))).toEqual(first)
  })

  test('a generator has a stream of its own', () => {
    manualSeed(3)
    const before = getRandomState()
    const a = new Generator({ seed: 5 })
    const drawn = values(rand([5], { generator: a }))
    expect(getRandomState()).toEqual(before)
    expect(values(rand([5], { generator: new Generator({ seed: 5 }) }))).toEqual(drawn)
    const state = a.getState()
    const next = values(randperm(9, { generator: a }))
    a.setState(state)
    expect(values(randperm(9, { generator: a }))).toEqual(next)
    a.manualSeed(5)
    expect(values(rand([5], { generator: a }))).toEqual(drawn)
  })

  test('are of the dtype asked for, or refused', () => {
    expect(rand([2], { dtype: 'float16' }).dtype).toBe('float16')
    expect(randint(0, 2, [2], { dtype: 'float32' }).dtype).toBe('float32')
    expect(errorOf(DTypeError, () => randn([2], { dtype: 'int32' }))).toMatch(
      /^randn: expected a floating/,
    )
    expect(errorOf(ArgumentError, () => randint(3, 3, [1]))).toMatch(/^randint: expected/)
  })
})
