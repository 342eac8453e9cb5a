import type { Native } from './native.js'
import { type Opcodes, opcodes } from './opcodes.js'
import { isDeferring, type Owner, Unwatched } from './unwatched.js'

/** What a call needs to know of a tensor: its handle and where its elements lie. */
export interface ViewLike {
  handle: number
  readonly dtypeCode: number
  readonly shape: readonly number[]
  readonly strides: readonly number[]
  readonly offset: number
}

const INITIAL_WORDS = 4096

/** At the beginning of a new tensor in the row, where 0 says that it is row-major. */
const CHANNELS_LAST = -1

/** Where the rows of kernels that have opcodes say which: so many words before the end. */
const opcodePlaces: Readonly<Record<string, readonly [keyof Opcodes, number]>> = {
  unary: ['unary', 2],
  binary: ['binary', 2],
  reduce: ['reduce', 1],
  argReduce: ['arg', 2],
  random: ['random', 4],
}

let kernelCount = 0

/** A kernel that runs for nearly every op: found by an index, at half the price of its name. */
export class Kernel {
  readonly index = kernelCount++

  constructor(readonly name: string) {}

  toString(): string {
    return this.name
  }
}

/** Called when a tensor gets its handle, where leaks are traced. */
let onCreation: ((t: ViewLike) => void) | null = null
export function setCreationHook(hook: ((t: ViewLike) => void) | null): void {
  onCreation = hook
}

/** Gives a tensor the handle that native code made for it. */
export function adopt<T extends ViewLike>(t: T, handle: number): T {
  t.handle = handle
  if (onCreation !== null) onCreation(t)
  return t
}

/**
 * The one place through which kernels are called. A call is a row of numbers: the kernel's number,
 * inputs, outputs, attributes (`native/addon/call.h` has the encoding). Rows go through one array
 * that native code reads in place, so that a call makes no object but its results.
 */
export class Calls {
  private words: Float64Array
  private position = 0
  private kernel = ''
  /** Tensors to be made by this call; those past `ownerCount` are of earlier calls. */
  private readonly owners: (ViewLike | null)[] = []
  private ownerCount = 0
  private readonly unwatched: Unwatched
  /** Kernel name to number: of many names a map finds one sooner than an object. */
  private readonly numbers: ReadonlyMap<string, number>
  /** The same by the index of a `Kernel`, once it has run. */
  private readonly indexed: (number | undefined)[] = []

  constructor(
    readonly native: Native,
    private readonly missing: (kernel: string) => Error,
    private readonly disposed: (kernel: string) => Error,
  ) {
    this.words = new Float64Array(INITIAL_WORDS)
    native.setWords(this.words)
    this.numbers = new Map(Object.entries(native.kernels))
    this.unwatched = new Unwatched(native, () => this.words)
  }

  begin(kernel: string | Kernel): this {
    if (typeof kernel === 'string') {
      this.kernel = kernel
      this.words[0] = this.numberOf(kernel)
    } else {
      this.kernel = kernel.name
      this.words[0] = this.indexed[kernel.index] ??= this.numberOf(kernel.name)
    }
    this.ownerCount = 0
    this.position = 1
    return this
  }

  private numberOf(kernel: string): number {
    const number = this.numbers.get(kernel)
    if (number === undefined) throw this.missing(kernel)
    return number
  }

  /** An existing tensor, read or (as `output`) overwritten. */
  input(t: ViewLike): this {
    const { shape, strides } = t
    const ndim = shape.length
    const words = this.reserve(3 + 2 * ndim)
    if (t.handle <= 0) throw this.disposed(this.kernel)
    let p = this.position
    words[p++] = t.handle
    words[p++] = t.offset
    words[p++] = ndim
    for (let i = 0; i < ndim; i++) words[p++] = shape[i]
    for (let i = 0; i < ndim; i++) words[p++] = strides[i]
    this.position = p
    return this
  }

  optional(t: ViewLike | null | undefined): this {
    return t ? this.input(t) : this.number(0)
  }

  /** A tensor or a number; an integer beyond 2^53 comes as a bigint. */
  operand(x: ViewLike | number | bigint): this {
    if (typeof x === 'object') return this.input(x)
    const words = this.reserve(3)
    if (typeof x === 'bigint') {
      words[this.position++] = -1
      words[this.position++] = Number(BigInt.asIntN(32, x >> 32n))
      words[this.position++] = Number(BigInt.asUintN(32, x))
    } else {
      words[this.position++] = 0
      words[this.position++] = x
    }
    return this
  }

  /** Where the result goes: a new tensor if it has no handle yet, else its own elements. */
  output(t: ViewLike): this {
    if (t.handle !== 0) return this.input(t)
    const { shape, strides } = t
    const begin = this.position
    this.outputAs(t, shape)
    // Of the two orders of memory that a new tensor may have (`Tensor.pendingLike`).
    if (shape.length === 4 && strides[3] !== 1) this.words[begin] = CHANNELS_LAST
    return this
  }

  /** A new tensor that the kernel sees with a shape of its own, of as many elements. */
  outputAs(t: ViewLike, shape: readonly number[]): this {
    const ndim = shape.length
    const words = this.reserve(3 + ndim)
    let p = this.position
    words[p++] = 0
    words[p++] = t.dtypeCode
    words[p++] = ndim
    for (let i = 0; i < ndim; i++) words[p++] = shape[i]
    this.position = p
    this.owners[this.ownerCount++] = t
    return this
  }

  /** A number, an opcode, an axis, the number of a slot. */
  number(value: number): this {
    this.reserve(1)[this.position++] = value
    return this
  }

  flag(value: boolean): this {
    return this.number(value ? 1 : 0)
  }

  /** What the row encodes, for a profile: the kernel and, where it has one, its opcode. */
  get label(): string {
    const place = opcodePlaces[this.kernel]
    if (place === undefined) return this.kernel
    const [family, fromEnd] = place
    return `${this.kernel}.${opcodes[family][this.words[this.position - fromEnd]]}`
  }

  run(): void {
    const { owners, ownerCount, native } = this
    const defers = isDeferring()
    if (defers || ownerCount === 0) native.run(this.position)
    else if (ownerCount === 1) native.run(this.position, owners[0] as ViewLike)
    else native.run(this.position, ...(owners.slice(0, ownerCount) as ViewLike[]))
    for (let i = 0; i < ownerCount; i++) {
      const owner = adopt(owners[i] as ViewLike, this.words[i])
      owners[i] = null
      if (defers) this.unwatched.add(owner)
    }
  }

  /** Gives a tensor a handle to the memory of another. */
  alias<T extends ViewLike>(t: T, source: ViewLike): T {
    if (!isDeferring()) return adopt(t, this.native.alias(source.handle, t))
    adopt(t, this.native.alias(source.handle))
    this.unwatched.add(t)
    return t
  }

  /** Begins a list of tensors for `hold`. */
  beginHold(): void {
    this.position = 0
  }

  /** Adds a tensor to the list. */
  held(t: ViewLike): void {
    if (t.handle <= 0) throw this.disposed('backward')
    this.number(t.handle)
  }

  /** Gives an owner a handle that holds the storages of the list, for a tape node. */
  hold(owner: Owner): void {
    owner.handle = this.native.hold(this.position)
    this.unwatched.add(owner)
  }

  /**
   * Gives tensors handles to the saved values of a node, in their order; -1, or the first of them
   * that was overwritten since.
   */
  unpack(tensors: readonly ViewLike[], node: number): number {
    const overwritten = this.native.unpack(node)
    if (overwritten >= 0) return overwritten
    for (let i = 0; i < tensors.length; i++) {
      this.unwatched.add(adopt(tensors[i], this.words[i]))
    }
    return -1
  }

  /** For `discardSince`. */
  get mark(): number {
    return this.unwatched.mark
  }

  /** Discards what was made since a mark, but for `kept`; nothing of what is watched already. */
  discardSince(mark: number, kept: readonly (object | null)[]): void {
    this.unwatched.discardSince(mark, kept)
  }

  /** Disposes a tensor or what a node saved, at the next `flush` with others in one native call. */
  discard(owner: Owner): void {
    this.unwatched.discard(owner)
  }

  flush(): void {
    this.unwatched.flush()
  }

  /** Copies `sources` into `targets`, sets slots (pairs of number and value) and runs a recording. */
  replay(
    recording: number,
    sources: readonly ViewLike[],
    targets: readonly ViewLike[],
    slots: readonly number[],
  ): void {
    this.kernel = 'capture'
    this.position = 1
    this.number(sources.length)
    for (let i = 0; i < sources.length; i++) this.input(sources[i]).input(targets[i])
    this.number(slots.length / 2)
    for (let i = 0; i < slots.length; i++) this.number(slots[i])
    this.native.replay(this.position, recording)
  }

  private reserve(count: number): Float64Array {
    if (this.position + count > this.words.length) {
      const larger = new Float64Array(2 * (this.position + count))
      larger.set(this.words)
      this.words = larger
      this.native.setWords(larger)
    }
    return this.words
  }
}
