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

  constructor(private readonly native: Native) {
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

  /**
   * Takes those added since a mark out of the list, but for those in `kept`, and writes their
   * handles to `words` to be disposed; returns how many.
   */
  takeSince(mark: number, kept: readonly (object | null)[], words: Float64Array): number {
    let left = mark
    let taken = 0
    for (let i = mark; i < this.count; i++) {
      const owner = this.owners[i] as Owner
      this.owners[i] = null
      if (kept.includes(owner)) {
        this.owners[left++] = owner
      } else if (owner.handle > 0) {
        words[taken++] = owner.handle
        owner.handle = -1
      }
    }
    this.count = Math.min(this.count, left)
    return taken
  }
}
