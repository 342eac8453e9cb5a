import { opcodes } from '../../src/bindings/opcodes.js'
import { apply, applyAll } from '../../src/core/apply.js'
import { isFloating } from '../../src/core/dtype.js'
import { applyInPlace } from '../../src/core/in-place.js'
import type { Op, Sample } from '../../src/core/op.js'
import { cat, type Tensor } from '../../src/index.js'
import type { Differentiable } from './gradcheck.js'
import { SeededSampler } from './sampler.js'

export type AnyOp = Op<unknown>

const elementwise = new Set<string>([...opcodes.binary, 'where'])

/** Whether an op's operands broadcast. */
export const broadcasts = (op: AnyOp) => elementwise.has(op.name)

/** A sample split into what is varied (its float tensors) and what stays. */
export class Case {
  readonly places: number[] = []
  readonly variables: Tensor[] = []

  constructor(
    readonly op: AnyOp,
    readonly sample: Sample<unknown>,
  ) {
    sample.inputs.forEach((x, i) => {
      if (typeof x !== 'object' || x === null || !isFloating(x.dtype)) return
      this.places.push(i)
      this.variables.push(x)
    })
  }

  private fill(xs: readonly Tensor[]) {
    const inputs = [...this.sample.inputs]
    this.places.forEach((place, i) => {
      inputs[place] = xs[i]
    })
    return inputs
  }

  /** All differentiable outputs, or the one asked for. */
  function(only?: number): Differentiable {
    const { op } = this
    const { attrs } = this.sample
    return (xs) => {
      const inputs = this.fill(xs)
      const isSingle = op.outputs.length === 1 && op.differentiable === 1
      if (isSingle) return [apply(op, inputs, attrs)]
      const outputs = applyAll(op, inputs, attrs).slice(0, op.differentiable)
      return only === undefined ? outputs : [outputs[only]]
    }
  }

  /** On a result of an op, which is overwritten. */
  inPlace(): Differentiable {
    return ([first, ...rest]) => {
      const y = first.mul(1)
      applyInPlace(this.op, this.fill([y, ...rest]), this.sample.attrs)
      return [y]
    }
  }

  /**
   * On a view of a result of an op. The first variable is a base with the op's input in the middle
   * of its first axis; results are the base, the view, and another view that was made before and
   * shares elements with it.
   */
  inPlaceOnView(): Differentiable {
    const x = this.variables[0]
    return ([leaf, ...rest]) => {
      const base = leaf.mul(1)
      const view = x.ndim === 0 ? base.select(0, 1) : base.slice(0, 1, 1 + x.shape[0])
      const other = base.slice(0, 0, 2)
      applyInPlace(this.op, this.fill([view, ...rest]), this.sample.attrs)
      return [base, view, other]
    }
  }

  base(): Tensor {
    const x = this.variables[0]
    const rows = x.ndim === 0 ? x.reshape([1]) : x
    return cat([rows.slice(0, 0, 1), rows, rows.slice(0, 0, 1)])
  }

  /** The view's axes reversed in memory, as of a transposed matrix. */
  inPlaceOnTransposed(): Differentiable {
    return ([leaf, ...rest]) => {
      const reversed = leaf.shape.map((_, axis) => leaf.ndim - 1 - axis)
      const base = leaf.mul(1)
      const view = base.permute(reversed)
      applyInPlace(this.op, this.fill([view, ...rest]), this.sample.attrs)
      return [base, view]
    }
  }
}

/** A case for each sample of an op. */
export const casesOf = (op: AnyOp) =>
  (op.samples?.(new SeededSampler(1)) ?? []).map((sample) => new Case(op, sample))

/** One variable of an elementwise op made smaller, so that it is broadcast. */
export function* broadcastVariants(c: Case): Generator<Tensor[]> {
  for (let i = 0; i < c.variables.length; i++) {
    const x = c.variables[i]
    const replaced = (t: Tensor) => c.variables.map((v, k) => (k === i ? t.clone() : v))
    for (let axis = 0; axis < x.ndim; axis++) yield replaced(x.slice(axis, 0, 1))
    if (x.ndim > 0) yield replaced(x.reshape([x.numel]).select(0, 0))
    yield replaced(x.expand([2, ...x.shape]))
  }
}

/** Whether the op may overwrite its first input: a float tensor of the result's shape. */
export function fitsInPlace(c: Case): boolean {
  if (c.places[0] !== 0) return false
  const [y] = c.function()(c.variables)
  return String(y.shape) === String(c.variables[0].shape)
}

/** Ops that are told the strides of their result take a row-major input. */
export const needsDense = (c: Case) => 'strides' in ((c.sample.attrs ?? {}) as object)
