import { setImmediate } from 'node:timers/promises'
import {
  ArgumentError,
  checkFunction,
  checkMethods,
  checkOptions,
  describe,
} from '../core/errors.js'
import { Tensor } from '../core/tensor.js'
import { type Dataset, stackSamples } from './dataset.js'
import { permutation } from './random.js'

export interface DataLoaderOptions<Sample, Batch> {
  /** Samples in a batch; default 1. */
  batchSize?: number
  /** A new order for every epoch; default false. */
  shuffle?: boolean
  /** Leaves out the last batch of an epoch if it is smaller than the others; default false. */
  dropLast?: boolean
  /** Of the orders; an integer from 0 to 2^53 - 1, default 0. No other random state is touched. */
  seed?: number
  /** Makes a batch of samples; by default tensors are stacked along a new first axis. */
  collate?: (samples: Sample[]) => Batch
  /** Changes each batch before it is given out, e.g. from bytes to normalised floats. */
  transform?: (batch: Batch) => Batch
  /**
   * Gives out tensors of the CPU in pinned memory (`Tensor.pinMemory`), also those in arrays and
   * plain objects, so that copies to the GPU wait for nothing; default false. No effect without a
   * GPU.
   */
  pinMemory?: boolean
}

/** Where a loader stands; plain data. */
export interface DataLoaderState {
  /** Epochs before this one. */
  epoch: number
  /** Batches of this epoch that were given out. */
  position: number
  /** What the order depends on, to refuse a state of another loader. */
  length: number
  batchSize: number
  shuffle: boolean
  dropLast: boolean
  seed: number
}

/** What a training run needs of its data: epochs of batches, and a place in them to go back to. */
export interface BatchSource<Batch> extends Iterable<Batch> {
  /** Samples in an epoch. */
  readonly samples: number
  state(): DataLoaderState
  loadState(state: DataLoaderState): void
}

/**
 * Gives the samples of a data set in batches. Each `for (const batch of loader)` is an epoch;
 * `for await` does the same and lets timers and signals run between batches. The order of an epoch
 * is a pure function of seed and epoch, so the state is a few numbers, and a loader that was given
 * another's state goes on exactly as that one would have.
 */
export class DataLoader<Sample, Batch = Sample> implements BatchSource<Batch> {
  readonly batchSize: number
  readonly shuffle: boolean
  readonly dropLast: boolean
  readonly seed: number
  readonly pinMemory: boolean
  private readonly collate: ((samples: Sample[]) => Batch) | undefined
  private readonly transform: (batch: Batch) => Batch
  /** Where the next iteration begins. */
  private next = { epoch: 0, position: 0 }
  /** How far the latest iteration has come. */
  private current = this.next

  constructor(
    readonly dataset: Dataset<Sample>,
    options: DataLoaderOptions<Sample, Batch> = {},
  ) {
    checkMethods('DataLoader', 'a data set', dataset, ['get'])
    checkOptions('DataLoader', options)
    checkInteger('data set with a length', dataset.length, 0)
    if (options.collate !== undefined) checkFunction('DataLoader', options.collate)
    if (options.transform !== undefined) checkFunction('DataLoader', options.transform)
    this.batchSize = checkInteger('batchSize', options.batchSize ?? 1, 1)
    this.seed = checkInteger('seed', options.seed ?? 0, 0)
    this.shuffle = options.shuffle ?? false
    this.dropLast = options.dropLast ?? false
    this.pinMemory = options.pinMemory ?? false
    this.collate = options.collate
    this.transform = options.transform ?? ((batch) => batch)
  }

  /** Batches in an epoch. */
  get length(): number {
    const batches = this.dataset.length / this.batchSize
    return this.dropLast ? Math.floor(batches) : Math.ceil(batches)
  }

  /** Samples that an epoch gives out. */
  get samples(): number {
    return this.dropLast ? this.length * this.batchSize : this.dataset.length
  }

  *[Symbol.iterator](): Generator<Batch, void, undefined> {
    const { epoch, position } = this.next
    this.next = { epoch: epoch + 1, position: 0 }
    this.current = { epoch, position }
    try {
      const order = this.order(epoch)
      for (let i = position; i < this.length; i++) {
        const read = this.read(order.slice(i * this.batchSize, (i + 1) * this.batchSize))
        const batch = this.pinMemory ? pinned(read) : read
        this.current = { epoch, position: i + 1 }
        yield batch
      }
    } finally {
      // Unless another iteration has begun meanwhile.
      if (this.current.epoch === epoch) this.current = this.next
    }
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Batch, void, undefined> {
    for (const batch of this) {
      await setImmediate()
      yield batch
    }
  }

  /** Taken inside a loop, it counts the batch of that turn as given out. */
  state(): DataLoaderState {
    const { batchSize, shuffle, dropLast, seed } = this
    return { ...this.current, length: this.dataset.length, batchSize, shuffle, dropLast, seed }
  }

  /**
   * The next loop goes on where the state was taken, perhaps in mid-epoch.
   * @throws ArgumentError when the state is of a loader with other options or another data set
   */
  loadState(state: DataLoaderState): void {
    checkOptions('DataLoader.loadState', state)
    const mine = this.state()
    for (const key of ['length', 'batchSize', 'shuffle', 'dropLast', 'seed'] as const) {
      if (state[key] !== mine[key]) {
        throw new ArgumentError(
          `DataLoader.loadState: expected ${key} ${mine[key]}, got ${describe(state[key])}`,
        )
      }
    }
    const epoch = checkInteger('epoch', state.epoch, 0)
    const position = checkInteger('position', state.position, 0, this.length)
    this.next = { epoch, position }
    this.current = this.next
  }

  private order(epoch: number): Uint32Array {
    if (this.shuffle) return permutation(this.dataset.length, this.seed, epoch)
    return Uint32Array.from({ length: this.dataset.length }, (_, i) => i)
  }

  private read(indices: Uint32Array): Batch {
    const { dataset, collate } = this
    if (collate) return this.transform(collate(Array.from(indices, (i) => dataset.get(i))))
    // Without a collate function a batch has the form of a sample.
    const batch = dataset.batch
      ? dataset.batch(indices)
      : stackSamples(Array.from(indices, (i) => dataset.get(i)))
    return this.transform(batch as unknown as Batch)
  }
}

/** A batch with its tensors of the CPU in pinned memory. */
function pinned<Batch>(batch: Batch): Batch {
  if (batch instanceof Tensor)
    return batch.device.type === 'cpu' ? (batch.pinMemory() as Batch) : batch
  if (Array.isArray(batch)) return batch.map(pinned) as Batch
  if (typeof batch !== 'object' || batch === null) return batch
  if (Object.getPrototypeOf(batch) !== Object.prototype) return batch
  return Object.fromEntries(Object.entries(batch).map(([key, v]) => [key, pinned(v)])) as Batch
}

function checkInteger(name: string, value: number, low: number, high?: number): number {
  if (!Number.isSafeInteger(value) || value < low || value > (high ?? value)) {
    const range = high === undefined ? `of ${low} or more` : `from ${low} to ${high}`
    throw new ArgumentError(`DataLoader: expected a ${name} ${range}, got ${describe(value)}`)
  }
  return value
}
