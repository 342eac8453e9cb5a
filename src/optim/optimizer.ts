import type { Device } from '../core/device.js'
import { ArgumentError, checkList, checkOptions, DeviceError, describe } from '../core/errors.js'
import { noGrad } from '../core/grad-mode.js'
import { recording, refuseWhileCapturing } from '../core/recording.js'
import { keep } from '../core/scope.js'
import { sameShape, showShape } from '../core/shape.js'
import { dropGrads, type GradSlot } from '../core/tape.js'
import { Tensor } from '../core/tensor.js'
import { cast, contiguous } from '../ops/index.js'
import { CapturedRow } from './captured-row.js'
import { camelCase, snakeCase } from './case.js'

/** A number, flag or pair that configures an optimizer. */
export type Hyperparameter = number | boolean | readonly [number, number]

/** Parameters with hyperparameters of their own. */
export type ParamGroup<H> = H & {
  readonly params: readonly Tensor[]
  /** The learning rate before any schedule; set by the first schedule. */
  initialLr?: number
}

/** Parameters, or groups of them whose options override the optimizer's. */
export type Params<H> = Iterable<Tensor> | Iterable<GroupOptions<H>>

/** Parameters with what differs from the optimizer's options. */
export type GroupOptions<H> = Partial<H> & { readonly params: Iterable<Tensor> }

/** What an optimizer remembers of one parameter: tensors of its shape, and the step count. */
export interface ParamState {
  step: number
  readonly buffers: Record<string, Tensor>
}

/** As PyTorch's: by the parameters' positions, with its keys. */
export interface OptimizerStateDict {
  readonly state: { readonly [index: number]: { readonly [key: string]: Tensor | number } }
  readonly param_groups: readonly {
    readonly params: readonly number[]
    readonly [key: string]: Hyperparameter | readonly number[]
  }[]
}

/** Parameters that take one step together: of one group, device, dtype and step count. */
export interface Row {
  readonly device: Device
  readonly step: number
  readonly params: Tensor[]
  readonly grads: Tensor[]
  readonly states: ParamState[]
}

/** Where a native call is encoded. */
export type Calls = Device['calls']

/** Native slots for what changes from step to step. */
export interface Slots {
  readonly lr: number
  readonly step: number
}

interface Hyper {
  lr: number
}

/**
 * What all optimizers share: groups of parameters, their state, and the step, which is one native
 * call for all parameters of a group that have one dtype, device and step count.
 */
export abstract class Optimizer<H extends Hyper = Hyper> {
  readonly paramGroups: ParamGroup<H>[] = []
  protected readonly state = new Map<Tensor, ParamState>()
  /** By device, one for each row. */
  private readonly slots = new Map<Device, Slots[]>()

  private readonly defaults: H

  protected constructor(params: Params<H>, defaults: H, options: Partial<H>) {
    checkOptions(this.name, options)
    this.defaults = { ...defaults, ...given(options) }
    checkList(this.name, 'parameters', params, true)
    const items = [...params] as (Tensor | GroupOptions<H>)[]
    if (items.length === 0) {
      throw new ArgumentError(`${this.name}: expected one or more parameters, got none`)
    }
    const groups = items.filter((item): item is GroupOptions<H> => !(item instanceof Tensor))
    const alone = items.filter((item) => item instanceof Tensor)
    if (groups.length > 0 && alone.length > 0) {
      throw new ArgumentError(`${this.name}: expected parameters or groups, got both`)
    }
    if (alone.length > 0) this.addGroup(alone, {})
    for (const group of groups) this.addParamGroup(group)
  }

  private get name(): string {
    return this.constructor.name
  }

  /** Throws for hyperparameters out of their range. */
  protected abstract checkGroup(group: H): void

  /** Encodes a step of parameters of one group; the slots hold the learning rate and the step. */
  protected abstract encode(calls: Calls, row: Row, group: H, slots: Slots): void

  /** Names of the buffers that a parameter of a group needs, in PyTorch's words. */
  protected abstract bufferNames(group: H): readonly string[]

  /** Adds parameters, such as those of layers that are unfrozen later. */
  addParamGroup(group: GroupOptions<H>): void {
    checkOptions(this.name, group)
    checkList(this.name, 'a group with params', group.params, true)
    this.addGroup([...group.params], group)
  }

  private addGroup(params: readonly Tensor[], options: object): void {
    const known = new Set(this.paramGroups.flatMap((g) => g.params))
    for (const p of params) {
      if (!(p instanceof Tensor) || !p.isLeaf) {
        const got = p instanceof Tensor ? 'a result of an op' : describe(p)
        throw new ArgumentError(`${this.name}: expected parameters that are leaves, got ${got}`)
      }
      if (!p.isContiguous) {
        throw new ArgumentError(
          `${this.name}: expected row-major parameters, got strides ${showShape(p.strides)}`,
        )
      }
      if (known.has(p)) {
        throw new ArgumentError(`${this.name}: expected each parameter once, got one again`)
      }
      known.add(p)
    }
    const group: ParamGroup<H> = { ...this.defaults, ...given(options), params }
    this.checkGroup(group)
    this.paramGroups.push(group)
  }

  /** Drops the gradients of all parameters. */
  zeroGrad(): void {
    for (const { params } of this.paramGroups) dropGrads(params)
  }

  /** Changes each parameter that has a gradient. */
  step(): void {
    const used = new Map<Device, number>()
    noGrad(() => {
      for (const group of this.paramGroups) {
        this.checkGroup(group) // its values may have been changed
        for (const row of this.rows(group)) {
          const position = used.get(row.device) ?? 0
          used.set(row.device, position + 1)
          this.run(row, group, position)
        }
      }
    })
    for (const device of used.keys()) device.native.stepEnd()
  }

  private run(row: Row, group: H, position: number): void {
    const { native, calls } = row.device
    const capture = recording()
    let slots: Slots
    if (capture === null) {
      const list = this.slots.get(row.device) ?? []
      this.slots.set(row.device, list)
      list[position] ??= { lr: native.createSlot(0), step: native.createSlot(0) }
      slots = list[position]
    } else {
      // Slots of its own, for a step may be taken twice in what is captured.
      slots = { lr: native.createSlot(0), step: native.createSlot(0) }
      capture.participants.push(new CapturedRow(this.name, this, this.state, group, row, slots))
    }
    native.setSlot(slots.lr, group.lr)
    native.setSlot(slots.step, row.step)
    this.encode(calls, row, group, slots)
    for (const state of row.states) state.step = row.step
    row.grads.forEach((grad, i) => {
      if (grad !== row.params[i].slot?.grad) grad.dispose()
    })
  }

  /** The parameters of a group that have gradients, by what can go into one call. */
  private rows(group: ParamGroup<H>): Row[] {
    const rows: Row[] = []
    for (const p of group.params) {
      const grad = p.slot?.grad
      if (!grad) continue
      recording()?.touch(p.slot as GradSlot, 'read')
      const state = this.stateOf(p, group)
      const step = state.step + 1
      let row = rows.find(
        (r) => r.step === step && r.device === p.device && r.params[0].dtype === p.dtype,
      )
      if (row === undefined) {
        row = { device: p.device, step, params: [], grads: [], states: [] }
        rows.push(row)
      }
      row.params.push(p)
      row.grads.push(this.denseGrad(p, grad))
      row.states.push(state)
    }
    return rows
  }

  private denseGrad(p: Tensor, grad: Tensor): Tensor {
    if (grad.device !== p.device) {
      throw new DeviceError(
        `${this.name}: expected gradients on ${p.device} as their parameters, got ${grad.device}`,
      )
    }
    return contiguous(cast(grad, p.dtype))
  }

  private stateOf(p: Tensor, group: H): ParamState {
    let state = this.state.get(p)
    if (state === undefined) {
      state = { step: 0, buffers: {} }
      this.state.set(p, state)
    }
    let isNew = true
    for (const name in state.buffers) {
      isNew = false
      const buffer = state.buffers[name]
      if (buffer.device === p.device && buffer.dtype === p.dtype) continue
      throw new ArgumentError(
        `${this.name}: expected a parameter as it was at its first step, ${buffer.dtype} on ` +
          `${buffer.device}, got ${p.dtype} on ${p.device}; make the optimizer afterwards`,
      )
    }
    // Momentum that is switched on later starts as at the first step.
    if (isNew) state.step = 0
    for (const name of this.bufferNames(group)) {
      if (state.buffers[name] !== undefined) continue
      refuseWhileCapturing(
        `${this.name}.step`,
        `the first step of a parameter, which makes its ${name}; warm up with more calls`,
      )
      state.buffers[name] = zerosOf(p)
    }
    return state
  }

  // ------------------------------------------------------------------ state

  /** The step count of a saved state; PyTorch keeps it as a tensor. */
  protected stepOf(saved: unknown): number {
    const value = saved instanceof Tensor ? saved.item() : saved
    if (!Number.isSafeInteger(value) || (value as number) < 0) {
      throw new ArgumentError(
        `${this.name}.loadStateDict: expected a step count, got ${describe(saved)}`,
      )
    }
    return value as number
  }

  /** Everything that a run needs to go on to the same bits, in PyTorch's structure. */
  stateDict(): OptimizerStateDict {
    const positions = new Map<Tensor, number>()
    for (const group of this.paramGroups) {
      for (const p of group.params) positions.set(p, positions.size)
    }
    const state: Record<number, Record<string, Tensor | number>> = {}
    for (const [p, { step, buffers }] of this.state) {
      state[positions.get(p) as number] = { step, ...buffers }
    }
    const groups = this.paramGroups.map(({ params, ...rest }) => ({
      ...Object.fromEntries(Object.entries(rest).map(([key, v]) => [snakeCase(key), v])),
      params: params.map((p) => positions.get(p) as number),
    }))
    return { state, param_groups: groups as unknown as OptimizerStateDict['param_groups'] }
  }

  /**
   * Takes over a state; tensors are copied, to the parameters' dtype and device.
   * @throws ArgumentError if groups or shapes do not fit; then nothing has changed
   */
  loadStateDict(dict: OptimizerStateDict): void {
    const wrong = (expected: string, got: string) =>
      new ArgumentError(`${this.name}.loadStateDict: expected ${expected}, got ${got}`)
    const isObject = (value: unknown) => typeof value === 'object' && value !== null
    if (!Array.isArray(dict?.param_groups) || !isObject(dict.state)) {
      throw wrong('an optimizer state with state and param_groups', describe(dict))
    }
    for (const group of dict.param_groups) {
      if (!Array.isArray(group?.params)) throw wrong('groups with params', describe(group))
    }
    const sizes = (groups: readonly { params: readonly unknown[] }[]) =>
      groups.map((group) => group.params.length).join(', ')
    if (sizes(dict.param_groups) !== sizes(this.paramGroups)) {
      throw wrong(
        `groups of [${sizes(this.paramGroups)}] parameters`,
        `[${sizes(dict.param_groups)}]`,
      )
    }
    const groups = dict.param_groups.map(({ params: _, ...rest }, i) => {
      const own = this.paramGroups[i]
      const entries = Object.entries(rest)
        .map(([key, v]) => [camelCase(key), v] as const)
        .filter(([key]) => key in own || key === 'initialLr')
      const group: ParamGroup<H> = { ...own, ...Object.fromEntries(entries) }
      this.checkGroup(group)
      return group
    })
    const byIndex = new Map<number, { p: Tensor; group: H }>()
    groups.forEach((group, i) => {
      const { params } = dict.param_groups[i]
      for (const [k, index] of params.entries()) byIndex.set(index, { p: group.params[k], group })
    })
    const states: [Tensor, ParamState][] = []
    for (const [index, saved] of Object.entries(dict.state)) {
      const entry = byIndex.get(Number(index))
      if (entry === undefined) throw wrong('states of its parameters', `one of number ${index}`)
      const { p, group } = entry
      if (!isObject(saved)) throw wrong(`the state of parameter ${index}`, describe(saved))
      const buffers: Record<string, Tensor> = {}
      for (const name of this.bufferNames(group)) {
        const value = saved[name]
        if (!(value instanceof Tensor) || !sameShape(value.shape, p.shape)) {
          const got = value instanceof Tensor ? showShape(value.shape) : describe(value)
          throw wrong(`${name} of shape ${showShape(p.shape)} for parameter ${index}`, got)
        }
        buffers[name] = value
      }
      states.push([p, { step: this.stepOf(saved.step), buffers }])
    }
    noGrad(() => {
      for (const [p, { buffers }] of states) {
        for (const [name, value] of Object.entries(buffers)) {
          buffers[name] = zerosOf(p).copy_(value)
        }
      }
    })
    groups.forEach((group, i) => {
      Object.assign(this.paramGroups[i], group)
    })
    this.state.clear()
    for (const [p, state] of states) this.state.set(p, state)
  }
}

/** Options without those that are undefined, which stand for their defaults. */
function given(options: object): object {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined))
}

/** State outlives a `tidy` around the step that makes it. */
function zerosOf(p: Tensor): Tensor {
  const t = keep(Tensor.pending(p.device, p.dtype, p.shape))
  p.device.calls.begin('fill').operand(0).output(t).run()
  return t
}

/** Throws unless `value` is a number of `low` or more and, if given, below `high`. */
export function checkRange(
  name: string,
  what: string,
  value: unknown,
  low: number,
  high = Number.POSITIVE_INFINITY,
): void {
  if (typeof value === 'number' && value >= low && value < high) return
  const range = high === Number.POSITIVE_INFINITY ? `of ${low} or more` : `in [${low}, ${high})`
  throw new ArgumentError(`${name}: expected ${what} ${range}, got ${describe(value)}`)
}
