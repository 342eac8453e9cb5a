import type { Device } from './device.js'
import { commonDevice } from './device.js'
import { type DType, isFloating } from './dtype.js'
import { ArgumentError, AutogradError } from './errors.js'
import { isGradEnabled } from './grad-mode.js'
import type { Shape } from './shape.js'
import { Edge, moveRetained, Node, SavedValue, SavedValues, type ValueInfo } from './tape.js'
import { Tensor } from './tensor.js'

/** What an operand of an op may be. */
export type Value = Tensor | number | bigint

/** What every gradient rule may read besides the saved values it declared. */
export interface RuleContext<A> {
  /** The gradient of the first output. */
  readonly dy: Tensor
  /** Gradients of all outputs; null where none arrived. */
  readonly dys: readonly (Tensor | null)[]
  readonly attrs: A
  /** Shape, dtype and device of each input; null for numbers. */
  readonly inputs: readonly (ValueInfo | null)[]
  /** Whether the result will be differentiated again. */
  readonly createGraph: boolean
}

/** A gradient rule with the names of the inputs and outputs that it reads: nothing else is kept. */
export interface Rule<A> {
  readonly reads: readonly string[]
  readonly apply: (context: RuleContext<A> & Record<string, never>) => Tensor | null
}

/** One rule that gives the gradients of several inputs at once, from a fused backward kernel. */
export interface JointRule<A> {
  readonly reads: readonly string[]
  readonly applyAll: (
    context: RuleContext<A> & { readonly needs: readonly boolean[] } & Record<string, never>,
  ) => (Tensor | null)[]
}

/** Declares a rule: the values it reads by name, then the formula. */
export function from<A, const K extends string = never>(
  reads: readonly K[],
  apply: (context: RuleContext<A> & Readonly<Record<K, Tensor>>) => Tensor | null,
): Rule<A> {
  return { reads, apply: apply as unknown as Rule<A>['apply'] }
}

/** Declares a rule for all inputs together; it returns their gradients in the inputs' order. */
export function jointly<A, const K extends string = never>(
  reads: readonly K[],
  applyAll: (
    context: RuleContext<A> & { readonly needs: readonly boolean[] } & Readonly<Record<K, Tensor>>,
  ) => (Tensor | null)[],
): JointRule<A> {
  return { reads, applyAll: applyAll as unknown as JointRule<A>['applyAll'] }
}

/** Makes seeded float64 inputs for gradcheck samples. */
export interface Sampler {
  /** Standard normal numbers. */
  normal(shape: Shape): Tensor
  uniform(shape: Shape, low: number, high: number): Tensor
  /** Normal numbers whose size is at least `gap`: for ops with a kink at 0. */
  awayFromZero(shape: Shape, gap?: number): Tensor
  /** All different, at least 0.1 apart, in random order: for maxima. */
  distinct(shape: Shape): Tensor
  integers(shape: Shape, low: number, high: number): Tensor
  booleans(shape: Shape): Tensor
}

export interface Sample<A> {
  readonly inputs: readonly (Value | null)[]
  readonly attrs: A
}

/**
 * One op. `I` names its inputs, `O` its outputs. An op has a gradient (a rule for each input, or
 * null for one that has none) or says `gradient: null`.
 */
export interface OpRecord<A, I extends string = string, O extends string = string> {
  readonly name: string
  readonly inputs: readonly I[]
  /** The first may carry a gradient. */
  readonly outputs: readonly O[]
  /**
   * Computes the outputs: shape and dtype rule and native call. `out` is the tensor to write into
   * where the op runs in place, else null. Where an op takes numbers or optional inputs, they
   * stand among the inputs too (as numbers, or null), which its record says.
   */
  readonly run: (inputs: readonly Tensor[], attrs: A, out: Tensor | null) => Tensor | Tensor[]
  readonly gradient: { readonly [name in I]: Rule<A> | null } | JointRule<A> | null
  /** How many of the outputs, from the first, carry gradients; default 1. */
  readonly differentiable?: number
  /** Its output shares the memory of its first input. */
  readonly isView?: boolean
  /** Whether it has an in-place twin, which overwrites its first input. */
  readonly inPlace?: boolean
  /** What it wants under autocast: half precision, float32, or the widest of its inputs. */
  readonly autocast?: 'half' | 'float32' | 'widest'
  /** Inputs for gradcheck; an op with a gradient and without samples fails the suite. */
  readonly samples: ((sampler: Sampler) => Sample<A>[]) | null
}

/** An op with what the tape needs of it worked out. */
export interface Op<A> extends OpRecord<A> {
  /** By bits of which inputs need a gradient: what to save. */
  readonly plans: (SavePlan | undefined)[]
}

interface SavePlan {
  /** Positions among the inputs, or for outputs -1 - position. */
  readonly places: readonly number[]
  readonly names: readonly string[]
}

/** Every op by name: what gradcheck and the documentation are driven by. */
// biome-ignore lint/suspicious/noExplicitAny: the registry holds ops of all attributes
export const registry = new Map<string, Op<any>>()

/** Declares an op. `defineOp<Attributes>()({ … })`: names of inputs and outputs are inferred. */
export function defineOp<A = void>() {
  return <const I extends string, const O extends string = 'y'>(
    record: Omit<OpRecord<A, I, O>, 'outputs'> & { readonly outputs?: readonly O[] },
  ): Op<A> => {
    if (registry.has(record.name)) throw new AutogradError(`op ${record.name} is declared twice`)
    const op = {
      ...record,
      outputs: record.outputs ?? ['y'],
      plans: [],
    } as unknown as Op<A>
    registry.set(op.name, op)
    return op
  }
}

function isJoint<A>(gradient: object): gradient is JointRule<A> {
  return 'applyAll' in gradient
}

function makePlan<A>(op: Op<A>, needs: number): SavePlan {
  const names = new Set<string>()
  const gradient = op.gradient
  if (gradient !== null) {
    if (isJoint<A>(gradient)) for (const name of gradient.reads) names.add(name)
    else {
      op.inputs.forEach((input, i) => {
        if ((needs >> i) & 1) for (const name of gradient[input]?.reads ?? []) names.add(name)
      })
    }
  }
  const places = [...names].map((name) => {
    const input = op.inputs.indexOf(name)
    const output = op.outputs.indexOf(name)
    if (input < 0 && output < 0) {
      throw new AutogradError(`op ${op.name}: a rule reads ${name}, which is no input or output`)
    }
    return input >= 0 ? input : -1 - output
  })
  return { places, names: [...names] }
}

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

function infoOf(value: Value | null): ValueInfo | null {
  return value instanceof Tensor ? value : null
}

/** The inputs that carry gradients, as bits; 0 if nothing is to be recorded. */
function needsGrad<A>(op: Op<A>, inputs: readonly (Value | null)[]): number {
  if (op.gradient === null || !isGradEnabled()) return 0
  let bits = 0
  for (let i = 0; i < inputs.length; i++) {
    const x = inputs[i]
    if (x instanceof Tensor && x.gradEdge() !== null) bits |= 1 << i
  }
  // A joint rule reads the same whatever is needed, and may have any number of inputs.
  return bits !== 0 && isJoint(op.gradient) ? 1 : bits
}

/** Makes the node of a call. `savedInputs` stand for the inputs where an op overwrites them. */
function makeNode<A>(
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
  const info = infoOf(x)
  return info === null ? null : { shape: info.shape, dtype: info.dtype, device: info.device }
}

/** Fills what the node saves, once the outputs exist and have their edges. */
function save<A>(
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
  for (let i = 0; i < differentiable; i++) outputs[i].edge = Edge.of(node, i, outputs[i])
  save(op, node, op.plans[needs] as SavePlan, outputs[0].device, inputs, node.edges, outputs)
}

/** A view remembers its base; the base of a view of a view is the first one's. */
function linkView(view: Tensor, source: Tensor): void {
  view.base = source.base ?? source
  view.history = view.base.history
}

/** Runs an op that has one output and records it if an input requires a gradient. */
export function apply<A>(op: Op<A>, inputs: readonly (Value | null)[], attrs: A): Tensor {
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
export function applyAll<A>(op: Op<A>, inputs: readonly (Value | null)[], attrs: A): Tensor[] {
  const outputs = op.run(inputs as readonly Tensor[], attrs, null) as Tensor[]
  const needs = needsGrad(op, inputs)
  if (needs !== 0) record(op, needs, inputs, attrs, outputs)
  return outputs
}

/** A flat description of a view relative to its base, in elements of the storage. */
export interface Geometry {
  readonly shape: Shape
  readonly strides: Shape
  readonly offset: number
}

export function geometryOf(t: Tensor): Geometry {
  return { shape: t.shape, strides: t.strides, offset: t.offset }
}

/**
 * The functions of `ops` that the engine needs; `core` does not import `ops`, they are handed in
 * when it loads.
 */
export interface EngineOps {
  add(a: Tensor, b: Tensor): Tensor
  addInPlace(a: Tensor, b: Tensor): void
  /** Sums a gradient to the shape that was broadcast. */
  sumTo(g: Tensor, shape: Shape): Tensor
  cast(t: Tensor, dtype: DType): Tensor
  clone(t: Tensor): Tensor
  ones(like: ValueInfo): Tensor
  zeros(like: ValueInfo): Tensor
  /** A view of a base, by geometry; its gradient scatters into the base's. */
  asStrided(base: Tensor, view: Geometry): Tensor
  /** The part of a gradient of the base that belongs to the view. */
  takeSlice(g: Tensor, base: Geometry, view: Geometry): Tensor
  /** `g` with the part that belongs to the view replaced. */
  putSlice(g: Tensor, part: Tensor, base: Geometry, view: Geometry): Tensor
}

export let engineOps: EngineOps
export function setEngineOps(ops: EngineOps): void {
  engineOps = ops
}

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

/** The device of the tensors among the operands. */
export function deviceOf(op: string, operands: readonly (Value | null)[]): Device {
  let device: Device | null = null
  for (let i = 0; i < operands.length; i++) {
    const x = operands[i]
    if (!(x instanceof Tensor)) continue
    device = device === null ? x.device : commonDevice(op, device, x.device)
  }
  if (device === null) throw new AutogradError(`${op}: expected a tensor among the operands`)
  return device
}
