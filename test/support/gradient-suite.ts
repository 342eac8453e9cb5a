import { describe, expect, test } from 'vitest'
import { type Differentiable, gradcheck, gradcheckTwice, strided } from './gradcheck.js'
import {
  type AnyOp,
  broadcasts,
  broadcastVariants,
  casesOf,
  fitsInPlace,
  needsDense,
} from './op-cases.js'

/**
 * The tests of one op's gradients: by finite differences on the default device, first and second
 * order, in all the ways in which the engine may call it.
 */
export function describeGradients(op: AnyOp): void {
  describe(op.name, () => {
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

    if (broadcasts(op)) {
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
}
