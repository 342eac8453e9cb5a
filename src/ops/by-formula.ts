import { grad } from '../core/autograd.js'
import { enableGrad } from '../core/grad-mode.js'
import { type JointRule, jointly, type RuleContext } from '../core/op.js'
import type { Tensor } from '../core/tensor.js'
import { view } from './views.js'

/** Where the gradient of one input is read off: the value itself, apart from all that made it. */
function startOf(x: Tensor, createGraph: boolean): Tensor {
  return createGraph && x.requiresGrad ? view(x, x.shape) : x.detach().requiresGrad_()
}

/**
 * The rule of an op that has a fused kernel and no fused derivative: `formula` says with
 * differentiable ops what the kernel computes, from the op's inputs to its outputs, and the
 * gradient is the vector-Jacobian product of that. `inputs` are all inputs of the op, in order;
 * optional ones may come as null.
 */
export function byFormula<A, const K extends string>(
  inputs: readonly K[],
  formula: (values: Readonly<Record<K, Tensor>>, attrs: A) => Tensor[],
): JointRule<A> {
  return jointly<A, K>(inputs, (context) => {
    const { dys, needs, attrs, createGraph } = context
    return enableGrad(() => {
      const starts = inputs.map((name, i) => {
        const value: Tensor | null = context[name]
        return value !== null && needs[i] ? startOf(value, createGraph) : value
      })
      const values = Object.fromEntries(inputs.map((name, i) => [name, starts[i]]))
      const outputs = formula(values as Record<K, Tensor>, attrs)
      const used = outputs.map((_, i) => i).filter((i) => dys[i] && outputs[i].requiresGrad)
      const wanted = inputs.map((_, i) => i).filter((i) => needs[i])
      const found = grad(
        used.map((i) => outputs[i]),
        wanted.map((i) => starts[i] as Tensor),
        { gradOutputs: used.map((i) => dys[i]), createGraph, allowUnused: true },
      )
      return inputs.map((_, i) => (needs[i] ? found[wanted.indexOf(i)] : null))
    })
  })
}

type Joint<A> = RuleContext<A> & { readonly needs: readonly boolean[] }

/**
 * A rule that takes the gradient from a fused kernel, and from differentiable ops where it is to be
 * differentiated again.
 */
export function fusedUnlessTwice<A, C extends Joint<A>>(
  reads: readonly string[],
  fused: (context: C) => (Tensor | null)[],
  formula: JointRule<A>,
): JointRule<A> {
  return {
    reads: [...new Set([...reads, ...formula.reads])],
    applyAll: (context) =>
      context.createGraph ? formula.applyAll(context) : fused(context as unknown as C),
  }
}
