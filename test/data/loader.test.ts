import { describe, expect, it } from 'vitest'
import { ArgumentError } from '../../src/core/errors.js'
import {
  DataLoader,
  type DataLoaderOptions,
  type Dataset,
  randomSplit,
  Subset,
} from '../../src/data/index.js'

const numbers = (length: number): Dataset<number> => ({ length, get: (i) => i })
const collate = (samples: number[]) => samples
const load = (n: number, options: DataLoaderOptions<number, number[]> = {}) =>
  new DataLoader(numbers(n), { collate, ...options })

describe('DataLoader', () => {
  it('gives every sample once, in order, the last batch as short as it comes', () => {
    const loader = load(7, { batchSize: 3 })
    expect([...loader]).toEqual([[0, 1, 2], [3, 4, 5], [6]])
    expect([loader.length, loader.samples]).toEqual([3, 7])
    expect([...load(6, { batchSize: 3 })].length).toBe(2)
    expect([...load(0)]).toEqual([])
  })

  it('drops the short batch where it is told to', () => {
    const loader = load(7, { batchSize: 3, dropLast: true })
    expect([...loader].length).toBe(2)
    expect([loader.length, loader.samples]).toEqual([2, 6])
  })

  it('shuffles every epoch anew, the same for the same seed', () => {
    const epochs = (seed: number) => {
      const loader = load(50, { batchSize: 50, shuffle: true, seed })
      return [...loader, ...loader]
    }
    const [first, second] = epochs(1)
    expect(first).not.toEqual(second)
    expect([...first].sort((a, b) => a - b)).toEqual(Array.from({ length: 50 }, (_, i) => i))
    expect(epochs(1)).toEqual([first, second])
    expect(epochs(2)[0]).not.toEqual(first)
  })

  it('iterates asynchronously to the same batches, with timers in between', async () => {
    const loader = load(20, { batchSize: 2, shuffle: true })
    const expected = [...load(20, { batchSize: 2, shuffle: true })]
    let ticks = 0
    const timer = setInterval(() => ticks++, 0)
    const got: number[][] = []
    for await (const batch of loader) {
      got.push(batch)
      await new Promise((resolve) => setTimeout(resolve, 1))
    }
    clearInterval(timer)
    expect(got).toEqual(expected)
    expect(ticks).toBeGreaterThan(0)
  })

  it('goes on from every position of a run as that run did', () => {
    const options = { batchSize: 3, shuffle: true, seed: 9 }
    const whole = load(10, options)
    const batches: number[][] = []
    const states = [whole.state()]
    for (let epoch = 0; epoch < 3; epoch++) {
      for (const batch of whole) {
        batches.push(batch)
        states.push(whole.state())
      }
    }
    for (const [i, state] of states.entries()) {
      const resumed = load(10, options)
      // As after a trip through a file.
      resumed.loadState(JSON.parse(JSON.stringify(state)))
      expect(resumed.state()).toEqual(state)
      const rest: number[][] = []
      while (resumed.state().epoch < 3) rest.push(...resumed)
      expect(rest).toEqual(batches.slice(i))
    }
  })

  it('begins a new epoch after a loop that was left, and keeps nested loops apart', () => {
    const loader = load(4, { shuffle: true })
    for (const _ of loader) break
    expect(loader.state()).toMatchObject({ epoch: 1, position: 0 })
    const outer: number[][] = []
    for (const batch of loader) {
      outer.push(batch)
      expect([...loader].flat().sort()).toEqual([0, 1, 2, 3])
    }
    expect(outer.flat().sort()).toEqual([0, 1, 2, 3])
  })

  it('refuses states of other loaders and options out of range', () => {
    const loader = load(10, { batchSize: 2 })
    const state = loader.state()
    const wrong = [{ batchSize: 3 }, { seed: 1 }, { length: 9 }, { shuffle: true }, { position: 6 }]
    for (const change of [...wrong, { epoch: -1 }, { position: 0.5 }]) {
      expect(() => loader.loadState({ ...state, ...change })).toThrow(ArgumentError)
    }
    expect(() => loader.loadState({ ...state, batchSize: 3 })).toThrow(
      'DataLoader.loadState: expected batchSize 2, got 3',
    )
    for (const batchSize of [0, -1, 1.5, Number.NaN]) {
      expect(() => load(3, { batchSize })).toThrow(ArgumentError)
    }
    expect(() => load(3, { seed: -1 })).toThrow(ArgumentError)
  })

  it('applies the transform to each batch', () => {
    const loader = load(3, { batchSize: 2, transform: (batch) => batch.map((x) => x * 10) })
    expect([...loader]).toEqual([[0, 10], [20]])
  })

  it('asks for a collate function where samples are no tensors', () => {
    expect(() => [...new DataLoader(numbers(2))]).toThrow(/expected samples of tensors, got 0/)
  })
})

describe('randomSplit', () => {
  it('shares out every sample once, by sizes or by fractions', () => {
    for (const parts of [[7, 3], [0.7, 0.3], [0.25, 0.25, 0.5], [10]]) {
      const subsets = randomSplit(numbers(10), parts)
      const all = subsets.flatMap((s) => Array.from({ length: s.length }, (_, i) => s.get(i)))
      expect(all.sort((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    }
    const sizes = (n: number, parts: number[]) =>
      randomSplit(numbers(n), parts).map((s) => s.length)
    expect(sizes(10, [0.25, 0.25, 0.5])).toEqual([3, 2, 5])
    expect(sizes(10, [1])).toEqual([10])
    expect(sizes(0, [0.5, 0.5])).toEqual([0, 0])
  })

  it('depends on its seed alone', () => {
    const first = (seed?: number) =>
      Array.from(randomSplit(numbers(100), [50, 50], { seed })[0].indices)
    expect(first(1)).toEqual(first(1))
    expect(first(1)).not.toEqual(first(2))
    expect(first()).toEqual(first(0))
  })

  it('refuses parts that do not add up', () => {
    for (const parts of [[], [5], [5, 6], [0.5, 0.6], [-1, 11], [2, -1], [Number.NaN, 1]]) {
      expect(() => randomSplit(numbers(10), parts)).toThrow(ArgumentError)
    }
  })
})

describe('Subset', () => {
  it('passes batches on to a data set that reads them', () => {
    const squares: Dataset<number | number[]> = {
      length: 10,
      get: (i) => i * i,
      batch: (rows) => Array.from(rows, (i) => i * i),
    }
    const subset = new Subset(squares, Uint32Array.of(9, 3, 5))
    expect(subset.get(1)).toBe(9)
    expect(subset.batch?.(Uint32Array.of(0, 2))).toEqual([81, 25])
    expect(() => new Subset(squares, Uint32Array.of(10))).toThrow(ArgumentError)
  })
})
