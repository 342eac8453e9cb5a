import { ArgumentError, describe } from '../core/errors.js'

/** What a fused kernel may apply to its result. */
export type Activation = 'relu'

export function checkActivation(op: string, activation: unknown): Activation | null {
  if (activation === undefined || activation === null) return null
  if (activation !== 'relu') {
    throw new ArgumentError(
      `${op}: expected 'relu' or null as activation, got ${describe(activation)}`,
    )
  }
  return activation
}
