// Random numbers for data, apart from the tensors' generator: drawing samples or shuffling never
// disturbs a model's random stream, and any part of a stream can be drawn without what precedes it.
import { ArgumentError, describe } from '../core/errors.js'

/**
 * Philox4x32-10 (Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3"):
 * ten rounds of
 *   (c0, c1, c2, c3) <- (hi(B c2) ^ c1 ^ k0, lo(B c2), hi(A c0) ^ c3 ^ k1, lo(A c0))
 * of the counter c under the key k, which grows by the Weyl constants after each round.
 */
export function philox4x32(
  counter: readonly [number, number, number, number],
  key: readonly [number, number],
): [number, number, number, number] {
  let [c0, c1, c2, c3] = counter
  let [k0, k1] = key
  for (let round = 0; round < 10; round++) {
    const hi0 = multiplyHigh(0xd2511f53, c0)
    const lo0 = Math.imul(0xd2511f53, c0)
    const hi1 = multiplyHigh(0xcd9e8d57, c2)
    const lo1 = Math.imul(0xcd9e8d57, c2)
    c0 = (hi1 ^ c1 ^ k0) >>> 0
    c1 = lo1 >>> 0
    c2 = (hi0 ^ c3 ^ k1) >>> 0
    c3 = lo0 >>> 0
    k0 = (k0 + 0x9e3779b9) >>> 0
    k1 = (k1 + 0xbb67ae85) >>> 0
  }
  return [c0, c1, c2, c3]
}

// The upper 32 bits of a b, from products of 16-bit halves, which doubles hold exactly.
function multiplyHigh(a: number, b: number): number {
  const aLow = a & 0xffff
  const aHigh = a >>> 16
  const bLow = b & 0xffff
  const bHigh = b >>> 16
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16)
  const carry = aLow * bHigh + (middle % 65536)
  return aHigh * bHigh + Math.floor(middle / 65536) + Math.floor(carry / 65536)
}

/** @internal */
export function checkSeed(op: string, seed: unknown): void {
  if (Number.isSafeInteger(seed) && (seed as number) >= 0) return
  throw new ArgumentError(`${op}: expected a seed from 0 to 2^53 - 1, got ${describe(seed)}`)
}

/** One stream of random numbers: a pure function of the seed and the two numbers of the stream. */
export class RandomStream {
  private readonly key: readonly [number, number]
  private block: readonly number[] = []
  private lane = 4
  private counter = 0

  /** `seed`: an integer from 0 to 2^53 - 1; `a` and `b`: integers from 0 to 2^32 - 1. */
  constructor(
    seed: number,
    private readonly a: number,
    private readonly b = 0,
  ) {
    this.key = [seed >>> 0, Math.floor(seed / 2 ** 32)]
  }

  /** An integer from 0 to 2^32 - 1. */
  uint32(): number {
    if (this.lane === 4) {
      this.block = philox4x32([this.counter++, 0, this.a, this.b], this.key)
      this.lane = 0
    }
    return this.block[this.lane++]
  }

  /** Uniform in [0, 1), with 32 random bits. */
  uniform(): number {
    return this.uint32() / 2 ** 32
  }

  /** Uniform in [low, high). */
  between(low: number, high: number): number {
    return low + (high - low) * this.uniform()
  }

  /** Symmetric about 0 and within ±reach, small values likelier (a triangular distribution). */
  around(reach: number): number {
    return reach * (this.uniform() + this.uniform() - 1)
  }

  /** An integer from 0 to n - 1, all equally likely; n from 1 to 2^32. */
  below(n: number): number {
    // Numbers past the last multiple of n would favour the small remainders.
    const limit = 2 ** 32 - (2 ** 32 % n)
    for (;;) {
      const value = this.uint32()
      if (value < limit) return value % n
    }
  }
}

/** A permutation of 0 … n - 1 (Fisher & Yates), a pure function of its arguments. */
export function permutation(n: number, seed: number, stream: number): Uint32Array {
  const random = new RandomStream(seed, stream)
  const order = Uint32Array.from({ length: n }, (_, i) => i)
  for (let i = n - 1; i > 0; i--) {
    const j = random.below(i + 1)
    const swapped = order[i]
    order[i] = order[j]
    order[j] = swapped
  }
  return order
}
