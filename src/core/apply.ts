import { autocastTo } from './autocast.js'
import type { Device } from './device.js'
import { isFloating } from './dtype.js'
import { isGradEnabled } from './grad-mode.js'
import { isJoint, makePlan, type Op, type Rule, type SavePlan, type Value } from './op.js'
import { Edge, Node, SavedValue, SavedValues, type ValueInfo } from './tape.js'
import { Tensor } from './tensor.js'

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
    const gradient = this.op.gradient
    if (gradient === null) return this.edges.map(() => null)
    const values: Record<string, unknown> = {
      dy: dys[0],
      dys,
      attrs: this.attrs,
      inputs: this.infos,
      createGraph,
    }
    const unpacked: Tensor[] = []
    for (let i = 0; i < this.plan.names.length; i++) {
      const value = (this.saved as SavedValues).unpack(i, createGraph)
      values[this.plan.names[i]] = value
      if (value instanceof Tensor) unpacked.push(value)
    }
    let results: (Tensor | null)[]
    if (isJoint<A>(gradient)) {
      values.needs = this.edges.map((edge) => edge !== null)
      results = gradient.applyAll(values as never)
    } else {
      results = this.edges.map((edge, i) => {
        if (edge === null) return null
        const rule = (gradient as Record<string, Rule<A> | null>)[this.op.inputs[i]]
        return rule === null ? null : rule.apply(values as never)
      })
    }
    if (!createGraph) {
      for (const t of unpacked) if (!results.includes(t)) t.dispose()
    }
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
    if (x instanceof Tensor && x.gradEdge() !== null) bits |= 1 << i
  }
  // A joint rule reads the same whatever is needed, and may have any number of inputs.
  return bits !== 0 && isJoint(op.gradient) ? 1 : bits
}

/** Makes the node of a call; `save` fills what it keeps. */
export function makeNode<A>(
  op: Op<A>,
  needs: number,
  inputs: readonly (Value | null)[],
  attrs: A,
): OpNode<A> {
  op.plans[needs] ??= makePlan(op, needs)
  const edges = inputs.map((x) => (x instanceof Tensor ? x.gradEdge() : null))
  // Only what describes the inputs is kept: a tensor here would keep its memory.
  const infos = edges.map((edge, i) => edge ?? describeInput(inputs[i]))
  return new OpNode(op, edges, infos, attrs, op.plans[needs] as SavePlan)
}

function describeInput(x: Value | null): ValueInfo | null {
  return x instanceof Tensor ? { shape: x.shape, dtype: x.dtype, device: x.device } : null
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
  if (plan.places.length === 0) return
  const tensors: Tensor[] = []
  const values = plan.places.map((place) => {
    const value = place >= 0 ? inputs[place] : outputs[-1 - place]
    if (!(value instanceof Tensor)) return SavedValue.ofNumber(value as number | bigint)
    const edge = place >= 0 ? inputEdges[place] : value.edge
    tensors.push(value)
    return SavedValue.ofTensor(value, tensors.length - 1, edge)
  })
  node.saved = new SavedValues(op.name, device, values, tensors)
}

function record<A>(
  op: Op<A>,
  needs: number,
  inputs: readonly (Value | null)[],
  attrs: A,
  outputs: readonly Tensor[],
): void {
  const differentiable = op.differentiable ?? 1
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
  const y = result instanceof Tensor ? result : result[0]
  if (op.isView) linkView(y, inputs[0] as Tensor)
  const needs = needsGrad(op, inputs)
  if (needs !== 0) {
    record(op, needs, inputs, attrs, result instanceof Tensor ? [result] : result)
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
