// safetensors files as raw bytes; src/io/safetensors.ts makes tensors of them.
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { ArgumentError, checkOptions, checkPath, describe, FileError } from '../core/errors.js'
import { reasonOf, writeFileAtomic } from './atomic.js'
import {
  encodeHeader,
  HeaderOffence,
  headerLength,
  ITEM_BYTES,
  LENGTH_BYTES,
  parseHeader,
  type SafetensorsDType,
  type SafetensorsHeader,
  type TensorInfo,
  tensorBytes,
} from './safetensors-header.js'

/** A tensor as the format knows it: dense, row-major, little-endian. */
export interface RawTensor {
  readonly dtype: SafetensorsDType
  readonly shape: readonly number[]
  readonly bytes: Uint8Array
}

// Linux reads at most 2^31 - 4096 bytes per call.
const CHUNK_BYTES = 1 << 30

/**
 * An open file whose header has been checked in full; the tensors are read one at a time, so that
 * a file larger than memory can be used in parts.
 * @throws FileError (constructor) when the file is missing, unreadable or breaks the format
 */
export class SafetensorsFile implements Disposable {
  readonly metadata: ReadonlyMap<string, string>
  readonly tensors: ReadonlyMap<string, TensorInfo>
  private readonly fd: number
  private readonly dataStart: number
  private isClosed = false

  constructor(readonly path: string) {
    checkPath('SafetensorsFile', path)
    this.fd = readable(path, () => openSync(path, 'r'))
    try {
      const status = readable(path, () => fstatSync(this.fd))
      if (!status.isFile()) throw new FileError(`${path}: is not a file`)
      const { header, dataStart } = this.readHeader(status.size)
      this.metadata = header.metadata
      this.tensors = header.tensors
      this.dataStart = dataStart
    } catch (error) {
      this.close()
      throw error
    }
  }

  /**
   * The bytes of one tensor, in a buffer of their own (so any typed array may view them).
   * @throws ArgumentError when the file has no tensor of that name, or is closed
   */
  read(name: string): RawTensor {
    if (this.isClosed) {
      throw new ArgumentError(`${this.path}: expected an open file, got a closed one`)
    }
    const info = this.tensors.get(name)
    if (info === undefined) {
      throw new ArgumentError(`${this.path}: expected the name of a tensor, got ${describe(name)}`)
    }
    const bytes = this.readBytes(this.dataStart + info.begin, info.end - info.begin)
    return { dtype: info.dtype, shape: info.shape, bytes }
  }

  close(): void {
    // Its number may be another file's by now.
    if (this.isClosed) return
    this.isClosed = true
    closeSync(this.fd)
  }

  [Symbol.dispose](): void {
    this.close()
  }

  private readHeader(fileBytes: number): { header: SafetensorsHeader; dataStart: number } {
    try {
      const prefix = this.readBytes(0, Math.min(LENGTH_BYTES, fileBytes))
      const length = headerLength(prefix, fileBytes)
      const dataStart = LENGTH_BYTES + length
      const json = this.readBytes(LENGTH_BYTES, length)
      return { header: parseHeader(json, fileBytes - dataStart), dataStart }
    } catch (error) {
      if (error instanceof HeaderOffence) throw new FileError(`${this.path}: ${error.message}`)
      throw error
    }
  }

  private readBytes(position: number, length: number): Uint8Array {
    return readable(this.path, () => {
      const bytes = new Uint8Array(length)
      for (let done = 0; done < length; ) {
        const wanted = Math.min(CHUNK_BYTES, length - done)
        const got = readSync(this.fd, bytes, done, wanted, position + done)
        if (got === 0) throw new FileError(`${this.path}: became shorter while it was read`)
        done += got
      }
      return bytes
    })
  }
}

/** Reads a whole file. The maps keep the order of the file's header. */
export function readSafetensorsFile(path: string): {
  tensors: Map<string, RawTensor>
  metadata: ReadonlyMap<string, string>
} {
  const file = new SafetensorsFile(path)
  try {
    const tensors = new Map<string, RawTensor>()
    for (const name of file.tensors.keys()) tensors.set(name, file.read(name))
    return { tensors, metadata: file.metadata }
  } finally {
    file.close()
  }
}

function checkMap(what: string, map: unknown): void {
  if (!(map instanceof Map)) {
    throw new ArgumentError(`writeSafetensorsFile: expected a Map of ${what}, got ${describe(map)}`)
  }
}

/**
 * Writes a whole file or nothing. `bytes` of each tensor is read once, when its turn comes, so a
 * getter may fetch it from a device. Tensors are laid out by falling element size (then as given),
 * which keeps each aligned to its elements.
 * @throws FileError when the file cannot be written
 * @throws ArgumentError when a tensor's bytes are not those of its shape, or a name is reserved
 */
export function writeSafetensorsFile(
  path: string,
  tensors: ReadonlyMap<string, RawTensor>,
  metadata: ReadonlyMap<string, string> = new Map(),
): void {
  checkPath('writeSafetensorsFile', path)
  checkMap('tensors', tensors)
  checkMap('metadata', metadata)
  for (const [name, tensor] of tensors) {
    checkOptions(`${path}: tensor '${name}'`, tensor)
  }
  const ordered = [...tensors].sort(([, a], [, b]) => ITEM_BYTES[b.dtype] - ITEM_BYTES[a.dtype])
  let end = 0
  const infos = ordered.map(([name, { dtype, shape }]): [string, TensorInfo] => {
    const possible =
      typeof dtype === 'string' &&
      Object.hasOwn(ITEM_BYTES, dtype) &&
      Array.isArray(shape) &&
      shape.every((size) => Number.isSafeInteger(size) && size >= 0)
    const bytes = possible ? tensorBytes(dtype, shape) : undefined
    if (bytes === undefined) {
      throw new ArgumentError(
        `${path}: tensor '${name}' has the impossible shape ${describe(shape)} of ${describe(dtype)}`,
      )
    }
    const begin = end
    end += bytes
    return [name, { dtype, shape, begin, end }]
  })
  const header = checkedHeader(path, infos, metadata)
  writeFileAtomic(path, (append) => {
    append(header)
    for (const [i, [name, tensor]] of ordered.entries()) {
      const { begin, end } = infos[i][1]
      const bytes = tensor.bytes
      if (bytes?.length !== end - begin) {
        throw new ArgumentError(
          `${path}: tensor '${name}' of shape [${tensor.shape}]: expected ${end - begin} bytes, ` +
            `got ${bytes?.length}`,
        )
      }
      append(bytes)
    }
  })
}

function checkedHeader(
  path: string,
  infos: [string, TensorInfo][],
  metadata: ReadonlyMap<string, string>,
): Uint8Array {
  try {
    return encodeHeader(infos, metadata)
  } catch (error) {
    if (error instanceof HeaderOffence) throw new ArgumentError(`${path}: ${error.message}`)
    throw error
  }
}

// Runs a read and names the file where the system or the memory fails it.
function readable<T>(path: string, call: () => T): T {
  try {
    return call()
  } catch (error) {
    if (error instanceof FileError) throw error
    throw new FileError(`${path}: cannot be read (${reasonOf(error)})`, { cause: error })
  }
}
