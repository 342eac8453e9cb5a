import { autocastTo } from './autocast.js'
import type { Device } from './device.js'
import { isFloating } from './dtype.js'
import { isGradEnabled } from './grad-mode.js'
import { isTensor, makePlan, type Op, type SavePlan, type Value } from './op.js'
import { Edge, Node, SavedValues, type ValueInfo } from './tape.js'
import type { Tensor } from './tensor.js'

/** A recorded call of an op. */
export class OpNode<A> extends Node {
  constructor(
    private readonly op: Op<A>,
    edges: readonly (Edge | null)[],
    private readonly infos: readonly (ValueInfo | null)[],
    private readonly attrs: A,
    private readonly plan: SavePlan,
  ) {
    super(op.name, edges)
  }

  saved: SavedValues | null = null

  backward(dys: readonly (Tensor | null)[], createGraph: boolean): (Tensor | null)[] {
    const { plan, saved, edges } = this
    const { joint, rules } = this.op
    const context: Record<string, unknown> = { ...plan.context }
    context.dy = dys[0]
    context.dys = dys
    context.attrs = this.attrs
    context.inputs = this.infos
    context.createGraph = createGraph
    const { calls } = ((dys[0] ?? dys.find((dy) => dy !== null)) as Tensor).device
    const mark = calls.mark
    if (saved !== null) {
      const values = saved.unpack(createGraph)
      for (let i = 0; i < values.length; i++) context[plan.names[i]] = values[i]
    }
    let results: (Tensor | null)[]
    if (joint !== null) {
      context.needs = edges.map(isEdge)
      results = joint.applyAll(context as never)
    } else {
      results = new Array<Tensor | null>(edges.length)
      for (let i = 0; i < edges.length; i++) {
        const rule = edges[i] === null ? null : rules[i]
        results[i] = rule === null ? null : rule.apply(context as never)
      }
    }
    // What was unpacked, and what the rules made on their way; a graph may refer to it.
    if (!createGraph) calls.discardSince(mark, results)
    return results
  }

  override release(): void {
    this.saved?.release()
  }
}

/** The inputs that carry gradients, as bits; 0 if nothing is to be recorded. */
export function needsGrad<A>(op: Op<A>, inputs: readonly (Value | null)[]): number {
  if (op.gradient === null || !isGradEnabled()) return 0
  let bits = 0
  for (let i = 0; i < inputs.length; i++) {
    const x = inputs[i]
    if (isTensor(x) && x.gradEdge() !== null) bits |= 1 << i
  }
  // A joint rule without readsFor reads the same whatever is needed, and may have any number of
  // inputs.
  return bits !== 0 && op.joint !== null && op.joint.readsFor === undefined ? 1 : bits
}

/** Makes the node of a call; `save` fills what it keeps. */
export function makeNode<A>(
  op: Op<A>,
  needs: number,
  inputs: readonly (Value | null)[],
  attrs: A,
): OpNode<A> {
  op.plans[needs] ??= makePlan(op, needs)
  const { length } = inputs
  const edges = new Array<Edge | null>(length)
  let isAllEdges = true
  for (let i = 0; i < length; i++) {
    const x = inputs[i]
    const edge = isTensor(x) ? x.gradEdge() : null
    edges[i] = edge
    if (edge === null && isTensor(x)) isAllEdges = false
  }
  const infos = isAllEdges ? edges : inputs.map(infoOf)
  return new OpNode(op, edges, infos, attrs, op.plans[needs] as SavePlan)
}

const isEdge = (edge: Edge | null): boolean => edge !== null

/** Only what describes an input is kept: a tensor would keep its memory. */
function infoOf(x: Value | null): ValueInfo | null {
  if (!isTensor(x)) return null
  return x.edge ?? { shape: x.shape, dtype: x.dtype, device: x.device }
}

/** Fills what the node saves, once the outputs exist and have their edges. */
export function save<A>(
  op: Op<A>,
  node: OpNode<A>,
  plan: SavePlan,
  device: Device,
  inputs: readonly (Value | null)[],
  inputEdges: readonly (Edge | null)[],
  outputs: readonly Tensor[],
): void {
  const { places } = plan
  const { length } = places
  if (length === 0) return
  const saved = new SavedValues(op.name, device, length)
  for (let i = 0; i < length; i++) {
    const place = places[i]
    if (place >= 0) {
      saved.put(i, inputs[place], inputEdges[place])
    } else {
      const output = outputs[-1 - place]
      saved.put(i, output, output.edge)
    }
  }
  saved.hold()
  node.saved = saved
}

function record<A>(
  op: Op<A>,
  needs: number,
  inputs: readonly (Value | null)[],
  attrs: A,
  outputs: readonly Tensor[],
): void {
  const { differentiable } = op
  if (!isFloating(outputs[0].dtype)) return
  const node = makeNode(op, needs, inputs, attrs)
  for (let i = 0; i < differentiable && i < outputs.length; i++) {
    outputs[i].edge = Edge.of(node, i, outputs[i])
  }
  save(op, node, op.plans[needs] as SavePlan, outputs[0].device, inputs, node.edges, outputs)
}

/** A view remembers its base; the base of a view of a view is the first one's. */
function linkView(view: Tensor, source: Tensor): void {
  view.base = source.base ?? source
  view.history = view.base.history
}

/** Runs an op that has one output and records it if an input requires a gradient. */
export function apply<A>(op: Op<A>, operands: readonly (Value | null)[], attrs: A): Tensor {
  const inputs = autocastTo(op.autocast, operands)
  const result = op.run(inputs as readonly Tensor[], attrs, null)
  const y = Array.isArray(result) ? result[0] : result
  if (op.isView) linkView(y, inputs[0] as Tensor)
  const needs = needsGrad(op, inputs)
  if (needs !== 0) {
    record(op, needs, inputs, attrs, Array.isArray(result) ? result : [result])
  }
  return y
}

/** Runs an op that has several outputs. */
export function applyAll<A>(op: Op<A>, operands: readonly (Value | null)[], attrs: A): Tensor[] {
  const inputs = autocastTo(op.autocast, operands)
  const outputs = op.run(inputs as readonly Tensor[], attrs, null) as Tensor[]
  if (op.isView) for (const y of outputs) linkView(y, inputs[0] as Tensor)
  const needs = needsGrad(op, inputs)
  if (needs !== 0) record(op, needs, inputs, attrs, outputs)
  return outputs
}
