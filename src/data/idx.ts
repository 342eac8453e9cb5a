// The IDX format of MNIST and its kin (Y. LeCun, "The MNIST database", file formats), big-endian:
//   2 bytes   0
//   1 byte    element type, see TYPES
//   1 byte    number of dimensions
//   4 bytes   each dimension, unsigned
//   the rest  the elements, row-major
// often gzip'd.
import { readFileSync } from 'node:fs'
import { gunzipSync, constants as zlib } from 'node:zlib'
import { checkPath, FileError } from '../core/errors.js'

export type IdxData = Uint8Array | Int8Array | Int16Array | Int32Array | Float32Array | Float64Array

export interface IdxArray {
  readonly shape: readonly number[]
  readonly data: IdxData
}

interface ElementType {
  readonly bytes: number
  readonly view: (buffer: ArrayBuffer) => IdxData
}

const TYPES: ReadonlyMap<number, ElementType> = new Map<number, ElementType>([
  [0x08, { bytes: 1, view: (b) => new Uint8Array(b) }],
  [0x09, { bytes: 1, view: (b) => new Int8Array(b) }],
  [0x0b, { bytes: 2, view: (b) => new Int16Array(b) }],
  [0x0c, { bytes: 4, view: (b) => new Int32Array(b) }],
  [0x0d, { bytes: 4, view: (b) => new Float32Array(b) }],
  [0x0e, { bytes: 8, view: (b) => new Float64Array(b) }],
])

// gzip's own magic number (RFC 1952).
const GZIP_MAGIC = [0x1f, 0x8b]
// DEFLATE emits at most 258 bytes for 2 bits, so nothing grows by more than this.
const MAX_INFLATION = 1032
// Enough compressed bytes to hold the longest header (4 + 4 · 255 bytes) after a gzip file name.
const PEEK_BYTES = 16_384
const MAX_HEADER_BYTES = 4 + 4 * 255

/**
 * Reads an IDX file, gzip'd or plain. Inflation stops at the size that the header states.
 * @throws FileError when the file is missing, cut short, too long, or no IDX file
 */
export function readIdx(path: string): IdxArray {
  checkPath('readIdx', path)
  const file = readFile(path)
  const gzipped = GZIP_MAGIC.every((byte, i) => file[i] === byte)
  const start = gzipped ? inflateStart(path, file) : file
  const { type, shape, headerBytes, elements } = readHeader(path, start)

  const wanted = headerBytes + elements * type.bytes
  if (wanted > file.length * (gzipped ? MAX_INFLATION : 1)) {
    throw new FileError(
      `${path}: is cut short: the header promises ${wanted} bytes, the file has ${file.length}`,
    )
  }
  const content = gzipped ? inflate(path, file, wanted) : file
  if (content.length !== wanted) {
    const what = content.length < wanted ? 'is cut short' : 'has bytes after its end'
    throw new FileError(`${path}: ${what}: expected ${wanted} bytes, got ${content.length}`)
  }
  return { shape, data: type.view(toNativeOrder(content.subarray(headerBytes), type.bytes)) }
}

function readFile(path: string): Uint8Array {
  try {
    return readFileSync(path)
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new FileError(`${path}: cannot be read (${reason})`, { cause: error })
  }
}

function readHeader(path: string, start: Uint8Array) {
  const view = new DataView(start.buffer, start.byteOffset, start.byteLength)
  if (start.length < 4) {
    throw new FileError(`${path}: is cut short: expected an IDX header, got ${start.length} bytes`)
  }
  const type = TYPES.get(start[2])
  if (start[0] !== 0 || start[1] !== 0 || type === undefined) {
    const magic = view.getUint32(0).toString(16).padStart(8, '0')
    throw new FileError(`${path}: is no IDX file: it begins with 0x${magic}`)
  }
  const headerBytes = 4 + 4 * start[3]
  if (start.length < headerBytes) {
    throw new FileError(
      `${path}: is cut short: expected a header of ${headerBytes} bytes, got ${start.length}`,
    )
  }
  const shape = Array.from({ length: start[3] }, (_, i) => view.getUint32(4 + 4 * i))
  // The zero first: the product of the others may be infinite.
  const elements = shape.includes(0) ? 0 : shape.reduce((a, b) => a * b, 1)
  return { type, shape, headerBytes, elements }
}

// The first bytes of the content; a file that is cut short gives what there is.
function inflateStart(path: string, file: Uint8Array): Uint8Array {
  const start = gunzip(path, file.subarray(0, PEEK_BYTES), {
    finishFlush: zlib.Z_SYNC_FLUSH,
    maxOutputLength: PEEK_BYTES * MAX_INFLATION,
  })
  return start.subarray(0, MAX_HEADER_BYTES)
}

function inflate(path: string, file: Uint8Array, wanted: number): Uint8Array {
  return gunzip(path, file, { maxOutputLength: wanted })
}

function gunzip(
  path: string,
  file: Uint8Array,
  options: { maxOutputLength: number; finishFlush?: number },
): Uint8Array {
  try {
    return gunzipSync(file, options)
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    const reason = error instanceof Error ? error.message : String(error)
    if (code === 'ERR_BUFFER_TOO_LARGE') {
      throw new FileError(`${path}: has bytes after its end: expected ${options.maxOutputLength}`)
    }
    if (code === 'Z_BUF_ERROR')
      throw new FileError(`${path}: is cut short (gzip)`, { cause: error })
    throw new FileError(`${path}: is no valid gzip file (${reason})`, { cause: error })
  }
}

// A copy at offset 0 (typed arrays want alignment), from big-endian to this machine's order.
function toNativeOrder(elements: Uint8Array, itemBytes: number): ArrayBuffer {
  const copy = Buffer.from(new ArrayBuffer(elements.length))
  copy.set(elements)
  const littleEndian = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1
  if (littleEndian && itemBytes === 2) copy.swap16()
  if (littleEndian && itemBytes === 4) copy.swap32()
  if (littleEndian && itemBytes === 8) copy.swap64()
  return copy.buffer
}
