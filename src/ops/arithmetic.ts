import type { BinaryOpcode, UnaryOpcode } from '../bindings/opcodes.js'
import { apply } from '../core/apply.js'
import { ArgumentError, checkOptions, describe } from '../core/errors.js'
import { defineOp, from } from '../core/op.js'
import { checkTensor, Tensor } from '../core/tensor.js'
import {
  binary,
  binaryInPlace,
  binaryOps,
  computeBinary,
  unary,
  unaryInPlace,
  unaryOps,
} from './elementwise.js'
import { checkOperand, type Operand } from './operand.js'
import { where } from './where.js'

export type { Operand }

function f(name: UnaryOpcode): (x: Tensor) => Tensor {
  const op = unaryOps[name]
  return (x) => apply(op, [checkTensor(name, x)], undefined)
}

const f_ =
  (name: UnaryOpcode) =>
  (x: Tensor): Tensor =>
    unaryInPlace(name, checkTensor(`${name}_`, x))

type Binary = (a: Operand, b: Operand) => Tensor

function g(name: BinaryOpcode): Binary {
  const op = binaryOps[name]
  return (a, b) => apply(op, [checkOperand(name, a, b), checkOperand(name, b, a)], undefined)
}

const g_ =
  (name: BinaryOpcode) =>
  (a: Tensor, b: Operand): Tensor =>
    binaryInPlace(name, checkTensor(`${name}_`, a), checkOperand(`${name}_`, b, a))

/** The elementwise functions of one argument; integers become float32 where a float comes out. */
export const unaryFunctions = {
  neg: f('neg'),
  abs: f('abs'),
  sign: f('sign'),
  square: f('square'),
  sqrt: f('sqrt'),
  rsqrt: f('rsqrt'),
  reciprocal: f('reciprocal'),
  exp: f('exp'),
  exp2: f('exp2'),
  expm1: f('expm1'),
  log: f('log'),
  log2: f('log2'),
  log10: f('log10'),
  log1p: f('log1p'),
  sin: f('sin'),
  cos: f('cos'),
  tan: f('tan'),
  asin: f('asin'),
  acos: f('acos'),
  atan: f('atan'),
  sinh: f('sinh'),
  cosh: f('cosh'),
  tanh: f('tanh'),
  asinh: f('asinh'),
  acosh: f('acosh'),
  atanh: f('atanh'),
  floor: f('floor'),
  ceil: f('ceil'),
  round: f('round'),
  trunc: f('trunc'),
  erf: f('erf'),
  erfc: f('erfc'),
  sigmoid: f('sigmoid'),
  softplus: f('softplus'),
  relu: f('relu'),
  silu: f('silu'),
  isnan: f('isnan'),
  isinf: f('isinf'),
  isfinite: f('isfinite'),
  logicalNot: f('logicalNot'),
  bitwiseNot: f('bitwiseNot'),
}

/** Their in-place twins. */
export const unaryTwins = {
  neg_: f_('neg'),
  abs_: f_('abs'),
  sign_: f_('sign'),
  square_: f_('square'),
  sqrt_: f_('sqrt'),
  rsqrt_: f_('rsqrt'),
  reciprocal_: f_('reciprocal'),
  exp_: f_('exp'),
  exp2_: f_('exp2'),
  expm1_: f_('expm1'),
  log_: f_('log'),
  log2_: f_('log2'),
  log10_: f_('log10'),
  log1p_: f_('log1p'),
  sin_: f_('sin'),
  cos_: f_('cos'),
  tan_: f_('tan'),
  asin_: f_('asin'),
  acos_: f_('acos'),
  atan_: f_('atan'),
  sinh_: f_('sinh'),
  cosh_: f_('cosh'),
  tanh_: f_('tanh'),
  asinh_: f_('asinh'),
  acosh_: f_('acosh'),
  atanh_: f_('atanh'),
  floor_: f_('floor'),
  ceil_: f_('ceil'),
  round_: f_('round'),
  trunc_: f_('trunc'),
  erf_: f_('erf'),
  erfc_: f_('erfc'),
  sigmoid_: f_('sigmoid'),
  relu_: f_('relu'),
  bitwiseNot_: f_('bitwiseNot'),
}

/** The elementwise functions of two arguments, which broadcast and are promoted. */
export const binaryFunctions = {
  add: g('add'),
  sub: g('sub'),
  mul: g('mul'),
  div: g('div'),
  floorDivide: g('floorDivide'),
  remainder: g('remainder'),
  fmod: g('fmod'),
  pow: g('pow'),
  atan2: g('atan2'),
  hypot: g('hypot'),
  maximum: g('maximum'),
  minimum: g('minimum'),
  eq: g('eq'),
  ne: g('ne'),
  lt: g('lt'),
  le: g('le'),
  gt: g('gt'),
  ge: g('ge'),
  logicalAnd: g('logicalAnd'),
  logicalOr: g('logicalOr'),
  logicalXor: g('logicalXor'),
  bitwiseAnd: g('bitwiseAnd'),
  bitwiseOr: g('bitwiseOr'),
  bitwiseXor: g('bitwiseXor'),
  shiftLeft: g('shiftLeft'),
  shiftRight: g('shiftRight'),
}

export const binaryTwins = {
  add_: g_('add'),
  sub_: g_('sub'),
  mul_: g_('mul'),
  div_: g_('div'),
  floorDivide_: g_('floorDivide'),
  remainder_: g_('remainder'),
  fmod_: g_('fmod'),
  pow_: g_('pow'),
  maximum_: g_('maximum'),
  minimum_: g_('minimum'),
  bitwiseAnd_: g_('bitwiseAnd'),
  bitwiseOr_: g_('bitwiseOr'),
  bitwiseXor_: g_('bitwiseXor'),
}

interface Bounds {
  readonly low: number | null
  readonly high: number | null
}

const clampOp = defineOp<Bounds>()({
  name: 'clamp',
  inputs: ['x'],
  run: ([x], { low, high }) => {
    const raised = low === null ? x : computeBinary('maximum', x, low)
    if (high === null) return raised
    const y = computeBinary('minimum', raised, high)
    if (raised !== x) raised.dispose()
    return y
  },
  // [low < x < high]
  gradient: {
    x: from(['x'], ({ dy, x, attrs: { low, high } }) => {
      const above = binary('gt', x, low ?? -Infinity)
      const within = high === null ? above : binary('logicalAnd', above, binary('lt', x, high))
      return where(within, dy, 0)
    }),
  },
  samples: (s) => [
    { inputs: [s.distinct([3, 4])], attrs: { low: -0.55, high: 0.55 } },
    { inputs: [s.distinct([3, 4])], attrs: { low: null, high: 0.55 } },
  ],
})

/**
 * x within [low, high], with high where low is above it; either bound may be left out. NaN stays.
 * At a bound that is a number the gradient is 0, as in PyTorch.
 */
export function clamp(
  x: Tensor,
  low?: number | Tensor | null,
  high?: number | Tensor | null,
): Tensor {
  checkTensor('clamp', x)
  const lower = checkBound(low)
  const upper = checkBound(high)
  if (lower === null && upper === null) {
    throw new ArgumentError('clamp: expected a lower or an upper bound, got neither')
  }
  if (!(lower instanceof Tensor) && !(upper instanceof Tensor)) {
    return apply(clampOp, [x], { low: lower, high: upper })
  }
  const raised = lower === null ? x : binary('maximum', x, lower)
  return upper === null ? raised : binary('minimum', raised, upper)
}

function checkBound(bound: unknown): number | Tensor | null {
  if (bound === undefined || bound === null) return null
  if (typeof bound === 'number' || bound instanceof Tensor) return bound
  throw new ArgumentError(`clamp: expected a bound as a number or a tensor, got ${describe(bound)}`)
}

/** The part after the decimal point: x - trunc(x). */
export function frac(x: Tensor): Tensor {
  return binary('sub', checkTensor('frac', x), unary('trunc', x))
}

/** x Φ(x), or with `approximate: 'tanh'` its approximation (Hendrycks & Gimpel 2016). */
export function gelu(x: Tensor, options: { approximate?: 'none' | 'tanh' } = {}): Tensor {
  checkOptions('gelu', options)
  const { approximate = 'none' } = options
  if (approximate !== 'none' && approximate !== 'tanh') {
    throw new ArgumentError(
      `gelu: expected approximate to be 'none' or 'tanh', got ${describe(approximate)}`,
    )
  }
  return unary(approximate === 'tanh' ? 'geluTanh' : 'gelu', checkTensor('gelu', x))
}

/** Whether elements agree within |a - b| <= atol + rtol |b|, as bool. */
export function isclose(
  a: Tensor,
  b: Tensor,
  options: { rtol?: number; atol?: number; equalNan?: boolean } = {},
): Tensor {
  checkTensor('isclose', a)
  checkTensor('isclose', b)
  checkOptions('isclose', options)
  const { rtol = 1e-5, atol = 1e-8, equalNan = false } = options
  const bound = binary(
    'add',
    binary('mul', unary('abs', b), checkOperand('isclose', rtol)),
    checkOperand('isclose', atol),
  )
  const near = binary('le', unary('abs', binary('sub', a, b)), bound)
  const close = binary(
    'logicalOr',
    binary('eq', a, b),
    binary('logicalAnd', near, unary('isfinite', b)),
  )
  if (!equalNan) return close
  return binary('logicalOr', close, binary('logicalAnd', unary('isnan', a), unary('isnan', b)))
}
