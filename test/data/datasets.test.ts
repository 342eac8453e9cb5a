import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { FileError, ShapeError } from '../../src/core/errors.js'
import { DataLoader, loadMnist, syntheticDigits, TensorDataset } from '../../src/data/index.js'
import { ones, tensor } from '../../src/ops/index.js'

const MNIST = join(import.meta.dirname, '../../../shared/data/mnist')
const folder = mkdtempSync(join(tmpdir(), 'adjoint-mnist-'))
afterAll(() => rmSync(folder, { recursive: true }))

describe('TensorDataset', () => {
  const x = tensor([
    [0, 1],
    [2, 3],
    [4, 5],
  ])
  const y = tensor([10n, 11n, 12n])

  it('gives rows and batches of rows, in the order asked for', () => {
    const set = new TensorDataset([x, y])
    expect(set.length).toBe(3)
    const [row, label] = set.get(1)
    expect([row.toArray(), label.toArray()]).toEqual([[2, 3], 11n])
    const [rows, labels] = set.batch(Uint32Array.of(2, 0))
    expect(rows.toArray()).toEqual([
      [4, 5],
      [0, 1],
    ])
    expect(labels.toArray()).toEqual([12n, 10n])
  })

  it('refuses tensors of different lengths, or without axes', () => {
    expect(() => new TensorDataset([x, ones([2])])).toThrow(ShapeError)
    expect(() => new TensorDataset([tensor(1)])).toThrow(ShapeError)
  })

  it('goes through a loader with a transform', () => {
    const loader = new DataLoader(new TensorDataset([x, y]), {
      batchSize: 2,
      transform: ([a, b]) => [a.mul(2), b] as const,
    })
    const batches = [...loader].map(([a, b]) => [a.toArray(), b.toArray()])
    expect(batches).toEqual([
      [
        [
          [0, 2],
          [4, 6],
        ],
        [10n, 11n],
      ],
      [[[8, 10]], [12n]],
    ])
  })

  it('is stacked row by row by a loader where a data set has no batches of its own', () => {
    const set = { length: 2, get: (i: number) => [tensor([i, -i]), tensor(BigInt(i))] as const }
    const [[a, b]] = new DataLoader(set, { batchSize: 2 })
    expect([a.toArray(), b.toArray()]).toEqual([
      [
        [0, -0],
        [1, -1],
      ],
      [0n, 1n],
    ])
  })
})

describe('images', () => {
  it('draws digits as uint8 [n, 1, 28, 28] and int64 [n]', () => {
    const [images, labels] = syntheticDigits('test', { count: 30 }).tensors
    expect([images.dtype, images.shape]).toEqual(['uint8', [30, 1, 28, 28]])
    expect([labels.dtype, labels.shape]).toEqual(['int64', [30]])
    expect(labels.toArray().toString()).toBe(
      Array.from({ length: 30 }, (_, i) => i % 10).toString(),
    )
  })

  it.runIf(existsSync(MNIST))('reads MNIST, gzipped as published or unpacked', () => {
    const [images, labels] = loadMnist(MNIST, 'test').tensors
    expect([images.dtype, images.shape]).toEqual(['uint8', [10_000, 1, 28, 28]])
    expect([labels.dtype, labels.shape]).toEqual(['int64', [10_000]])
    expect(labels.slice(0, 0, 5).toArray()).toEqual([7n, 2n, 1n, 0n, 4n])
  })

  it('names the file that is missing or does not fit', () => {
    const load = () => loadMnist(folder, 'train')
    expect(load).toThrow(FileError)
    expect(load).toThrow(/train-images-idx3-ubyte\.gz: cannot be read \(ENOENT/)

    const images = join(folder, 'train-images-idx3-ubyte')
    const labels = join(folder, 'train-labels-idx1-ubyte')
    const header = (code: number, ...sizes: number[]) => {
      const bytes = Buffer.alloc(4 + 4 * sizes.length)
      bytes[2] = code
      bytes[3] = sizes.length
      for (const [i, size] of sizes.entries()) bytes.writeUInt32BE(size, 4 + 4 * i)
      return bytes
    }
    writeFileSync(images, Buffer.concat([header(8, 2, 28, 28), Buffer.alloc(2 * 784)]))
    expect(load).toThrow(/train-labels-idx1-ubyte\.gz: cannot be read/)
    writeFileSync(labels, Buffer.concat([header(8, 3), Buffer.of(1, 2, 3)]))
    expect(load).toThrow(`${labels}: expected bytes of shape [2], got Uint8Array of [3]`)
    writeFileSync(labels, Buffer.concat([header(8, 2), Buffer.of(1, 10)]))
    expect(load).toThrow(`${labels}: expected labels from 0 to 9, got 10`)
    writeFileSync(labels, Buffer.concat([header(8, 2), Buffer.of(1, 9)]))
    expect(load().length).toBe(2)
    writeFileSync(images, readFileSync(images).subarray(0, 100))
    expect(load).toThrow(`${images}: is cut short`)
    writeFileSync(images, Buffer.concat([header(8, 2, 4, 4), Buffer.alloc(32)]))
    expect(load).toThrow(/expected bytes of shape \[n, 28, 28\], got Uint8Array of \[2, 4, 4\]/)
  })
})
