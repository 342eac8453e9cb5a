import { adopt } from '../bindings/calls.js'
import type { Device } from './device.js'
import type { DType } from './dtype.js'
import { AutogradError } from './errors.js'
import { recording } from './recording.js'
import type { Shape } from './shape.js'
import { Tensor } from './tensor.js'

/** What the gradient engine knows of a value without holding it. */
export interface ValueInfo {
  readonly shape: Shape
  readonly dtype: DType
  readonly device: Device
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

  static of(node: Node, index: number, t: Tensor): Edge {
    return new Edge(node, index, t.shape, t.dtype, t.device)
  }
}

/** Where a gradient is kept. A leaf and its node share one, so that the node holds no tensor. */
export class GradSlot {
  grad: Tensor | null = null
  /** Whether others may hold the gradient: a reader of `grad`, or a graph of its own. */
  isShared = false

  /** Drops the gradient, and frees its memory at once where nobody else can hold it. */
  clear(): void {
    recording()?.touch(this, 'replaced')
    if (!this.isShared) this.grad?.dispose()
    this.grad = null
    this.isShared = false
  }
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

/** A value that a node saved: a number, or which of its held storages, and the view into it. */
export class SavedValue {
  private constructor(
    private readonly number: number | bigint | null,
    private readonly index: number,
    private readonly info: ValueInfo | null,
    private readonly strides: Shape,
    private readonly offset: number,
    private readonly edge: Edge | null,
  ) {}

  static ofNumber(value: number | bigint): SavedValue {
    return new SavedValue(value, -1, null, [], 0, null)
  }

  /** `edge` is what made the tensor: for double backward. */
  static ofTensor(t: Tensor, index: number, edge: Edge | null): SavedValue {
    const info = { shape: t.shape, dtype: t.dtype, device: t.device }
    return new SavedValue(null, index, info, t.strides, t.offset, edge)
  }

  unpack(owner: string, node: number, createGraph: boolean): Tensor | number | bigint {
    if (this.number !== null || this.info === null) return this.number as number | bigint
    const { device, dtype, shape } = this.info
    const t = new Tensor(device, dtype, shape, this.strides, this.offset)
    const handle = device.native.unpack(node, this.index, t)
    if (handle === 0) {
      throw new AutogradError(
        `backward: expected the values that ${owner} saved as they were, got one of shape ` +
          `[${shape.join(', ')}] that an in-place operation has overwritten`,
      )
    }
    adopt(t, handle)
    if (createGraph) t.edge = this.edge
    return t
  }
}

/** What a node saved, held natively by storage: never by tensor. */
export class SavedValues {
  private handle = 0

  constructor(
    private readonly owner: string,
    private readonly device: Device,
    private readonly values: readonly SavedValue[],
    tensors: readonly Tensor[],
  ) {
    if (tensors.length > 0) this.handle = device.calls.hold(tensors, this)
  }

  get length(): number {
    return this.values.length
  }

  unpack(index: number, createGraph: boolean): Tensor | number | bigint {
    if (this.handle < 0) {
      throw new AutogradError(
        `backward: expected a graph that has not been freed, got one that backward has already ` +
          `walked (at ${this.owner}); pass { retainGraph: true } the first time`,
      )
    }
    return this.values[index].unpack(this.owner, this.handle, createGraph)
  }

  release(): void {
    if (this.handle > 0) this.device.native.dispose(this.handle)
    this.handle = -1
  }
}
