// Activations with a parameter, made of other ops.
import { isFloating } from '../core/dtype.js'
import { ArgumentError, checkOptions, DTypeError, describe } from '../core/errors.js'
import { checkTensor, type Tensor } from '../core/tensor.js'
import { binary, unary } from './elementwise.js'
import { mul } from './terms.js'
import { where } from './where.js'

function checkInput(op: string, x: Tensor, options: unknown): void {
  checkOptions(op, options)
  if (!isFloating(checkTensor(op, x).dtype)) {
    throw new DTypeError(`${op}: expected a floating dtype, got ${x.dtype}`)
  }
}

/** Checks a parameter of an activation, of a function or a layer. */
export function checkParameter(op: string, name: string, value: unknown): number {
  if (typeof value !== 'number' || Number.isNaN(value)) {
    throw new ArgumentError(`${op}: expected ${name} to be a number, got ${describe(value)}`)
  }
  return value
}

export interface LeakyReluOptions {
  /** The slope below 0; default 0.01. */
  negativeSlope?: number
}

/** x where it is positive, else negativeSlope x (Maas et al. 2013). */
export function leakyRelu(x: Tensor, options: LeakyReluOptions = {}): Tensor {
  checkInput('leakyRelu', x, options)
  const slope = checkParameter('leakyRelu', 'negativeSlope', options.negativeSlope ?? 0.01)
  return where(binary('gt', x, 0), x, mul(x, slope))
}

export interface EluOptions {
  /** What the function tends to at -∞, negated; default 1. */
  alpha?: number
}

/** x where it is positive, else alpha (eˣ - 1) (Clevert et al. 2016). */
export function elu(x: Tensor, options: EluOptions = {}): Tensor {
  checkInput('elu', x, options)
  const alpha = checkParameter('elu', 'alpha', options.alpha ?? 1)
  const isPositive = binary('gt', x, 0)
  // The branch that is not taken must not overflow: its gradient would be 0 · ∞.
  const negative = where(isPositive, 0, x)
  return where(isPositive, x, mul(unary('expm1', negative), alpha))
}

export interface SoftplusOptions {
  /** The sharpness; default 1. */
  beta?: number
  /** Beyond beta x of this the result is x itself; default 20. */
  threshold?: number
}

/** log(1 + e^(beta x)) / beta, a smooth relu (Dugas et al. 2001). */
export function softplus(x: Tensor, options: SoftplusOptions = {}): Tensor {
  checkOptions('softplus', options)
  checkTensor('softplus', x)
  const beta = checkParameter('softplus', 'beta', options.beta ?? 1)
  const threshold = checkParameter('softplus', 'threshold', options.threshold ?? 20)
  if (beta === 1 && threshold === 20) return unary('softplus', x)
  const scaled = mul(x, beta)
  const isLinear = binary('gt', scaled, threshold)
  const curved = binary('div', unary('softplus', where(isLinear, 0, scaled)), beta)
  return where(isLinear, x, curved)
}
