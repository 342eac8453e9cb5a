// Labelled 28 x 28 images as tensors: MNIST and what is published in its form, and our own digits.
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { DeviceLike } from '../core/device.js'
import { checkOptions, checkPath, FileError } from '../core/errors.js'
import { showShape } from '../core/shape.js'
import type { Tensor } from '../core/tensor.js'
import { tensor } from '../ops/index.js'
import { TensorDataset } from './dataset.js'
import { checkPart, DIGIT_SIZE, type DigitOptions, type DigitPart, drawDigits } from './digits.js'
import { type IdxArray, readIdx } from './idx.js'

/** Images uint8 [n, 1, 28, 28] and labels int64 [n]. */
export type ImageDataset = TensorDataset<[images: Tensor, labels: Tensor]>

const CLASSES = 10

/**
 * Reads one part of MNIST, Fashion-MNIST or another set of that form from a folder with the files
 * `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-…`, gzip'd (`.gz`) or not.
 * @throws FileError that names the file that is missing, broken or not as described
 */
export function loadMnist(
  folder: string,
  part: DigitPart,
  options: { device?: DeviceLike } = {},
): ImageDataset {
  checkPath('loadMnist', folder)
  checkPart('loadMnist', part)
  checkOptions('loadMnist', options)
  const prefix = part === 'train' ? 'train' : 't10k'
  const imagePath = find(folder, `${prefix}-images-idx3-ubyte`)
  const labelPath = find(folder, `${prefix}-labels-idx1-ubyte`)
  const images = readIdx(imagePath)
  const labels = readIdx(labelPath)
  expectBytes(imagePath, images, [-1, DIGIT_SIZE, DIGIT_SIZE])
  expectBytes(labelPath, labels, [images.shape[0]])
  const strange = labels.data.find((label) => label >= CLASSES)
  if (strange !== undefined) {
    throw new FileError(`${labelPath}: expected labels from 0 to ${CLASSES - 1}, got ${strange}`)
  }
  return toDataset(images.data as Uint8Array, labels.data as Uint8Array, options.device)
}

/** Digits that are drawn here and now; see `drawDigits`. */
export function syntheticDigits(
  part: DigitPart,
  options: DigitOptions & { device?: DeviceLike } = {},
): ImageDataset {
  const { images, labels } = drawDigits(part, options)
  return toDataset(images, labels, options.device)
}

function toDataset(images: Uint8Array, labels: Uint8Array, device?: DeviceLike): ImageDataset {
  const shape = [labels.length, 1, DIGIT_SIZE, DIGIT_SIZE]
  return new TensorDataset([
    tensor(images, { shape, device }),
    tensor(BigInt64Array.from(labels, BigInt), { device }),
  ])
}

// The gzip'd file, as published, or the unpacked one; if neither is there, the first is missing.
function find(folder: string, name: string): string {
  const published = join(folder, `${name}.gz`)
  const unpacked = join(folder, name)
  return !existsSync(published) && existsSync(unpacked) ? unpacked : published
}

// Sizes below 0 stand for any.
function expectBytes(path: string, { data, shape }: IdxArray, expected: readonly number[]): void {
  const fits =
    shape.length === expected.length && shape.every((n, i) => expected[i] < 0 || n === expected[i])
  if (!(data instanceof Uint8Array) || !fits) {
    const wanted = expected.map((n) => (n < 0 ? 'n' : n)).join(', ')
    throw new FileError(
      `${path}: expected bytes of shape [${wanted}], got ${data.constructor.name} of ` +
        showShape(shape),
    )
  }
}
