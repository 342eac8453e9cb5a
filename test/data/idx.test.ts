import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterAll, describe, expect, it } from 'vitest'
import { FileError } from '../../src/core/errors.js'
import { readIdx } from '../../src/data/idx.js'

const folder = mkdtempSync(join(tmpdir(), 'adjoint-idx-'))
afterAll(() => rmSync(folder, { recursive: true }))

const MNIST = join(import.meta.dirname, '../../../shared/data/mnist')

function idx(code: number, shape: number[], elements: Uint8Array): Buffer {
  const header = Buffer.alloc(4 + 4 * shape.length)
  header[2] = code
  header[3] = shape.length
  for (const [i, size] of shape.entries()) header.writeUInt32BE(size, 4 + 4 * i)
  return Buffer.concat([header, elements])
}

function made(content: Uint8Array): string {
  const path = join(folder, 'made.idx')
  writeFileSync(path, content)
  return path
}

describe('every element type, plain and gzipped', () => {
  const values = [0, 1, 100, -3, -128, 127]
  const types: [number, string, number, (view: DataView, at: number, v: number) => void][] = [
    [0x08, 'Uint8Array', 1, (view, at, v) => view.setUint8(at, v)],
    [0x09, 'Int8Array', 1, (view, at, v) => view.setInt8(at, v)],
    [0x0b, 'Int16Array', 2, (view, at, v) => view.setInt16(at, v * 200)],
    [0x0c, 'Int32Array', 4, (view, at, v) => view.setInt32(at, v * 10_000_000)],
    [0x0d, 'Float32Array', 4, (view, at, v) => view.setFloat32(at, v / 8)],
    [0x0e, 'Float64Array', 8, (view, at, v) => view.setFloat64(at, v / 3)],
  ]
  const scale: Record<string, (v: number) => number> = {
    Uint8Array: (v) => v & 255,
    Int8Array: (v) => v,
    Int16Array: (v) => v * 200,
    Int32Array: (v) => v * 10_000_000,
    Float32Array: (v) => v / 8,
    Float64Array: (v) => v / 3,
  }
  it.each(types)('0x%s is a %s', (code, name, bytes, set) => {
    const view = new DataView(new ArrayBuffer(values.length * bytes))
    for (const [i, v] of values.entries()) set(view, i * bytes, v)
    const plain = idx(code, [2, 3], new Uint8Array(view.buffer))
    for (const content of [plain, gzipSync(plain)]) {
      const { shape, data } = readIdx(made(content))
      expect(shape).toEqual([2, 3])
      expect(data.constructor.name).toBe(name)
      expect(Array.from(data)).toEqual(values.map(scale[name]))
    }
  })

  it('shapes of no dimension and of no element', () => {
    expect(readIdx(made(idx(8, [], Uint8Array.of(7))))).toEqual({
      shape: [],
      data: Uint8Array.of(7),
    })
    const huge = Array(255).fill(0xffffffff)
    const empty = idx(8, [...huge.slice(1), 0], new Uint8Array())
    expect(readIdx(made(empty)).data.length).toBe(0)
    expect(readIdx(made(gzipSync(empty))).data.length).toBe(0)
  })
})

describe('broken files name themselves and the offence', () => {
  const good = idx(8, [2, 3], Uint8Array.of(1, 2, 3, 4, 5, 6))
  let state = 1
  const noise = Uint8Array.from({ length: 3000 }, () => {
    state = Math.imul(state, 1664525) + 1013904223
    return state >>> 24
  })
  const zipped = gzipSync(idx(8, [3000], noise))
  const flipped = Buffer.from(zipped)
  flipped[1500] ^= 0xff
  const badSum = Buffer.from(zipped)
  badSum[badSum.length - 8] ^= 1
  const cases: [string, Uint8Array, RegExp][] = [
    ['empty', Buffer.alloc(0), /expected an IDX header, got 0 bytes/],
    ['no IDX', Buffer.from('P5 28 28'), /is no IDX file: it begins with 0x50352032/],
    ['an unknown type', Buffer.of(0, 0, 0x0a, 1, 0, 0, 0, 0), /begins with 0x00000a01/],
    ['a header cut short', good.subarray(0, 11), /expected a header of 12 bytes, got 11/],
    ['data cut short', good.subarray(0, 17), /is cut short: .* 18 bytes, the file has 17/],
    ['data left over', Buffer.concat([good, Buffer.of(0)]), /has bytes after its end: .* got 19/],
    ['a huge promise', idx(8, Array(255).fill(0xffffffff), noise), /promises Infinity bytes/],
    ['gzip cut short', zipped.subarray(0, 2000), /is cut short \(gzip\)/],
    ['gzip of a file cut short', gzipSync(good.subarray(0, 17)), /expected 18 bytes, got 17/],
    ['gzip with data left over', gzipSync(Buffer.concat([good, noise])), /bytes after its end/],
    ['gzip of nothing', gzipSync(''), /got 0 bytes/],
    ['gzip damaged', flipped, /is no valid gzip file/],
    ['gzip with a wrong sum', badSum, /is no valid gzip file \(incorrect data check\)/],
    ['gzip bomb', gzipSync(idx(8, [16], Buffer.alloc(50_000_000))), /bytes after its end/],
    ['gzip with a huge promise', gzipSync(idx(8, [4e9, 4e9], noise)), /is cut short/],
  ]
  it.each(cases)('%s', (_, content, message) => {
    const path = made(content)
    const read = () => readIdx(path)
    expect(read).toThrow(FileError)
    expect(read).toThrow(message)
    expect(read).toThrow(path)
  })

  it('missing', () => {
    const read = () => readIdx(join(folder, 'none-idx3-ubyte.gz'))
    expect(read).toThrow(FileError)
    expect(read).toThrow(/none-idx3-ubyte.gz: cannot be read \(ENOENT/)
  })
})

describe.runIf(existsSync(MNIST))('MNIST', () => {
  it.each([
    ['train', 60_000],
    ['t10k', 10_000],
  ])('%s has its published counts', (part, n) => {
    const images = readIdx(join(MNIST, `${part}-images-idx3-ubyte.gz`))
    const labels = readIdx(join(MNIST, `${part}-labels-idx1-ubyte.gz`))
    expect(images.shape).toEqual([n, 28, 28])
    expect(labels.shape).toEqual([n])
    expect(Array.from(labels.data.subarray(0, 5))).toEqual(
      part === 'train' ? [5, 0, 4, 1, 9] : [7, 2, 1, 0, 4],
    )
    expect(new Set(labels.data).size).toBe(10)
    if (part === 'train') {
      // The mean and deviation that everyone normalises with.
      let sum = 0
      for (const v of images.data) sum += v
      expect(sum / images.data.length / 255).toBeCloseTo(0.1307, 4)
    }
  })
})
