import type { Sampler } from '../../src/core/op.js'
import type { Shape } from '../../src/core/shape.js'
import { type Tensor, tensor } from '../../src/index.js'

export function count(shape: Shape): number {
  return shape.reduce((n, size) => n * size, 1)
}

/** Seeded numbers that do not come from the library under test (mulberry32). */
export class Random {
  constructor(private state: number) {}

  /** In [0, 1). */
  next(): number {
    this.state = (this.state + 0x6d2b79f5) | 0
    let z = this.state
    z = Math.imul(z ^ (z >>> 15), z | 1)
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61)
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32
  }

  uniform(low: number, high: number): number {
    return low + (high - low) * this.next()
  }

  /** A whole number from low to high - 1. */
  integer(low: number, high: number): number {
    return low + Math.floor((high - low) * this.next())
  }

  /** Standard normal (Box & Muller 1958). */
  normal(): number {
    return Math.sqrt(-2 * Math.log(1 - this.next())) * Math.cos(2 * Math.PI * this.next())
  }

  normals(n: number): Float64Array {
    return Float64Array.from({ length: n }, () => this.normal())
  }

  /** 0 to n - 1 in random order (Fisher & Yates). */
  permutation(n: number): number[] {
    const order = Array.from({ length: n }, (_, i) => i)
    for (let i = n - 1; i > 0; i--) {
      const j = this.integer(0, i + 1)
      ;[order[i], order[j]] = [order[j], order[i]]
    }
    return order
  }
}

/** The inputs of gradcheck samples, as src/core/op.ts describes them. */
export class SeededSampler implements Sampler {
  private readonly random: Random

  constructor(seed: number) {
    this.random = new Random(seed)
  }

  private float64(shape: Shape, next: (i: number) => number): Tensor {
    return tensor(
      Float64Array.from({ length: count(shape) }, (_, i) => next(i)),
      { shape },
    )
  }

  normal(shape: Shape): Tensor {
    return this.float64(shape, () => this.random.normal())
  }

  uniform(shape: Shape, low: number, high: number): Tensor {
    return this.float64(shape, () => this.random.uniform(low, high))
  }

  awayFromZero(shape: Shape, gap = 0.1): Tensor {
    return this.float64(shape, () => {
      const x = this.random.normal()
      return x < 0 ? x - gap : x + gap
    })
  }

  distinct(shape: Shape): Tensor {
    const n = count(shape)
    const order = this.random.permutation(n)
    return this.float64(shape, (i) => (order[i] - n / 2) * 0.2 + this.random.uniform(0, 0.1))
  }

  integers(shape: Shape, low: number, high: number): Tensor {
    const values = Array.from({ length: count(shape) }, () =>
      BigInt(this.random.integer(low, high)),
    )
    return tensor(BigInt64Array.from(values), { shape })
  }

  /** Both values occur, if there is room for them. */
  booleans(shape: Shape): Tensor {
    const order = this.random.permutation(count(shape))
    return tensor(
      Uint8Array.from(order, (i) => i % 2),
      { shape, dtype: 'bool' },
    )
  }
}
