import { checkBigInt } from '../core/dtype.js'
import { ArgumentError, describe } from '../core/errors.js'
import type { Value } from '../core/op.js'
import { Tensor } from '../core/tensor.js'
import { full } from './creation.js'

/** What an operand may be: a boolean counts as a tensor of no axes and dtype bool. */
export type Operand = Value | boolean

/** Checks an operand; `other` says on which device a boolean goes. */
export function checkOperand(op: string, x: Operand, other?: unknown): Value {
  if (x instanceof Tensor || typeof x === 'number') return x
  if (typeof x === 'bigint') return checkBigInt(op, x)
  if (typeof x === 'boolean') {
    return full([], x, other instanceof Tensor ? { device: other.device } : {})
  }
  throw new ArgumentError(`${op}: expected a tensor or a number, got ${describe(x)}`)
}
