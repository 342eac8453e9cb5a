// The header of the safetensors format (github.com/huggingface/safetensors, README):
//   8 bytes      N, the length of the header, unsigned little-endian
//   N bytes      JSON: { "name": { "dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24] }, …,
//                "__metadata__": { "key": "value" } }, padded with spaces
//   the rest     the data; offsets count from here, and every byte belongs to exactly one tensor
// Files come from strangers, so the JSON is read by a reader of just this grammar: it refuses
// duplicate keys, which JSON.parse would merge, and keeps keys in maps, where "__proto__" is a key
// like any other.

/** Bytes per element of each dtype string of the format that adjoint reads and writes. */
export const ITEM_BYTES = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U64: 8,
  U32: 4,
  U16: 2,
  U8: 1,
  BOOL: 1,
} as const

export type SafetensorsDType = keyof typeof ITEM_BYTES

export interface TensorInfo {
  readonly dtype: SafetensorsDType
  readonly shape: readonly number[]
  /** First byte and the byte after the last, from the start of the data. */
  readonly begin: number
  readonly end: number
}

export interface SafetensorsHeader {
  /** In the order of the file's header. */
  readonly tensors: ReadonlyMap<string, TensorInfo>
  readonly metadata: ReadonlyMap<string, string>
}

/** Bytes of the length field in front of the header. */
export const LENGTH_BYTES = 8
/** The format's own limit on the header, against files that would exhaust memory. */
export const MAX_HEADER_BYTES = 100_000_000

const METADATA_KEY = '__metadata__'

/** What is wrong with a header; the caller, who knows the file's name, makes a FileError of it. */
export class HeaderOffence extends Error {}

/**
 * The length N of the header, checked against the size of the file.
 * @throws HeaderOffence
 */
export function headerLength(prefix: Uint8Array, fileBytes: number): number {
  if (prefix.length < LENGTH_BYTES) {
    throw new HeaderOffence(`expected at least ${LENGTH_BYTES} bytes, got ${prefix.length}`)
  }
  const view = new DataView(prefix.buffer, prefix.byteOffset, LENGTH_BYTES)
  const length = view.getBigUint64(0, true)
  if (length > MAX_HEADER_BYTES) {
    throw new HeaderOffence(`expected a header of at most ${MAX_HEADER_BYTES} bytes, got ${length}`)
  }
  if (LENGTH_BYTES + Number(length) > fileBytes) {
    throw new HeaderOffence(
      `the header (${length} bytes) reaches beyond the end of the file (${fileBytes} bytes)`,
    )
  }
  return Number(length)
}

/**
 * Reads the JSON of a header and checks that the tensors cover `dataBytes` without gap or overlap.
 * @throws HeaderOffence
 */
export function parseHeader(json: Uint8Array, dataBytes: number): SafetensorsHeader {
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(json)
  } catch {
    throw new HeaderOffence('the header is not valid UTF-8')
  }
  const header = new HeaderReader(text).read()
  checkLayout(header.tensors, dataBytes)
  return header
}

/**
 * The header of a file that holds `tensors` in the order given, one after the other: length field
 * and JSON, padded so that the data starts at a multiple of 8.
 */
export function encodeHeader(
  tensors: Iterable<readonly [string, TensorInfo]>,
  metadata: ReadonlyMap<string, string>,
): Uint8Array {
  const members: string[] = []
  if (metadata.size > 0) {
    const pairs = Array.from(metadata, ([k, v]) => `${JSON.stringify(k)}:${JSON.stringify(v)}`)
    members.push(`"${METADATA_KEY}":{${pairs.join(',')}}`)
  }
  const names = new Set([METADATA_KEY])
  for (const [name, { dtype, shape, begin, end }] of tensors) {
    if (names.has(name)) {
      const what = name === METADATA_KEY ? 'is reserved by the format' : 'is there twice'
      throw new HeaderOffence(`the tensor name ${JSON.stringify(name)} ${what}`)
    }
    names.add(name)
    const info = { dtype, shape, data_offsets: [begin, end] }
    members.push(`${JSON.stringify(name)}:${JSON.stringify(info)}`)
  }
  const json = new TextEncoder().encode(`{${members.join(',')}}`)
  const length = Math.ceil(json.length / 8) * 8
  if (length > MAX_HEADER_BYTES) {
    throw new HeaderOffence(`expected a header of at most ${MAX_HEADER_BYTES} bytes, got ${length}`)
  }
  const header = new Uint8Array(LENGTH_BYTES + length).fill(0x20)
  new DataView(header.buffer).setBigUint64(0, BigInt(length), true)
  header.set(json, LENGTH_BYTES)
  return header
}

/** product(shape) × bytes per element, or undefined where that is no exact number. */
export function tensorBytes(dtype: SafetensorsDType, shape: readonly number[]): number | undefined {
  let bytes: number = ITEM_BYTES[dtype]
  for (const size of shape) {
    bytes *= size
    if (!Number.isSafeInteger(bytes)) return undefined
  }
  return bytes
}

function checkLayout(tensors: ReadonlyMap<string, TensorInfo>, dataBytes: number): void {
  const inOrder = [...tensors].sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end)
  let covered = 0
  for (const [name, { dtype, shape, begin, end }] of inOrder) {
    const tensor = `tensor ${JSON.stringify(name)}`
    const offsets = `data_offsets [${begin}, ${end}]`
    if (begin > end || end > dataBytes) {
      throw new HeaderOffence(`${tensor}: ${offsets} are outside the ${dataBytes} bytes of data`)
    }
    if (tensorBytes(dtype, shape) !== end - begin) {
      const want = tensorBytes(dtype, shape) ?? 'more than 2^53'
      throw new HeaderOffence(
        `${tensor}: ${dtype} of shape [${shape}] has ${want} bytes, got ${offsets}`,
      )
    }
    if (begin !== covered) {
      const what = begin < covered ? 'overlap the tensor before' : 'leave a gap before them'
      throw new HeaderOffence(`${tensor}: ${offsets} ${what} (expected to begin at ${covered})`)
    }
    covered = end
  }
  if (covered !== dataBytes) {
    throw new HeaderOffence(`the tensors end at byte ${covered} of ${dataBytes} bytes of data`)
  }
}

class HeaderReader {
  private at = 0

  constructor(private readonly text: string) {}

  read(): SafetensorsHeader {
    const tensors = new Map<string, TensorInfo>()
    let metadata = new Map<string, string>()
    // The format wants '{' as the very first byte; members() would skip blanks.
    if (this.text[0] !== '{') this.fail("'{'")
    this.members((key) => {
      if (key === METADATA_KEY) metadata = this.metadata()
      else tensors.set(key, this.tensor(key))
    })
    this.skipBlanks()
    if (this.at < this.text.length) this.fail('the end of the header')
    return { tensors, metadata }
  }

  private metadata(): Map<string, string> {
    const pairs = new Map<string, string>()
    this.members((key) => pairs.set(key, this.string()))
    return pairs
  }

  private tensor(name: string): TensorInfo {
    let dtype: string | undefined
    let shape: number[] | undefined
    let offsets: number[] | undefined
    this.members((key) => {
      if (key === 'dtype') dtype = this.string()
      else if (key === 'shape') shape = this.integers()
      else if (key === 'data_offsets') offsets = this.integers()
      else this.offend(name, `has an unknown field ${JSON.stringify(key)}`)
    })
    if (dtype === undefined) this.offend(name, 'has no dtype')
    if (shape === undefined) this.offend(name, 'has no shape')
    if (offsets === undefined) this.offend(name, 'has no data_offsets')
    if (!isDType(dtype)) this.offend(name, `has the unknown dtype ${JSON.stringify(dtype)}`)
    if (offsets.length !== 2) this.offend(name, `has ${offsets.length} data_offsets, expected 2`)
    return { dtype, shape, begin: offsets[0], end: offsets[1] }
  }

  // '{' string ':' member (',' string ':' member)* '}'
  private members(member: (key: string) => void): void {
    const seen = new Set<string>()
    this.expect('{')
    if (this.accept('}')) return
    do {
      const key = this.string()
      if (seen.has(key)) throw new HeaderOffence(`the key ${JSON.stringify(key)} is there twice`)
      seen.add(key)
      this.expect(':')
      member(key)
    } while (this.accept(','))
    this.expect('}')
  }

  private integers(): number[] {
    const values: number[] = []
    this.expect('[')
    if (this.accept(']')) return values
    do {
      values.push(this.integer())
    } while (this.accept(','))
    this.expect(']')
    return values
  }

  private integer(): number {
    this.skipBlanks()
    const literal = /-?\d[\d.eE+-]*/y
    literal.lastIndex = this.at
    const digits = literal.exec(this.text)?.[0] ?? ''
    const value = Number(digits)
    if (!/^(0|[1-9]\d*)$/.test(digits) || !Number.isSafeInteger(value)) {
      this.fail('an integer from 0 to 2^53 - 1')
    }
    this.at += digits.length
    return value
  }

  private string(): string {
    this.skipBlanks()
    if (this.text[this.at] !== '"') this.fail('a string')
    let end = this.at + 1
    while (end < this.text.length && this.text[end] !== '"') end += this.text[end] === '\\' ? 2 : 1
    const literal = this.text.slice(this.at, end + 1)
    try {
      const value: string = JSON.parse(literal)
      this.at = end + 1
      return value
    } catch {
      return this.fail('a string')
    }
  }

  private skipBlanks(): void {
    while (' \t\r\n'.includes(this.text[this.at] ?? 'end')) this.at++
  }

  private accept(character: string): boolean {
    this.skipBlanks()
    if (this.text[this.at] !== character) return false
    this.at++
    return true
  }

  private expect(character: string): void {
    if (!this.accept(character)) this.fail(`'${character}'`)
  }

  private offend(name: string, what: string): never {
    throw new HeaderOffence(`tensor ${JSON.stringify(name)} ${what}`)
  }

  private fail(expected: string): never {
    const rest = this.text.slice(this.at, this.at + 20)
    const got = rest === '' ? 'its end' : JSON.stringify(rest)
    throw new HeaderOffence(`the header is broken: expected ${expected} at ${this.at}, got ${got}`)
  }
}

function isDType(text: string): text is SafetensorsDType {
  return Object.hasOwn(ITEM_BYTES, text)
}
