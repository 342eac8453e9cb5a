import { ArgumentError, DTypeError, describe } from './errors.js'

/** Element types, by their codes (`native/shared/dtype.h`; part of file formats). */
export const dtypes = [
  'float32',
  'float64',
  'bfloat16',
  'float16',
  'int64',
  'int32',
  'int16',
  'int8',
  'uint8',
  'bool',
] as const

export type DType = (typeof dtypes)[number]
export type FloatDType = 'float32' | 'float64' | 'bfloat16' | 'float16'

export const dtypeCodes = Object.fromEntries(dtypes.map((d, code) => [d, code])) as Record<
  DType,
  number
>

const bytesPerElement: Record<DType, number> = {
  float32: 4,
  float64: 8,
  bfloat16: 2,
  float16: 2,
  int64: 8,
  int32: 4,
  int16: 2,
  int8: 1,
  uint8: 1,
  bool: 1,
}

/** Bytes of one element. */
export function itemSize(dtype: DType): number {
  return bytesPerElement[dtype]
}

export function isFloating(dtype: DType): dtype is FloatDType {
  return dtype === 'float32' || dtype === 'float64' || dtype === 'bfloat16' || dtype === 'float16'
}

/** bool < integers < floats: a weaker operand can raise the category, never the width. */
export function category(dtype: DType): 0 | 1 | 2 {
  return isFloating(dtype) ? 2 : dtype === 'bool' ? 0 : 1
}

export function checkDType(op: string, dtype: unknown): DType {
  if (typeof dtype === 'string' && Object.hasOwn(dtypeCodes, dtype)) return dtype as DType
  throw new DTypeError(`${op}: expected a dtype (${dtypes.join(', ')}), got ${describe(dtype)}`)
}

const integerWidth: Partial<Record<DType, number>> = { int64: 64, int32: 32, int16: 16, int8: 8 }

/** The dtype that holds both, as torch.promote_types. */
export function promoteTypes(a: DType, b: DType): DType {
  if (a === b) return a
  const ca = category(checkDType('promoteTypes', a))
  const cb = category(checkDType('promoteTypes', b))
  if (ca !== cb) return ca > cb ? a : b
  if (ca === 2) {
    if (a === 'float64' || b === 'float64') return 'float64'
    return 'float32' // float32 with a half type, or the two half types
  }
  if (a === 'uint8' || b === 'uint8') {
    const other = a === 'uint8' ? b : a
    return other === 'int8' ? 'int16' : other
  }
  return (integerWidth[a] ?? 0) > (integerWidth[b] ?? 0) ? a : b
}

interface Typed {
  readonly dtype: DType
  readonly shape: readonly number[]
}

/**
 * The dtype in which operands meet, as torch.result_type: tensors with axes come first, then
 * zero-dimensional ones, then numbers; a later group counts only if its category is higher. A
 * number without a fraction is an integer where it meets integers; otherwise it is float32.
 */
export function resultType(op: string, operands: readonly (Typed | number | bigint)[]): DType {
  let full: DType | null = null
  let scalar: DType | null = null
  let number: DType | null = null
  for (const x of operands) {
    if (typeof x === 'object') {
      if (x.shape.length > 0) full = full === null ? x.dtype : promoteTypes(full, x.dtype)
      else scalar = scalar === null ? x.dtype : promoteTypes(scalar, x.dtype)
    } else {
      const weak: DType = typeof x === 'bigint' || Number.isInteger(x) ? 'int64' : 'float32'
      number = number === null ? weak : promoteTypes(number, weak)
    }
  }
  let result = full
  for (const next of [scalar, number]) {
    if (next === null) continue
    if (result === null || category(next) > category(result)) result = next
  }
  if (result === null) throw new DTypeError(`${op}: expected operands, got none`)
  return result
}

/** A result of `from` may be written into a tensor of `to` only without losing its category. */
export function canCast(from: DType, to: DType): boolean {
  return category(from) <= category(to)
}

/** float32 for integers and bool, else itself: what sqrt, mean or division compute in. */
export function floatType(dtype: DType): FloatDType {
  return isFloating(dtype) ? dtype : 'float32'
}

const INT64_LIMIT = 2n ** 63n

/** A bigint that an int64 can hold. */
export function checkBigInt(op: string, x: bigint): bigint {
  if (x >= -INT64_LIMIT && x < INT64_LIMIT) return x
  throw new ArgumentError(`${op}: expected a bigint within the range of int64, got ${x}n`)
}
