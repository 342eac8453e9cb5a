import { describe, expect, test } from 'vitest'
import { opcodes } from '../../src/bindings/opcodes.js'
import { apply, applyAll } from '../../src/core/apply.js'
import { isFloating } from '../../src/core/dtype.js'
import { applyInPlace } from '../../src/core/in-place.js'
import { type Op, registry, type Sample } from '../../src/core/op.js'
import { cat, customFunction, type Tensor } from '../../src/index.js'
import { type Differentiable, gradcheck, gradcheckTwice, strided } from '../support/gradcheck.js'
import { loadAllOps } from '../support/rooms.js'
import { SeededSampler } from '../support/sampler.js'

await loadAllOps()

type AnyOp = Op<unknown>
const differentiable = [...registry.values()].filter((op): op is AnyOp => op.gradient !== null)
const elementwise = new Set<string>([...opcodes.binary, 'where'])

/** A sample split into what is varied (its float tensors) and what stays. */
class Case {
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

const casesOf = (op: AnyOp) =>
  (op.samples?.(new SeededSampler(1)) ?? []).map((sample) => new Case(op, sample))

/** One variable of an elementwise op made smaller, so that it is broadcast. */
function* broadcastVariants(c: Case): Generator<Tensor[]> {
  for (let i = 0; i < c.variables.length; i++) {
    const x = c.variables[i]
    const replaced = (t: Tensor) => c.variables.map((v, k) => (k === i ? t.clone() : v))
    for (let axis = 0; axis < x.ndim; axis++) yield replaced(x.slice(axis, 0, 1))
    if (x.ndim > 0) yield replaced(x.reshape([x.numel]).select(0, 0))
    yield replaced(x.expand([2, ...x.shape]))
  }
}

/** Whether the op may overwrite its first input: a float tensor of the result's shape. */
function fitsInPlace(c: Case): boolean {
  if (c.places[0] !== 0) return false
  const [y] = c.function()(c.variables)
  return String(y.shape) === String(c.variables[0].shape)
}

/** Ops that are told the strides of their result take a row-major input. */
const needsDense = (c: Case) => 'strides' in ((c.sample.attrs ?? {}) as object)

test('the registry is not empty', () => {
  expect(differentiable.length).toBeGreaterThan(60)
})

test('gradcheck notices a wrong gradient and a wrong second one', () => {
  const square = (slope: (x: Tensor) => Tensor) =>
    customFunction({
      forward: (context, x: Tensor) => {
        context.saveForBackward(x)
        return x.mul(x)
      },
      backward: (context, dy) => dy.mul(slope(context.savedTensors[0])),
    })
  const check = (slope: (x: Tensor) => Tensor) => () =>
    gradcheckTwice(([x]) => [square(slope)(x)], [new SeededSampler(1).normal([3])])
  expect(check((x) => x.mul(2))).not.toThrow()
  expect(check((x) => x.mul(2.001))).toThrow(/^input 0: expected a derivative/)
  expect(check((x) => x.detach().mul(2))).toThrow(/^second order: input 0/)
})

describe.each(differentiable.map((op) => [op.name, op] as const))('%s', (_name, op) => {
  test('has samples that reach the rule of every input', () => {
    const cases = casesOf(op)
    expect(cases.length).toBeGreaterThan(0)
    const reached = new Set<number>()
    for (const c of cases) {
      const xs = c.variables.map((x) => x.detach().requiresGrad_())
      const outputs = c.function()(xs)
      for (const y of outputs) if (y.requiresGrad) y.backward(y.detach(), { retainGraph: true })
      for (const [i, x] of xs.entries()) if (x.grad !== null) reached.add(c.places[i])
    }
    const { gradient } = op
    const isJoint = gradient !== null && 'applyAll' in gradient
    const places = isJoint
      ? new Set(cases.flatMap((c) => c.places))
      : op.inputs.flatMap((name, i) =>
          (gradient as Record<string, unknown>)[name] === null ? [] : [i],
        )
    for (const place of places) expect(reached, `input ${place}`).toContain(place)
    expect(reached.size).toBeGreaterThan(0)
  })

  test('first and second order, all outputs and each alone', () => {
    for (const c of casesOf(op)) {
      gradcheckTwice(c.function(), c.variables)
      const outputs = c.function()(c.variables).length
      for (let i = 0; i < outputs && outputs > 1; i++) gradcheckTwice(c.function(i), c.variables)
    }
  })

  test('strided inputs, strided and expanded gradients', () => {
    for (const c of casesOf(op)) {
      gradcheck(
        (xs) =>
          c
            .function()(xs)
            .map((y) => y.sum()),
        c.variables,
      )
      if (needsDense(c)) continue
      const views = c.variables.map((x, i) => strided(x, 11 + i))
      const through: Differentiable = (xs) =>
        c
          .function()(xs.map((x, i) => views[i].view(x)))
          .map((y) => y.permute(y.shape.map((_, axis) => y.ndim - 1 - axis)))
      gradcheckTwice(
        through,
        views.map((v) => v.dense),
      )
      gradcheck(
        (xs) =>
          c
            .function()(xs)
            .map((y) => y.sum()),
        c.variables,
      )
    }
  })

  if (elementwise.has(op.name)) {
    test('broadcast operands', () => {
      for (const c of casesOf(op)) {
        for (const variables of broadcastVariants(c)) gradcheckTwice(c.function(), variables)
      }
    })
  }

  if (op.inPlace) {
    test('in place: on a result, on a view of one, and seen from base and other views', () => {
      const cases = casesOf(op).filter(fitsInPlace)
      expect(cases.length).toBeGreaterThan(0)
      for (const c of cases) {
        const { variables } = c
        const [y] = c.function()(variables)
        const [inPlace] = c.inPlace()(variables)
        expect(inPlace.dataSync()).toEqual(y.dataSync())
        gradcheckTwice(c.inPlace(), variables)
        gradcheckTwice(c.inPlaceOnView(), [c.base(), ...variables.slice(1)])
        const reversed = variables[0].shape.map((_, axis) => variables[0].ndim - 1 - axis)
        gradcheckTwice(c.inPlaceOnTransposed(), [
          variables[0].permute(reversed).clone(),
          ...variables.slice(1),
        ])
      }
    })
  }
})
