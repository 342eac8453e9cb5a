import { type BackwardOptions, edgesOf, walkBack } from './backward.js'
import { isFloating } from './dtype.js'
import { AutogradError, DTypeError, ShapeError } from './errors.js'
import { enableGrad, isGradEnabled, noGrad } from './grad-mode.js'
import { detached, engineOps, geometryOf } from './op.js'
import { sameShape, showShape } from './shape.js'
import {
  Edge,
  GradSlot,
  LeafNode,
  moveRetained,
  Node,
  SavedValue,
  SavedValues,
  type TensorHook,
} from './tape.js'
import { setRegenerateEdge, Tensor } from './tensor.js'

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
  if (gradient) {
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
  const list = outputs instanceof Tensor ? [outputs] : outputs
  const roots = edgesOf('grad', list)
  const targets = edgesOf('grad', inputs)
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

/** What a custom function's forward leaves for its backward. */
export class FunctionContext {
  /** @internal */ toSave: Tensor[] = []
  /** @internal */ readSaved: () => Tensor[] = () => []
  /** Which arguments require a gradient. */
  needsInputGrad: readonly boolean[] = []

  /** Keeps tensors (arguments or results) until backward, watched for in-place changes. */
  saveForBackward(...tensors: Tensor[]): void {
    this.toSave = tensors
  }

  /** The tensors kept by `saveForBackward`. */
  get savedTensors(): Tensor[] {
    return this.readSaved()
  }
}

type Result = Tensor | readonly Tensor[]

export interface FunctionSpec<Args extends readonly unknown[], R extends Result> {
  readonly name?: string
  /** Computes the result; nothing in it is recorded. */
  forward(context: FunctionContext, ...args: Args): R
  /** Gradients of the arguments, in their order, from those of the results; null for none. */
  backward(
    context: FunctionContext,
    ...dys: Tensor[]
  ): Tensor | null | readonly (Tensor | null | undefined)[]
}

class CustomNode extends Node {
  saved: SavedValues | null = null

  constructor(
    name: string,
    edges: readonly (Edge | null)[],
    readonly outputs: Edge[],
    private readonly run: (dys: Tensor[], createGraph: boolean) => (Tensor | null)[],
  ) {
    super(name, edges)
  }

  backward(dys: readonly (Tensor | null)[], createGraph: boolean): (Tensor | null)[] {
    const full = this.outputs.map((edge, i) => dys[i] ?? engineOps.zeros(edge))
    const grads = this.run(full, createGraph)
    // A user's function may hold or share what it returns.
    return grads.map((g) => (g !== null && !createGraph ? engineOps.clone(g) : g))
  }

  override release(): void {
    this.saved?.release()
  }
}

/**
 * A function with a backward of its own, as torch.autograd.Function.
 * @example
 * const double = customFunction({ forward: (ctx, x: Tensor) => x.mul(2), backward: (ctx, dy) => dy.mul(2) })
 */
export function customFunction<const Args extends readonly unknown[], R extends Result>(
  spec: FunctionSpec<Args, R>,
): (...args: Args) => R {
  const name = spec.name ?? 'customFunction'
  return (...args) => {
    const edges = args.map((x) => (x instanceof Tensor ? x.gradEdge() : null))
    const context = new FunctionContext()
    context.needsInputGrad = edges.map((edge) => edge !== null)
    const result = noGrad(() => spec.forward(context, ...args))
    if (!isGradEnabled() || edges.every((edge) => edge === null)) return result
    const raw: readonly Tensor[] = result instanceof Tensor ? [result] : result
    // A result that is an argument gets an identity of its own.
    const outputs = raw.map((t) => (args.includes(t) || t.edge !== null ? detached(t) : t))
    const outputEdges: Edge[] = []
    const node = new CustomNode(name, edges, outputEdges, (dys, createGraph) => {
      context.readSaved = () =>
        context.toSave.map((_, i) => (node.saved as SavedValues).unpack(i, createGraph) as Tensor)
      const returned = spec.backward(context, ...dys)
      const grads = returned instanceof Tensor || returned === null ? [returned] : returned
      if (grads.length > args.length) {
        throw new AutogradError(
          `${name}: expected at most ${args.length} gradients from backward, got ${grads.length}`,
        )
      }
      return args.map((_, i) => grads[i] ?? null)
    })
    outputs.forEach((t, i) => {
      if (!isFloating(t.dtype)) return
      t.edge = Edge.of(node, i, t)
    })
    for (const [i, t] of outputs.entries()) outputEdges.push(t.edge ?? Edge.of(node, i, t))
    if (context.toSave.length > 0) {
      const device = context.toSave[0].device
      const values = context.toSave.map((t, i) => {
        const at = raw.indexOf(t)
        return SavedValue.ofTensor(t, i, at >= 0 ? outputs[at].edge : t.gradEdge())
      })
      node.saved = new SavedValues(name, device, values, context.toSave)
    }
    // Only how many there are is still needed.
    context.toSave = new Array(context.toSave.length).fill(null)
    return (result instanceof Tensor ? outputs[0] : outputs) as R
  }
}
