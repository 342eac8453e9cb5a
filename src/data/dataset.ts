import {
  ArgumentError,
  checkList,
  checkMethods,
  checkOptions,
  describe,
  ShapeError,
} from '../core/errors.js'
import { showShape } from '../core/shape.js'
import { checkTensor, Tensor } from '../core/tensor.js'
import { indexSelect, stack, tensor } from '../ops/index.js'
import { checkSeed, permutation } from './random.js'

/** Samples that are read by index, one at a time or many at once. */
export interface Dataset<Sample> {
  readonly length: number
  get(index: number): Sample
  /** The samples at these indices as one, stacked along a new first axis; faster than `get`. */
  batch?(indices: Uint32Array): Sample
}

/** Rows of tensors: sample i is `[tensors[0][i], tensors[1][i], …]`. */
export class TensorDataset<const Tensors extends readonly Tensor[]> implements Dataset<Tensors> {
  readonly length: number

  /** @throws ShapeError unless all tensors have first axes of one size */
  constructor(readonly tensors: Tensors) {
    checkList('TensorDataset', 'tensors', tensors)
    for (const t of tensors) checkTensor('TensorDataset', t)
    if (tensors.length === 0) throw new ArgumentError('TensorDataset: expected tensors, got none')
    const lengths = tensors.map((t) => t.shape[0])
    if (lengths.some((n) => n === undefined || n !== lengths[0])) {
      const shapes = tensors.map((t) => showShape(t.shape)).join(', ')
      throw new ShapeError(`TensorDataset: expected first axes of one size, got ${shapes}`)
    }
    this.length = lengths[0]
  }

  get(index: number): Tensors {
    return this.tensors.map((t) => t.select(0, index)) as unknown as Tensors
  }

  batch(indices: Uint32Array): Tensors {
    const rows = BigInt64Array.from(indices, BigInt)
    return this.tensors.map((t) =>
      indexSelect(t, 0, tensor(rows, { device: t.device })),
    ) as unknown as Tensors
  }
}

/** Some of the samples of a data set. */
export class Subset<Sample> implements Dataset<Sample> {
  readonly batch?: (indices: Uint32Array) => Sample

  constructor(
    readonly dataset: Dataset<Sample>,
    readonly indices: Uint32Array,
  ) {
    checkMethods('Subset', 'a data set', dataset, ['get'])
    if (!(indices instanceof Uint32Array) || indices.some((i) => i >= dataset.length)) {
      throw new ArgumentError(
        `Subset: expected a Uint32Array of indices below ${dataset.length}, got ${describe(indices)}`,
      )
    }
    const read = dataset.batch?.bind(dataset)
    if (read) this.batch = (rows) => read(rows.map((i) => indices[i]))
  }

  get length(): number {
    return this.indices.length
  }

  get(index: number): Sample {
    return this.dataset.get(this.indices[index])
  }
}

// The streams of DataLoader are its epochs, counted from 0; this one is out of their reach.
const SPLIT_STREAM = 0xffffffff

/**
 * Splits a data set at random into parts that share no sample.
 * @param parts sizes that add up to the data set's, or fractions that add up to 1; what rounding
 * down the fractions leaves over goes to the first parts, one each
 * @param options.seed default 0
 */
export function randomSplit<Sample>(
  dataset: Dataset<Sample>,
  parts: readonly number[],
  options: { seed?: number } = {},
): Subset<Sample>[] {
  checkMethods('randomSplit', 'a data set', dataset, ['get'])
  checkList('randomSplit', 'a list of sizes', parts)
  checkOptions('randomSplit', options)
  const sizes = partSizes(parts, dataset.length)
  const { seed = 0 } = options
  checkSeed('randomSplit', seed)
  const order = permutation(dataset.length, seed, SPLIT_STREAM)
  let end = 0
  return sizes.map((size) => {
    end += size
    return new Subset(dataset, order.slice(end - size, end))
  })
}

function partSizes(parts: readonly number[], length: number): number[] {
  if (!parts.every((part) => typeof part === 'number')) {
    throw new ArgumentError(`randomSplit: expected numbers, got ${describe(parts)}`)
  }
  const sum = parts.reduce((a, b) => a + b, 0)
  if (parts.every((part) => Number.isSafeInteger(part) && part >= 0) && sum === length) {
    return [...parts]
  }
  if (!parts.every((part) => part >= 0 && part <= 1) || Math.abs(sum - 1) > 1e-6) {
    throw new ArgumentError(
      `randomSplit: expected sizes that add up to ${length} or fractions that add up to 1, got ` +
        describe(parts),
    )
  }
  const sizes = parts.map((part) => Math.floor(part * length))
  const rest = length - sizes.reduce((a, b) => a + b, 0)
  return sizes.map((size, i) => (i < rest ? size + 1 : size))
}

/** Stacks samples, which are tensors or arrays of tensors, along a new first axis. */
export function stackSamples<Sample>(samples: readonly Sample[]): Sample {
  const first = samples[0]
  if (first instanceof Tensor) return stack(samples as unknown as Tensor[], 0) as Sample
  if (Array.isArray(first) && first.every((part) => part instanceof Tensor)) {
    const rows = samples as unknown as Tensor[][]
    return first.map((_, i) =>
      stack(
        rows.map((row) => row[i]),
        0,
      ),
    ) as Sample
  }
  throw new ArgumentError(
    `DataLoader: expected samples of tensors, got ${describe(first)}; pass a collate function`,
  )
}
