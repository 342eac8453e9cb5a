import { isFloating } from './dtype.js'
import { engineOps } from './engine-ops.js'
import { ArgumentError, AutogradError, checkFunction, checkOptions, describe } from './errors.js'
import { isGradEnabled, noGrad } from './grad-mode.js'
import { detached } from './in-place.js'
import { Edge, Node, SavedValues } from './tape.js'
import { Tensor } from './tensor.js'

/** What a custom function's forward leaves for its backward. */
export class FunctionContext {
  /** @internal */ toSave: readonly Tensor[] = []
  /** @internal */ readSaved: () => Tensor[] = () => [...this.toSave]
  /** Which arguments require a gradient. */
  needsInputGrad: readonly boolean[] = []

  /** Keeps tensors (arguments or results) until backward, watched for in-place changes. */
  saveForBackward(...tensors: Tensor[]): void {
    checkTensors('saveForBackward', tensors)
    this.toSave = tensors
  }

  /** The tensors kept by `saveForBackward`. */
  get savedTensors(): Tensor[] {
    return this.readSaved()
  }
}

function checkTensors(name: string, list: readonly unknown[]): void {
  for (const t of list) {
    if (!(t instanceof Tensor)) {
      throw new ArgumentError(`${name}: expected tensors, got ${describe(t)}`)
    }
  }
}

type Result = Tensor | readonly Tensor[]
type Gradients = Tensor | null | readonly (Tensor | null | undefined)[]

export interface FunctionSpec<Args extends readonly unknown[], R extends Result> {
  readonly name?: string
  /** Computes the result; nothing in it is recorded. */
  forward(context: FunctionContext, ...args: Args): R
  /** Gradients of the arguments, in their order, from those of the results; null for none. */
  backward(context: FunctionContext, ...dys: Tensor[]): Gradients
}

type Backward = (context: FunctionContext, ...dys: Tensor[]) => Gradients

/** A call of a custom function. It holds what the user's forward put into the context, no tensors. */
class CustomNode extends Node {
  /** What stands for each result, gradient or not. */
  outputs: readonly Edge[] = []
  /** One for each device that it saved tensors of. */
  private saved: readonly SavedValues[] = []

  constructor(
    name: string,
    edges: readonly (Edge | null)[],
    private readonly context: FunctionContext,
    private readonly rule: Backward,
  ) {
    super(name, edges)
  }

  save(edges: readonly (Edge | null)[]): void {
    const { toSave } = this.context
    // Tensors of other devices are left out as nulls, so that places stay the same.
    this.saved = [...new Set(toSave.map((t) => t.device))].map((device) => {
      const values = new SavedValues(this.name, device, toSave.length)
      toSave.forEach((t, i) => {
        values.put(i, t.device === device ? t : null, edges[i])
      })
      values.hold()
      return values
    })
    this.context.toSave = []
  }

  backward(dys: readonly (Tensor | null)[], createGraph: boolean): (Tensor | null)[] {
    const { saved } = this
    this.context.readSaved = () => {
      const [first = [], ...others] = saved.map((values) => values.unpack(createGraph))
      return first.map((t, i) => (t ?? others.find((own) => own[i] !== null)?.[i]) as Tensor)
    }
    const full = this.outputs.map((edge, i) => dys[i] ?? engineOps.zeros(edge))
    const returned = this.rule(this.context, ...full)
    const grads = Array.isArray(returned) ? returned : [returned]
    if (grads.length > this.edges.length) {
      throw new AutogradError(
        `${this.name}: expected at most ${this.edges.length} gradients from backward, got ` +
          grads.length,
      )
    }
    return this.edges.map((_, i) => {
      const g = grads[i] ?? null
      if (g === null) return null
      checkTensors(this.name, [g])
      // A user's function may hold or share what it returns.
      return createGraph ? g : engineOps.clone(g)
    })
  }

  override release(): void {
    for (const values of this.saved) values.release()
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
  checkOptions('customFunction', spec)
  checkFunction('customFunction', spec.forward)
  checkFunction('customFunction', spec.backward)
  const name = spec.name ?? 'customFunction'
  const rule: Backward = (context, ...dys) => spec.backward(context, ...dys)
  return (...args) => {
    const edges = args.map((x) => (x instanceof Tensor ? x.gradEdge() : null))
    const context = new FunctionContext()
    context.needsInputGrad = edges.map((edge) => edge !== null)
    const result = noGrad(() => spec.forward(context, ...args))
    const raw: readonly Tensor[] = Array.isArray(result) ? result : [result]
    checkTensors(name, raw)
    if (!isGradEnabled() || edges.every((edge) => edge === null)) return result
    // A result that is an argument gets an identity of its own.
    const outputs = raw.map((t) => (args.includes(t) || t.edge !== null ? detached(t) : t))
    const node = new CustomNode(name, edges, context, rule)
    node.outputs = outputs.map((t, i) => Edge.of(node, i, t))
    outputs.forEach((t, i) => {
      if (isFloating(t.dtype)) t.edge = node.outputs[i]
    })
    node.save(
      context.toSave.map((t) => {
        const at = raw.indexOf(t)
        return at >= 0 ? outputs[at].edge : t.gradEdge()
      }),
    )
    return (Array.isArray(result) ? outputs : outputs[0]) as R
  }
}
