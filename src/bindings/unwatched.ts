import type { Native } from './native.js'

/** Who has a handle: a tensor, or what a tape node saved. */
export interface Owner {
  /** Positive while it is live. */
  handle: number
}

const CAPACITY = 256

/** One for each device. */
const lists: Unwatched[] = []
let deferring = false

/** Whether new tensors wait to be watched, as in a backward pass. */
export function isDeferring(): boolean {
  return deferring
}

/**
 * Runs `body`, in which new tensors are not watched at once: most of what a backward pass makes is
 * disposed before it ends.
 */
export function deferWatching<T>(body: () => T): T {
  const before = deferring
  const marks = lists.map((list) => list.mark)
  deferring = true
  try {
    return body()
  } finally {
    deferring = before
    lists.forEach((list, i) => {
      list.flush()
      list.watchSince(marks[i] ?? 0)
    })
  }
}

/**
 * Owners of handles that no weak reference watches yet. A weak reference costs as much as all the
 * rest of a small op, in making, collecting and deleting it; who is disposed soon can do without. The
 * list holds its members, so that none is lost; it is emptied when it is full and before every
 * collection that native code asks for.
 */
export class Unwatched {
  private readonly owners = new Array<Owner | null>(CAPACITY).fill(null)
  private count = 0
  /** Handles that are to be disposed by one call. */
  private readonly discarded = new Array<number>(CAPACITY).fill(0)
  private discardedCount = 0

  /** `words` is the array through which calls are encoded, of at least `CAPACITY` words. */
  constructor(
    private readonly native: Native,
    private readonly words: () => Float64Array,
  ) {
    native.setWatcher(() => this.watchSince(0))
    lists.push(this)
  }

  add(owner: Owner): void {
    if (this.count === CAPACITY) this.watchSince(0)
    this.owners[this.count++] = owner
  }

  /** Where those begin that are added from now on. */
  get mark(): number {
    return this.count
  }

  /** Gives those added since a mark their weak references. */
  watchSince(mark: number): void {
    for (let i = mark; i < this.count; i++) {
      const owner = this.owners[i] as Owner
      this.owners[i] = null
      if (owner.handle > 0) this.native.watch(owner.handle, owner)
    }
    this.count = Math.min(this.count, mark)
  }

  /** Discards those added since a mark, but for those in `kept`. */
  discardSince(mark: number, kept: readonly (object | null)[]): void {
    let left = mark
    for (let i = mark; i < this.count; i++) {
      const owner = this.owners[i] as Owner
      this.owners[i] = null
      if (kept.includes(owner)) this.owners[left++] = owner
      else this.discard(owner)
    }
    this.count = Math.min(this.count, left)
  }

  /** From now on it is disposed; its memory is free after the next `flush`. */
  discard(owner: Owner): void {
    if (owner.handle > 0) {
      if (this.discardedCount === CAPACITY) this.flush()
      this.discarded[this.discardedCount++] = owner.handle
    }
    owner.handle = -1
  }

  /** Frees what was discarded. */
  flush(): void {
    const count = this.discardedCount
    if (count === 0) return
    const words = this.words()
    for (let i = 0; i < count; i++) words[i] = this.discarded[i]
    this.discardedCount = 0
    this.native.disposeAll(count)
  }
}
