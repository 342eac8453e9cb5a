/**
 * Errors follow one grammar: the op, what was expected, what came, as in
 * `matmul: expected inner sizes to agree, got [2, 3] x [4, 5]`.
 */
export class AdjointError extends Error {
  override name = 'AdjointError'
}

/** An argument has an impossible value. */
export class ArgumentError extends AdjointError {
  override name = 'ArgumentError'
}

/** A dtype does not fit the operation. */
export class DTypeError extends AdjointError {
  override name = 'DTypeError'
}

/** Shapes do not fit the operation or one another. */
export class ShapeError extends AdjointError {
  override name = 'ShapeError'
}

/** An axis or an index is out of its range. */
export class IndexError extends AdjointError {
  override name = 'IndexError'
}

/** A tensor is used after `dispose()`, or a graph after `backward()` has freed it. */
export class DisposedError extends AdjointError {
  override name = 'DisposedError'
}

/** Memory ran out; the message says who holds what. */
export class OutOfMemoryError extends AdjointError {
  override name = 'OutOfMemoryError'
}

/** A device is missing, failed, or is not the one that the other operands are on. */
export class DeviceError extends AdjointError {
  override name = 'DeviceError'
}

/** A step cannot be captured, or no longer be replayed. */
export class CaptureError extends AdjointError {
  override name = 'CaptureError'
}

/** A file is missing, broken or not what it claims to be; the message names it. */
export class FileError extends AdjointError {
  override name = 'FileError'
}

/** A rule of automatic differentiation was broken. */
export class AutogradError extends AdjointError {
  override name = 'AutogradError'
}

/** Checks an options object, which may be left out but not be null or a number. */
export function checkOptions(op: string, options: unknown): void {
  if (typeof options !== 'object' || options === null) {
    throw new ArgumentError(`${op}: expected an object of options, got ${describe(options)}`)
  }
}

/** Checks a function given by a user. */
export function checkFunction(op: string, f: unknown): void {
  if (typeof f !== 'function') {
    throw new ArgumentError(`${op}: expected a function, got ${describe(f)}`)
  }
}

/** Checks a finite number given by a user. */
export function checkNumber(name: string, what: string, value: unknown): number {
  if (!Number.isFinite(value)) {
    throw new ArgumentError(`${name}: expected a finite ${what}, got ${describe(value)}`)
  }
  return value as number
}

/** Checks a path given by a user. */
export function checkPath(op: string, path: unknown): void {
  if (typeof path !== 'string') {
    throw new ArgumentError(`${op}: expected a path, got ${describe(path)}`)
  }
}

/** Checks a list given by a user: an array, or with `iterable` whatever can be walked. */
export function checkList(op: string, what: string, list: unknown, iterable = false): void {
  // Nothing here is made of plain numbers, and a typed array may be detached.
  const isWalkable =
    typeof list === 'object' &&
    list !== null &&
    Symbol.iterator in list &&
    !ArrayBuffer.isView(list)
  if (iterable ? !isWalkable : !Array.isArray(list)) {
    throw new ArgumentError(`${op}: expected ${what}, got ${describe(list)}`)
  }
}

/** Checks an object by the methods that it is used through. */
export function checkMethods(
  op: string,
  what: string,
  object: unknown,
  methods: readonly string[],
): void {
  const isThere = (name: string) =>
    typeof (object as Record<string, unknown> | null)?.[name] === 'function'
  if (object === undefined || !methods.every(isThere)) {
    throw new ArgumentError(`${op}: expected ${what}, got ${describe(object)}`)
  }
}

/** What `value` is, for the end of a message; of arrays two levels. */
export function describe(value: unknown, levels = 2): string {
  if (typeof value === 'string') return JSON.stringify(value)
  if (typeof value === 'bigint') return `${value}n`
  if (typeof value === 'function') return 'a function'
  if (Array.isArray(value)) {
    if (levels === 0) return '[…]'
    const shown = value.slice(0, 8).map((item) => describe(item, levels - 1))
    return `[${shown.join(', ')}${value.length > 8 ? ', …' : ''}]`
  }
  if (typeof value === 'object' && value !== null) {
    return value.constructor?.name ? `a ${value.constructor.name}` : 'an object'
  }
  return String(value)
}
