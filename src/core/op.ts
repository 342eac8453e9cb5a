import type { Device } from './device.js'
import { commonDevice } from './device.js'
import { AutogradError } from './errors.js'
import type { Shape } from './shape.js'
import type { ValueInfo } from './tape.js'
import type { Tensor } from './tensor.js'

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
  /** Of a value that only one input's gradient reads, that input: else the value is not kept. */
  readonly readsFor?: Readonly<Record<string, string>>
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
  readsFor?: JointRule<A>['readsFor'],
): JointRule<A> {
  return { reads, readsFor, applyAll: applyAll as unknown as JointRule<A>['applyAll'] }
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
  /** How many of the outputs, from the first, carry gradients; default 1. Infinity for all. */
  readonly differentiable?: number
  /** Its outputs share the memory of its first input. */
  readonly isView?: boolean
  /** Whether it has an in-place twin, which overwrites its first input. */
  readonly inPlace?: boolean
  /**
   * What `apply` makes of its floating inputs under autocast: the lower precision, float32 (on a GPU
   * alone, for PyTorch's lists differ), or the widest of them; left out, they stay as they are.
   */
  readonly autocast?: 'half' | 'float32' | 'float32 on cuda' | 'widest'
  /** Inputs for gradcheck; an op with a gradient and without samples fails the suite. */
  readonly samples: ((sampler: Sampler) => Sample<A>[]) | null
}

/** An op with what the tape needs of it worked out. */
export interface Op<A> extends OpRecord<A> {
  /** The gradient, if it is one rule for all inputs. */
  readonly joint: JointRule<A> | null
  /** Else the rule of each input, in their order. */
  readonly rules: readonly (Rule<A> | null)[]
  readonly differentiable: number
  readonly isView: boolean
  /** By bits of which inputs need a gradient: what to save. */
  readonly plans: (SavePlan | undefined)[]
}

export interface SavePlan {
  /** Positions among the inputs, or for outputs -1 - position. */
  readonly places: readonly number[]
  readonly names: readonly string[]
  /** What a rule is given, before the values are filled in: an object with all its keys. */
  readonly context: Readonly<Record<string, unknown>>
}

/** Every op by name: what gradcheck and the documentation are driven by. */
export const registry = new Map<string, Op<unknown>>()

/** Declares an op. `defineOp<Attributes>()({ … })`: names of inputs and outputs are inferred. */
export function defineOp<A = void>() {
  return <const I extends string, const O extends string = 'y'>(
    record: Omit<OpRecord<A, I, O>, 'outputs'> & { readonly outputs?: readonly O[] },
  ): Op<A> => {
    if (registry.has(record.name)) throw new AutogradError(`op ${record.name} is declared twice`)
    const { gradient } = record as OpRecord<A>
    const joint = gradient !== null && isJoint<A>(gradient) ? gradient : null
    const rules: Readonly<Record<string, Rule<A> | null>> =
      gradient === null || isJoint<A>(gradient) ? {} : gradient
    // All ops have the same fields in the same order: reading them is what every call begins with.
    const op: Op<A> = {
      name: record.name,
      inputs: record.inputs,
      outputs: record.outputs ?? ['y'],
      run: record.run,
      gradient,
      joint,
      rules: record.inputs.map((input) => rules[input] ?? null),
      differentiable: record.differentiable ?? 1,
      isView: record.isView ?? false,
      inPlace: record.inPlace ?? false,
      autocast: record.autocast,
      samples: record.samples,
      plans: [],
    }
    registry.set(op.name, op as unknown as Op<unknown>)
    return op
  }
}

function isJoint<A>(gradient: object): gradient is JointRule<A> {
  return 'applyAll' in gradient
}

export function makePlan<A>(op: Op<A>, needs: number): SavePlan {
  const isRead = (name: string) => {
    const reader = op.joint?.readsFor?.[name]
    return reader === undefined || (needs >> op.inputs.indexOf(reader)) & 1
  }
  const names = new Set<string>(op.joint?.reads.filter(isRead))
  op.rules.forEach((rule, i) => {
    if ((needs >> i) & 1) for (const name of rule?.reads ?? []) names.add(name)
  })
  const places = [...names].map((name) => {
    const input = op.inputs.indexOf(name)
    const output = op.outputs.indexOf(name)
    if (input < 0 && output < 0) {
      throw new AutogradError(`op ${op.name}: a rule reads ${name}, which is no input or output`)
    }
    return input >= 0 ? input : -1 - output
  })
  const context: Record<string, unknown> = {
    ...{ dy: null, dys: null, attrs: null, inputs: null, createGraph: false, needs: null },
    ...Object.fromEntries([...names].map((name) => [name, null])),
  }
  return { places, names: [...names], context }
}

/** Whether an operand is a tensor. */
export function isTensor(x: Value | null): x is Tensor {
  return typeof x === 'object' && x !== null
}

/** The device of the tensors among the operands. */
export function deviceOf(op: string, operands: readonly (Value | null)[]): Device {
  let device: Device | null = null
  for (let i = 0; i < operands.length; i++) {
    const x = operands[i]
    if (!isTensor(x)) continue
    device = device === null ? x.device : commonDevice(op, device, x.device)
  }
  if (device === null) throw new AutogradError(`${op}: expected a tensor among the operands`)
  return device
}
