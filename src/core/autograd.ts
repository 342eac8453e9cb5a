import { type BackwardOptions, edgesOf, walkBack } from './backward.js'
import { commonDevice } from './device.js'
import { isFloating } from './dtype.js'
import { engineOps, geometryOf } from './engine-ops.js'
import {
  ArgumentError,
  AutogradError,
  checkFunction,
  checkOptions,
  DTypeError,
  ShapeError,
} from './errors.js'
import { enableGrad } from './grad-mode.js'
import { detached } from './in-place.js'
import { sameShape, showShape } from './shape.js'
import { Edge, GradSlot, LeafNode, moveRetained, type TensorHook } from './tape.js'
import { checkTensor, setRegenerateEdge, Tensor } from './tensor.js'

setRegenerateEdge((view) => {
  const base = view.base as Tensor
  const before = view.edge
  view.history = base.history
  view.edge =
    base.edge === null ? null : enableGrad(() => engineOps.asStrided(base, geometryOf(view)).edge)
  moveRetained(view.slot, before, view.edge)
})

/**
 * Asks for a gradient of a leaf (or takes that back), and returns the tensor.
 * @throws DTypeError for integers and bool; AutogradError for a result of a recorded op.
 */
export function requiresGrad_(t: Tensor, value = true): Tensor {
  t.checkLive('requiresGrad_')
  if (value && !isFloating(t.dtype)) {
    throw new DTypeError(`requiresGrad_: expected a floating dtype, got ${t.dtype}`)
  }
  const edge = t.gradEdge()
  if (edge !== null && !edge.node.isLeaf) {
    if (value) return t
    throw new AutogradError('requiresGrad_: expected a leaf, got a result of an op; use detach()')
  }
  if (value && edge === null) {
    t.slot = new GradSlot()
    t.edge = Edge.of(new LeafNode(t.slot), 0, t)
  } else if (!value) {
    t.edge = null
    t.slot = null
  }
  return t
}

/** A tensor on the same memory that takes no part in gradients. */
export function detach(t: Tensor): Tensor {
  return detached(t)
}

/** Keeps the gradient of a result that is no leaf in its `grad`. */
export function retainGrad(t: Tensor): void {
  const [edge] = edgesOf('retainGrad', [t])
  if (edge.node.isLeaf) return
  t.slot ??= new GradSlot()
  edge.node.retained ??= new Map()
  edge.node.retained.set(edge.index, t.slot)
}

/** Calls `hook` with the tensor's gradient whenever one is computed. Returns what removes it. */
export function registerHook(t: Tensor, hook: TensorHook): () => void {
  checkFunction('registerHook', hook)
  const [edge] = edgesOf('registerHook', [t])
  edge.node.hooks ??= new Map()
  const hooks = edge.node.hooks.get(edge.index) ?? []
  edge.node.hooks.set(edge.index, hooks)
  hooks.push(hook)
  return () => {
    const at = hooks.indexOf(hook)
    if (at >= 0) hooks.splice(at, 1)
  }
}

function seed(op: string, output: Tensor, gradient: Tensor | null | undefined): Tensor {
  if (gradient !== null && gradient !== undefined) {
    checkTensor(op, gradient).checkLive(op)
    commonDevice(op, output.device, gradient.device)
    if (!sameShape(gradient.shape, output.shape)) {
      throw new ShapeError(
        `${op}: expected a gradient of shape ${showShape(output.shape)}, got ` +
          showShape(gradient.shape),
      )
    }
    return gradient
  }
  if (output.numel !== 1) {
    throw new AutogradError(
      `${op}: expected a tensor of one element, or a gradient for it, got shape ` +
        showShape(output.shape),
    )
  }
  return engineOps.ones(output)
}

/**
 * Adds the gradients of a scalar (or of `t · gradient`) to the `grad` of every leaf that requires
 * one, and frees what the graph saved unless `retainGraph`.
 */
export function backward(t: Tensor, gradient?: Tensor | null, options: BackwardOptions = {}): void {
  checkOptions('backward', options)
  const edges = edgesOf('backward', [t])
  walkBack(edges, [seed('backward', t, gradient)], options)
}

export interface GradOptions extends BackwardOptions {
  /** Gradients of the outputs; default: 1 for outputs of one element. */
  gradOutputs?: readonly (Tensor | null)[]
  /** Returns null for inputs that the outputs do not depend on, instead of throwing. */
  allowUnused?: boolean
}

export function grad(
  outputs: Tensor | readonly Tensor[],
  inputs: readonly Tensor[],
  options: GradOptions & { allowUnused: true },
): (Tensor | null)[]
export function grad(
  outputs: Tensor | readonly Tensor[],
  inputs: readonly Tensor[],
  options?: GradOptions,
): Tensor[]
/** The gradients of the outputs' sum with respect to the inputs, without touching any `grad`. */
export function grad(
  outputs: Tensor | readonly Tensor[],
  inputs: readonly Tensor[],
  options: GradOptions = {},
): (Tensor | null)[] {
  checkOptions('grad', options)
  const list = outputs instanceof Tensor ? [outputs] : outputs
  const roots = edgesOf('grad', list)
  const targets = edgesOf('grad', inputs)
  if (targets.length === 0) throw new ArgumentError('grad: expected inputs, got an empty list')
  const seeds = list.map((t, i) => seed('grad', t, options.gradOutputs?.[i]))
  const results = walkBack(roots, seeds, options, targets)
  if (!options.allowUnused) {
    const at = results.indexOf(null)
    if (at >= 0) {
      throw new AutogradError(
        `grad: expected outputs that depend on every input, got none for input ${at}; pass ` +
          '{ allowUnused: true } to have null for it',
      )
    }
  }
  return results
}
