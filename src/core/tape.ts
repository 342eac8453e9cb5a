import type { Device } from './device.js'
import type { DType } from './dtype.js'
import { AutogradError } from './errors.js'
import type { Value } from './op.js'
import { recording } from './recording.js'
import { type Shape, showShape } from './shape.js'
import { Tensor } from './tensor.js'

/** What the gradient engine knows of a value without holding it. */
export interface ValueInfo {
  readonly shape: Shape
  readonly dtype: DType
  readonly device: Device
  /** What its gradient may come in besides its own dtype: that of the weight it is a copy of. */
  readonly wideDType?: DType | null
}

/** A value in the graph: output `index` of `node`. Immutable; an in-place change makes a new one. */
export class Edge implements ValueInfo {
  constructor(
    readonly node: Node,
    readonly index: number,
    readonly shape: Shape,
    readonly dtype: DType,
    readonly device: Device,
  ) {}

  get wideDType(): DType | null {
    return this.node.wideDType
  }

  static of(node: Node, index: number, t: Tensor): Edge {
    return new Edge(node, index, t.shape, t.dtype, t.device)
  }
}

/** Where a gradient is kept. A leaf and its node share one, so that the node holds no tensor. */
export class GradSlot {
  grad: Tensor | null = null
  /** Whether others may hold the gradient: a reader of `grad`, or a graph of its own. */
  isShared = false

  /** Drops the gradient, and discards it where nobody else can hold it: the next flush frees it. */
  clear(): void {
    recording()?.touch(this, 'replaced')
    if (!this.isShared && this.grad !== null) this.grad.device.calls.discard(this.grad)
    this.grad = null
    this.isShared = false
  }
}

/** Drops the gradients of leaves; what nobody else can hold is free at once. */
export function dropGrads(leaves: readonly Tensor[]): void {
  for (let i = 0; i < leaves.length; i++) leaves[i].slot?.clear()
  for (let i = 0; i < leaves.length; i++) leaves[i].device.calls.flush()
}

/** A tensor whose history is rewritten retains the gradient of its new value. */
export function moveRetained(slot: GradSlot | null, from: Edge | null, to: Edge | null): void {
  if (slot === null || from === null || from === to) return
  if (from.node.retained?.get(from.index) !== slot) return
  from.node.retained.delete(from.index)
  if (to === null || to.node.isLeaf) return
  to.node.retained ??= new Map()
  to.node.retained.set(to.index, slot)
}

/** May replace a gradient on its way; returning nothing leaves it as it is. */
// biome-ignore lint/suspicious/noConfusingVoidType: a hook may be a function that returns nothing
export type TensorHook = (grad: Tensor) => Tensor | null | undefined | void

let nextId = 0

/**
 * A node of the tape. `edges` are fixed when it is made and lead to older nodes, so descending ids
 * are a topological order.
 */
export abstract class Node {
  readonly id = nextId++
  /** By output: what hooks may change before the node sees its gradients. */
  hooks: Map<number, TensorHook[]> | null = null
  /** By output: slots of results that `retainGrad` was called on. */
  retained: Map<number, GradSlot> | null = null

  /** Of a weight's conversion, which only ops see: the dtype of the weight. */
  wideDType: DType | null = null

  /** Of the walk that is under way: the gradients that have arrived, by output. */
  inbox: (Tensor | null)[] | null = null
  /** Number of the last walk that has found it. */
  foundBy = 0

  constructor(
    readonly name: string,
    readonly edges: readonly (Edge | null)[],
  ) {}

  get isLeaf(): boolean {
    return false
  }

  /** Gradients of the inputs from those of the outputs. Those whose edge is null may be null. */
  abstract backward(dys: readonly (Tensor | null)[], createGraph: boolean): (Tensor | null)[]

  /** Frees what it saved. */
  release(): void {}
}

/** The end of the tape at a leaf: adds to its slot. The engine does so. */
export class LeafNode extends Node {
  constructor(readonly slot: GradSlot) {
    super('leaf', [])
  }

  override get isLeaf(): boolean {
    return true
  }

  backward(): (Tensor | null)[] {
    return []
  }
}

/** A tensor that a node saved: the view into its storage. */
class SavedTensor {
  readonly dtype: DType
  readonly shape: Shape
  readonly strides: Shape
  readonly offset: number

  constructor(
    t: Tensor,
    /** What made the tensor: for double backward. */
    readonly edge: Edge | null,
  ) {
    this.dtype = t.dtype
    this.shape = t.shape
    this.strides = t.strides
    this.offset = t.offset
  }
}

const nothing: never[] = []

/** What a node saved, held natively by storage: never by tensor. */
export class SavedValues {
  /** Positive while storages are held, -1 once released. */
  handle = 0
  private values: (SavedTensor | number | bigint | null)[]
  private tensors = 0

  /** `put` gives each of the `count` values, without other native calls between them, then `hold`. */
  constructor(
    private readonly owner: string,
    readonly device: Device,
    count: number,
  ) {
    this.values = new Array(count)
    device.calls.beginHold()
  }

  /** Value `i`, in their order; `edge` says what made it, if it is a tensor. */
  put(i: number, value: Value | null, edge: Edge | null): void {
    if (value === null || typeof value !== 'object') {
      this.values[i] = value
      return
    }
    this.device.calls.held(value)
    this.values[i] = new SavedTensor(value, edge)
    this.tensors++
  }

  hold(): void {
    if (this.tensors > 0) this.device.calls.hold(this)
  }

  /** What was saved, with new tensors in the place of those that were; in the order given. */
  unpack(createGraph: boolean): (Value | null)[] {
    if (this.handle < 0) {
      throw new AutogradError(
        `backward: expected a graph that has not been freed, got one that backward has already ` +
          `walked (at ${this.owner}); pass { retainGraph: true } the first time`,
      )
    }
    const { device, values } = this
    const unpacked = new Array<Value | null>(values.length)
    const tensors = new Array<Tensor>(this.tensors)
    let count = 0
    for (let i = 0; i < values.length; i++) {
      const value = values[i]
      if (value === null || typeof value !== 'object') {
        unpacked[i] = value
        continue
      }
      const t = new Tensor(device, value.dtype, value.shape, value.strides, value.offset)
      if (createGraph) t.edge = value.edge
      tensors[count++] = t
      unpacked[i] = t
    }
    const overwritten = count > 0 ? device.calls.unpack(tensors, this.handle) : -1
    if (overwritten >= 0) {
      throw new AutogradError(
        `backward: expected the values that ${this.owner} saved as they were, got one of shape ` +
          `${showShape(tensors[overwritten].shape)} that an in-place operation has overwritten`,
      )
    }
    return unpacked
  }

  /** Frees the storages at the next flush, and lets go of the nodes that made them. */
  release(): void {
    this.device.calls.discard(this)
    this.values = nothing
  }
}
