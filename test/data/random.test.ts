import { describe, expect, it } from 'vitest'
import { permutation, philox4x32, RandomStream } from '../../src/data/random.js'

describe('philox4x32', () => {
  // The known answers that its authors publish (Random123, kat_vectors, philox4x32 10).
  it.each([
    [
      [0, 0, 0, 0],
      [0, 0],
      [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
    ],
    [
      [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
      [0xffffffff, 0xffffffff],
      [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
    ],
    [
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      [0xa4093822, 0x299f31d0],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ] as const)('counter %j, key %j', (counter, key, answer) => {
    expect(philox4x32(counter, key)).toEqual(answer)
  })
})

describe('RandomStream', () => {
  it('takes all 53 bits of the seed and both numbers of the stream into account', () => {
    const first = (seed: number, a: number, b: number) => new RandomStream(seed, a, b).uint32()
    const values = [first(1, 0, 0), first(1 + 2 ** 40, 0, 0), first(1, 1, 0), first(1, 0, 1)]
    expect(new Set(values).size).toBe(4)
    expect(first(1, 0, 0)).toBe(values[0])
  })

  it('draws each remainder about as often as the others', () => {
    const random = new RandomStream(3, 0)
    const counts = new Array(6).fill(0)
    for (let i = 0; i < 60_000; i++) counts[random.below(6)]++
    // Binomial: mean 10,000, deviation 91.
    for (const count of counts) expect(Math.abs(count - 10_000)).toBeLessThan(400)
    expect(random.below(1)).toBe(0)
  })

  it('keeps to its ranges, with the means and deviations of its distributions', () => {
    const random = new RandomStream(5, 0)
    let sum = 0
    let squares = 0
    for (let i = 0; i < 40_000; i++) {
      const x = random.around(2)
      expect(Math.abs(x)).toBeLessThanOrEqual(2)
      sum += x
      squares += x * x
    }
    expect(sum / 40_000).toBeCloseTo(0, 1)
    expect(squares / 40_000).toBeCloseTo(4 / 6, 1)
    const x = random.between(-3, -2)
    expect(x >= -3 && x < -2).toBe(true)
  })
})

describe('permutation', () => {
  it('holds every index once, and differs by seed and stream alone', () => {
    const order = permutation(1000, 7, 3)
    expect(Array.from(order).sort((a, b) => a - b)).toEqual(
      Array.from({ length: 1000 }, (_, i) => i),
    )
    expect(permutation(1000, 7, 3)).toEqual(order)
    expect(permutation(1000, 8, 3)).not.toEqual(order)
    expect(permutation(1000, 7, 4)).not.toEqual(order)
    expect(permutation(0, 7, 3).length).toBe(0)
  })

  it('is uniform: all orders of three come up alike', () => {
    const counts = new Map<string, number>()
    for (let i = 0; i < 6000; i++) {
      const key = permutation(3, 1, i).join()
      counts.set(key, (counts.get(key) ?? 0) + 1)
    }
    expect(counts.size).toBe(6)
    for (const count of counts.values()) expect(Math.abs(count - 1000)).toBeLessThan(150)
  })
})
