import { makeNode, needsGrad, type OpNode, save } from './apply.js'
import { isFloating } from './dtype.js'
import { engineOps, type Geometry, geometryOf } from './engine-ops.js'
import { ArgumentError, AutogradError } from './errors.js'
import { isGradEnabled } from './grad-mode.js'
import type { Op, SavePlan, Value } from './op.js'
import { Edge, moveRetained, Node } from './tape.js'
import { Tensor } from './tensor.js'

/**
 * An in-place change of a view, seen from its base: the base's gradient is cut into the view's
 * part, which goes through the op, and the rest, which passes by (PyTorch's CopySlices).
 */
export class SliceNode<A> extends Node {
  constructor(
    private readonly inner: OpNode<A>,
    baseEdge: Edge | null,
    private readonly base: Geometry,
    private readonly view: Geometry,
  ) {
    super(`${inner.name}Slice`, [baseEdge, ...inner.edges.slice(1)])
  }

  backward(dys: readonly (Tensor | null)[], createGraph: boolean): (Tensor | null)[] {
    const g = dys[0] as Tensor
    const part = engineOps.takeSlice(g, this.base, this.view)
    const [dself, ...rest] = this.inner.backward([part], createGraph)
    if (this.edges[0] === null) return [null, ...rest]
    const inside =
      dself ?? engineOps.zeros({ shape: this.view.shape, dtype: g.dtype, device: g.device })
    return [engineOps.putSlice(g, inside, this.base, this.view), ...rest]
  }

  override release(): void {
    this.inner.release()
  }
}

/** Throws where PyTorch would: on an in-place change that would lose or falsify gradients. */
function checkInPlace(name: string, self: Tensor): void {
  self.checkLive(`${name}_`)
  if (self.strides.some((stride, axis) => stride === 0 && self.shape[axis] > 1)) {
    throw new ArgumentError(
      `${name}_: expected a tensor whose elements have memory of their own, got an expanded one; ` +
        'clone it first',
    )
  }
  if (!isGradEnabled()) return
  const own = self.gradEdge()
  const root = self.base === null ? own : self.base.gradEdge()
  if (own?.node.isLeaf || root?.node.isLeaf) {
    const what = own?.node.isLeaf ? 'a leaf' : 'a view of a leaf'
    throw new AutogradError(
      `${name}_: expected a tensor that may be overwritten, got ${what} that requires a ` +
        'gradient; change it inside noGrad',
    )
  }
  if (own === null && root !== null) {
    throw new AutogradError(
      `${name}_: expected a view made while gradients are recorded, got one made inside noGrad of ` +
        'a tensor that requires a gradient',
    )
  }
}

function sharesMemory(a: Tensor, b: Tensor): boolean {
  if (a.device !== b.device) return false
  const native = a.device.native
  return native.storageOf(a.handle).address === native.storageOf(b.handle).address
}

/**
 * Runs an op in place: its first input takes the result. The histories of the tensor, its base
 * and all views of that follow (PyTorch's rebase_history).
 */
export function applyInPlace<A>(op: Op<A>, inputs: readonly (Value | null)[], attrs: A): Tensor {
  const self = inputs[0] as Tensor
  checkInPlace(op.name, self)
  const needs = isFloating(self.dtype) ? needsGrad(op, inputs) : 0
  if (needs === 0) {
    op.run(inputs as readonly Tensor[], attrs, self)
    return self
  }
  const node = makeNode(op, needs, inputs, attrs)
  const plan = op.plans[needs] as SavePlan
  // What backward reads of the inputs must survive the change.
  const kept = inputs.map((x, i) =>
    x instanceof Tensor && plan.places.includes(i) && (i === 0 || sharesMemory(x, self))
      ? engineOps.clone(detached(x))
      : x,
  )
  const edges = node.edges
  op.run(inputs as readonly Tensor[], attrs, self)
  if (self.base === null) {
    const before = self.edge
    self.edge = Edge.of(node, 0, self)
    self.history++
    moveRetained(self.slot, before, self.edge)
  } else {
    const base = self.base
    const slice = new SliceNode(node, base.gradEdge(), geometryOf(base), geometryOf(self))
    const before = base.edge
    base.edge = Edge.of(slice, 0, base)
    base.history++
    moveRetained(base.slot, before, base.edge)
  }
  self.gradEdge()
  save(op, node, plan, self.device, kept, edges, [self])
  return self
}

/** The same values with no history. */
export function detached(t: Tensor): Tensor {
  return t.alias(t.shape, t.strides, t.offset)
}
