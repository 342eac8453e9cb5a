import { ArgumentError, describe } from '../core/errors.js'

/** What a fused kernel may apply to its result. */
export type Activation = 'relu'
/** What `linear` may: `'gelu'` by Φ(x), `'geluTanh'` by its approximation. */
export type LinearActivation = 'relu' | 'gelu' | 'geluTanh'

const rectifier: readonly Activation[] = ['relu']
const afterLinear: readonly LinearActivation[] = ['relu', 'gelu', 'geluTanh']

function check<A extends string>(op: string, known: readonly A[], activation: unknown): A | null {
  if (activation === undefined || activation === null) return null
  const found = known.find((name) => name === activation)
  if (found === undefined) {
    const names = known.map((name) => `'${name}'`).join(', ')
    throw new ArgumentError(
      `${op}: expected ${names} or null as activation, got ${describe(activation)}`,
    )
  }
  return found
}

export const checkActivation = (op: string, activation: unknown): Activation | null =>
  check(op, rectifier, activation)
export const checkLinearActivation = (op: string, activation: unknown): LinearActivation | null =>
  check(op, afterLinear, activation)
