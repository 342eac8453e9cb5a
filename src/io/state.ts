// Plain data with tensors in it, in one safetensors file: what torch.save is used for. The tensors
// are stored under their place in the data ("model.conv1.weight"), so other programs can read them;
// the data itself is JSON in the metadata, with { "$tensor": name } where a tensor stands and
// { "$number": "NaN" | "Infinity" | "-Infinity" | "-0" } and { "$bigint": digits } where JSON has no
// form. A key of the data that begins with "$" gets another "$" in front.
import type { DeviceLike } from '../core/device.js'
import { ArgumentError, checkOptions, checkPath, describe, FileError } from '../core/errors.js'
import { Tensor } from '../core/tensor.js'
import { readAll, saveSafetensors } from './safetensors.js'

/** What a state may be made of. */
export type State =
  | Tensor
  | string
  | number
  | bigint
  | boolean
  | null
  | readonly State[]
  | { readonly [key: string]: State }

const STATE_KEY = 'adjoint.state'
const KIND_KEY = 'adjoint.kind'
const VERSION_KEY = 'adjoint.version'

// Deeper data would overflow the stack.
const MAX_DEPTH = 500

/** What a file is for and in which version; a reader refuses others. */
export interface StateKind {
  readonly kind: string
  readonly version: number
}

function checkKind(op: string, what: StateKind): void {
  checkOptions(op, what)
  if (typeof what.kind !== 'string' || !Number.isSafeInteger(what.version)) {
    throw new ArgumentError(
      `${op}: expected a kind and a version, got ${describe([what.kind, what.version])}`,
    )
  }
}

/**
 * Writes a state, the whole file or nothing. Fields that are undefined are left out.
 * @throws ArgumentError when the state holds functions, class instances or cycles
 * @throws FileError when the file cannot be written
 */
export function saveState(path: string, what: StateKind, state: State): void {
  checkPath('saveState', path)
  checkKind('saveState', what)
  const { kind, version } = what
  const tensors = new Map<string, Tensor>()
  const json = JSON.stringify(encode(state, [], tensors, new Set()))
  const metadata = { [KIND_KEY]: kind, [VERSION_KEY]: String(version), [STATE_KEY]: json }
  saveSafetensors(path, tensors, { metadata })
}

/**
 * Reads a state of the given kind and version.
 * @throws FileError when the file is missing, broken, or of another kind or version
 */
export function loadState(
  path: string,
  what: StateKind,
  options: { device?: DeviceLike } = {},
): State {
  checkKind('loadState', what)
  checkOptions('loadState', options)
  const { kind, version } = what
  const { tensors, metadata } = readAll(path, options.device)
  const found = metadata.get(KIND_KEY)
  if (found !== kind) {
    throw new FileError(`${path}: is not ${kind}${found === undefined ? '' : `, but ${found}`}`)
  }
  if (metadata.get(VERSION_KEY) !== String(version)) {
    const got = describe(metadata.get(VERSION_KEY))
    throw new FileError(`${path}: expected version ${version} of ${kind}, got ${got}`)
  }
  let json: unknown
  try {
    json = JSON.parse(metadata.get(STATE_KEY) ?? '')
  } catch (error) {
    throw new FileError(`${path}: its state is broken`, { cause: error })
  }
  return decode(json, tensors, path, MAX_DEPTH)
}

type Json = string | number | boolean | null | Json[] | { [key: string]: Json }

function encode(
  value: unknown,
  place: readonly string[],
  tensors: Map<string, Tensor>,
  open: Set<object>,
): Json {
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return value
  if (typeof value === 'number') {
    // JSON has no minus zero either; String drops its sign.
    if (Number.isFinite(value) && !Object.is(value, -0)) return value
    return { $number: Object.is(value, -0) ? '-0' : String(value) }
  }
  if (typeof value === 'bigint') return { $bigint: String(value) }
  if (value instanceof Tensor) {
    const name = uniqueName(place.join('.'), tensors)
    tensors.set(name, value)
    return { $tensor: name }
  }
  if (place.length > MAX_DEPTH) {
    throw new ArgumentError(`saveState: expected at most ${MAX_DEPTH} levels, got more`)
  }
  const plain = Array.isArray(value) || isPlainObject(value)
  if (!plain || open.has(value as object)) {
    const what = plain ? 'a cycle' : describe(value)
    throw new ArgumentError(
      `saveState: expected plain data and tensors, got ${what} at ${place.join('.') || 'the top'}`,
    )
  }
  open.add(value as object)
  let result: Json
  if (Array.isArray(value)) {
    result = value.map((item, i) => encode(item, [...place, String(i)], tensors, open))
  } else {
    const fields = Object.entries(value as object).filter(([, field]) => field !== undefined)
    result = Object.fromEntries(
      fields.map(([key, field]) => [
        key.startsWith('$') ? `$${key}` : key,
        encode(field, [...place, key], tensors, open),
      ]),
    )
  }
  open.delete(value as object)
  return result
}

function decode(
  json: unknown,
  tensors: Readonly<Record<string, Tensor>>,
  path: string,
  levels: number,
): State {
  if (typeof json !== 'object' || json === null) return json as State
  if (levels < 0) throw new FileError(`${path}: its state has more than ${MAX_DEPTH} levels`)
  if (Array.isArray(json)) return json.map((item) => decode(item, tensors, path, levels - 1))
  const entries = Object.entries(json)
  if (entries.length === 1 && /^\$[^$]/.test(entries[0][0])) {
    return decodeSpecial(entries[0], tensors, path)
  }
  // fromEntries defines fields, so "__proto__" is one like any other.
  return Object.fromEntries(
    entries.map(([key, value]) => [
      key.startsWith('$') ? key.slice(1) : key,
      decode(value, tensors, path, levels - 1),
    ]),
  )
}

function decodeSpecial(
  [key, value]: [string, unknown],
  tensors: Readonly<Record<string, Tensor>>,
  path: string,
): State {
  if (typeof value === 'string') {
    if (key === '$number') return Number(value)
    if (key === '$bigint' && /^-?\d+$/.test(value)) return BigInt(value)
    if (key === '$tensor' && tensors[value]) return tensors[value]
  }
  throw new FileError(`${path}: its state is broken at ${describe(key)}: ${describe(value)}`)
}

// Keys with dots may put two tensors in one place.
function uniqueName(place: string, taken: ReadonlyMap<string, unknown>): string {
  let name = place || 'tensor'
  for (let n = 2; taken.has(name); n++) name = `${place}#${n}`
  return name
}

function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null) return false
  const prototype = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === null
}
