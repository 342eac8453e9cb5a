import type { BinaryOpcode, UnaryOpcode } from '../bindings/opcodes.js'
import { checkDType, type DType, isFloating } from '../core/dtype.js'
import { ArgumentError, DTypeError, describe } from '../core/errors.js'
import type { Value } from '../core/op.js'
import { Tensor } from '../core/tensor.js'
import { binary, binaryInPlace, unary, unaryInPlace } from './elementwise.js'

/** What an operand may be: a boolean counts as 0 or 1 of dtype bool. */
export type Operand = Value | boolean

function checkTensor(op: string, x: unknown): Tensor {
  if (x instanceof Tensor) return x
  throw new ArgumentError(`${op}: expected a tensor, got ${describe(x)}`)
}

function checkOperand(op: string, x: Operand): Value {
  if (x instanceof Tensor || typeof x === 'number' || typeof x === 'bigint') return x
  if (typeof x === 'boolean') return Number(x)
  throw new ArgumentError(`${op}: expected a tensor or a number, got ${describe(x)}`)
}

const f =
  (name: UnaryOpcode) =>
  (x: Tensor): Tensor =>
    unary(name, checkTensor(name, x))

const f_ =
  (name: UnaryOpcode) =>
  (x: Tensor): Tensor =>
    unaryInPlace(name, checkTensor(name, x))

type Binary = (a: Tensor | number | bigint, b: Operand) => Tensor

const g =
  (name: BinaryOpcode): Binary =>
  (a, b) =>
    binary(name, checkOperand(name, a), checkOperand(name, b))

const g_ =
  (name: BinaryOpcode) =>
  (a: Tensor, b: Operand): Tensor =>
    binaryInPlace(name, checkTensor(`${name}_`, a), checkOperand(`${name}_`, b))

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

/** x within [low, high]; either bound may be left out. NaN stays. */
export function clamp(
  x: Tensor,
  low?: number | Tensor | null,
  high?: number | Tensor | null,
): Tensor {
  let y = checkTensor('clamp', x)
  if (low !== undefined && low !== null) y = binary('maximum', y, low)
  if (high !== undefined && high !== null) y = binary('minimum', y, high)
  return y
}

/** The part after the decimal point: x - trunc(x). */
export function frac(x: Tensor): Tensor {
  return binary('sub', x, unary('trunc', x))
}

/** x Φ(x), or with `approximate: 'tanh'` its approximation (Hendrycks & Gimpel 2016). */
export function gelu(x: Tensor, options: { approximate?: 'none' | 'tanh' } = {}): Tensor {
  return unary(options.approximate === 'tanh' ? 'geluTanh' : 'gelu', checkTensor('gelu', x))
}

/** Whether elements agree within |a - b| <= atol + rtol |b|, as bool. */
export function isclose(
  a: Tensor,
  b: Tensor,
  options: { rtol?: number; atol?: number; equalNan?: boolean } = {},
): Tensor {
  const bound = binary(
    'add',
    binary('mul', unary('abs', b), options.rtol ?? 1e-5),
    options.atol ?? 1e-8,
  )
  const near = binary('le', unary('abs', binary('sub', a, b)), bound)
  const close = binary(
    'logicalOr',
    binary('eq', a, b),
    binary('logicalAnd', near, unary('isfinite', b)),
  )
  if (!options.equalNan) return close
  return binary('logicalOr', close, binary('logicalAnd', unary('isnan', a), unary('isnan', b)))
}

/** @internal */
export function checkFloating(op: string, dtype: DType): void {
  if (!isFloating(checkDType(op, dtype))) {
    throw new DTypeError(`${op}: expected a floating dtype, got ${dtype}`)
  }
}
