// Tensors in safetensors files.
import { bytesOf, tensorFromBytes } from '../core/bytes.js'
import { type DeviceLike, defaultDevice, device as findDevice } from '../core/device.js'
import type { DType } from '../core/dtype.js'
import { ArgumentError, checkOptions, checkPath, describe, FileError } from '../core/errors.js'
import { MAX_DIMS, showShape } from '../core/shape.js'
import { Tensor } from '../core/tensor.js'
import { type RawTensor, SafetensorsFile, writeSafetensorsFile } from './safetensors-file.js'
import type { SafetensorsDType } from './safetensors-header.js'

const FILE_DTYPES: Record<DType, SafetensorsDType> = {
  float32: 'F32',
  float64: 'F64',
  bfloat16: 'BF16',
  float16: 'F16',
  int64: 'I64',
  int32: 'I32',
  int16: 'I16',
  int8: 'I8',
  uint8: 'U8',
  bool: 'BOOL',
}

const TENSOR_DTYPES = new Map<SafetensorsDType, DType>(
  Object.entries(FILE_DTYPES).map(([dtype, code]) => [code, dtype as DType]),
)

/**
 * Writes tensors under their names, with texts as metadata; the whole file or nothing.
 * @throws FileError when the file cannot be written
 */
export function saveSafetensors(
  path: string,
  tensors: Readonly<Record<string, Tensor>> | ReadonlyMap<string, Tensor>,
  options: { metadata?: Readonly<Record<string, string>> } = {},
): void {
  checkPath('saveSafetensors', path)
  checkOptions('saveSafetensors', tensors)
  checkOptions('saveSafetensors', options)
  const entries = tensors instanceof Map ? [...tensors] : Object.entries(tensors)
  const raw = new Map<string, RawTensor>()
  for (const [name, t] of entries) {
    if (!(t instanceof Tensor)) {
      throw new ArgumentError(
        `saveSafetensors: expected a tensor as ${describe(name)}, got ${describe(t)}`,
      )
    }
    t.checkLive('saveSafetensors')
    raw.set(name, new TensorBytes(t))
  }
  const metadata = new Map(Object.entries(options.metadata ?? {}))
  for (const [key, value] of metadata) {
    if (typeof value !== 'string') {
      throw new ArgumentError(
        `saveSafetensors: expected a text as metadata ${describe(key)}, got ${describe(value)}`,
      )
    }
  }
  writeSafetensorsFile(path, raw, metadata)
}

/**
 * Reads all tensors of a file, by name, onto a device (default: the default device).
 * @throws FileError when the file is missing, breaks the format or holds a dtype or a shape that
 * tensors do not have
 */
export function loadSafetensors(
  path: string,
  options: { device?: DeviceLike } = {},
): Record<string, Tensor> {
  checkOptions('loadSafetensors', options)
  return readAll(path, options.device).tensors
}

/** The texts that were saved beside the tensors. @throws FileError */
export function loadSafetensorsMetadata(path: string): Record<string, string> {
  const file = new SafetensorsFile(path)
  file.close()
  return Object.fromEntries(file.metadata)
}

/** Tensors and metadata of a file that is read once. */
export function readAll(
  path: string,
  device?: DeviceLike,
): { tensors: Record<string, Tensor>; metadata: ReadonlyMap<string, string> } {
  const file = new SafetensorsFile(path)
  try {
    // Without a prototype, a tensor may have any name.
    const tensors: Record<string, Tensor> = Object.create(null)
    for (const name of file.tensors.keys()) tensors[name] = readTensor(file, name, device)
    return { tensors, metadata: file.metadata }
  } finally {
    file.close()
  }
}

function readTensor(file: SafetensorsFile, name: string, device?: DeviceLike): Tensor {
  const { dtype: code, shape, bytes } = file.read(name)
  const dtype = TENSOR_DTYPES.get(code)
  if (dtype === undefined) {
    throw new FileError(`${file.path}: tensor ${describe(name)}: no tensor can hold dtype ${code}`)
  }
  if (shape.length > MAX_DIMS) {
    throw new FileError(
      `${file.path}: tensor ${describe(name)}: expected at most ${MAX_DIMS} axes, got shape ` +
        showShape(shape),
    )
  }
  // Kernels rely on 0 and 1.
  if (dtype === 'bool') for (let i = 0; i < bytes.length; i++) bytes[i] = bytes[i] === 0 ? 0 : 1
  const to = device === undefined ? defaultDevice() : findDevice(device)
  return tensorFromBytes(bytes, dtype, shape, to)
}

/** The elements are fetched when the writer comes to them, so one tensor at a time is in memory. */
class TensorBytes implements RawTensor {
  readonly dtype: SafetensorsDType
  readonly shape: readonly number[]

  constructor(private readonly tensor: Tensor) {
    this.dtype = FILE_DTYPES[tensor.dtype]
    this.shape = tensor.shape
  }

  get bytes(): Uint8Array {
    return bytesOf(this.tensor.contiguous())
  }
}
