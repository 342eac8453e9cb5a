import { describe, expect, test } from 'vitest'
import {
  ArgumentError,
  arange,
  DisposedError,
  type DType,
  DTypeError,
  full,
  OutOfMemoryError,
  ShapeError,
  tensor,
  zeros,
} from '../../src/index.js'
import { errorOf } from '../support/values.js'

const arrays: [DType, new (n: number) => ArrayLike<number | bigint>][] = [
  ['float32', Float32Array],
  ['float64', Float64Array],
  ['bfloat16', Float32Array],
  ['float16', Float32Array],
  ['int64', BigInt64Array],
  ['int32', Int32Array],
  ['int16', Int16Array],
  ['int8', Int8Array],
  ['uint8', Uint8Array],
  ['bool', Uint8Array],
]

describe.each(arrays)('%s', (dtype, kind) => {
  const t = () =>
    tensor(
      [
        [0, 1, 2],
        [3, 0, 1],
      ],
      { dtype },
    )
  const flat = dtype === 'bool' ? [0, 1, 1, 1, 0, 1] : [0, 1, 2, 3, 0, 1]
  const big = (v: number) => (dtype === 'int64' ? BigInt(v) : v)

  test('data and dataSync: row-major, of the kind for the dtype, new each time', async () => {
    const x = t()
    const array = await x.data()
    expect(array).toBeInstanceOf(kind)
    expect(Array.from(array as ArrayLike<number | bigint>, Number)).toEqual(flat)
    array[0] = big(9) as never
    expect(Number(x.dataSync()[0])).toBe(0)
  })

  test('of views: permuted, stepped, expanded, empty and zero-dimensional', () => {
    const x = t()
    const read = (y: typeof x) => Array.from(y.dataSync() as ArrayLike<number | bigint>, Number)
    const [a, b, c, d, e, f] = flat
    expect(read(x.t())).toEqual([a, d, b, e, c, f])
    expect(read(x.slice(1, 0, null, 2))).toEqual([a, c, d, f])
    expect(read(x.select(0, 1).expand([2, 3]))).toEqual([d, e, f, d, e, f])
    expect(read(x.slice(0, 1, 1))).toEqual([])
    expect(x.slice(0, 1, 1).dataSync()).toBeInstanceOf(kind)
    expect(read(x.select(0, 1).select(0, 2))).toEqual([f])
  })

  test('copyTo fills an array of the right kind and length, also a part of a larger buffer', () => {
    const buffer = new ArrayBuffer(8 * 16)
    const array = new (kind as Float64ArrayConstructor)(buffer, 16, 6)
    t().t().copyTo(array)
    const [a, b, c, d, e, f] = flat
    expect(Array.from(array, Number)).toEqual([a, d, b, e, c, f])
    expect(Array.from(new Uint8Array(buffer, 0, 16))).toEqual(new Array(16).fill(0))
    expect(
      errorOf(ArgumentError, () => t().copyTo(new (kind as never as Float32ArrayConstructor)(5))),
    ).toMatch(/^copyTo: expected a \w+ of 6 elements, got \w+ of 5$/)
    expect(errorOf(ArgumentError, () => t().copyTo(new Uint16Array(6) as never))).toMatch(
      /Uint16Array/,
    )
  })

  test('toArray nests as deep as there are axes', () => {
    const value = (v: number) => (dtype === 'bool' ? v !== 0 : big(v))
    expect(t().toArray()).toEqual([flat.slice(0, 3).map(value), flat.slice(3).map(value)])
    expect(t().select(0, 0).select(0, 1).toArray()).toEqual(value(1))
    expect(zeros([2, 0], { dtype }).toArray()).toEqual([[], []])
  })

  test('item and itemBigInt', () => {
    const one = t().select(0, 0).slice(0, 1, 2)
    expect(one.item()).toBe(1)
    if (dtype.includes('float'))
      expect(errorOf(DTypeError, () => one.itemBigInt())).toMatch(/^itemBigInt/)
    else expect(one.itemBigInt()).toBe(1n)
    expect(errorOf(ShapeError, () => t().item())).toBe(
      'item: expected one element, got shape [2, 3]',
    )
    expect(errorOf(ShapeError, () => t().itemBigInt())).toMatch(/^itemBigInt: expected one element/)
  })
})

describe('reading', () => {
  test('half types lose nothing on the way', () => {
    expect(tensor([65504, 2 ** -24, -0], { dtype: 'float16' }).dataSync()).toEqual(
      Float32Array.of(65504, 2 ** -24, -0),
    )
    expect(tensor([2 ** 127, 1.0078125], { dtype: 'bfloat16' }).dataSync()).toEqual(
      Float32Array.of(2 ** 127, 1.0078125),
    )
  })

  test('an int64 beyond 2^53 is exact as bigint and refused as number', () => {
    const big = 2n ** 62n + 1n
    const t = tensor([big])
    expect(t.itemBigInt()).toBe(big)
    expect(t.toArray()).toEqual([big])
    expect(errorOf(DTypeError, () => t.item())).toMatch(/4611686018427387905n; use itemBigInt\(\)$/)
    expect(full([1], 2 ** 53 - 1, { dtype: 'int64' }).item()).toBe(2 ** 53 - 1)
    expect(errorOf(DTypeError, () => tensor([-(2n ** 53n)]).item())).toMatch(/itemBigInt/)
  })

  test('properties', () => {
    const t = zeros([2, 3, 4]).permute([2, 0, 1])
    expect([t.shape, t.ndim, t.numel, t.length, t.isContiguous]).toEqual([
      [4, 2, 3],
      3,
      24,
      4,
      false,
    ])
    expect(zeros([2, 0, 4]).numel).toBe(0)
    expect(errorOf(ShapeError, () => zeros([]).length)).toMatch(/^length: expected/)
  })

  test('more elements than JavaScript can hold are refused', async () => {
    const many = zeros([1], { dtype: 'int8' }).expand([2 ** 28])
    expect(() => many.toArray()).toThrow(OutOfMemoryError)
    expect(() => many.expand([2 ** 8, 2 ** 28]).dataSync()).toThrow(OutOfMemoryError)
    await expect(many.expand([2 ** 8, 2 ** 28]).data()).rejects.toThrow(OutOfMemoryError)
    expect(() => many.unbind(0)).toThrow(OutOfMemoryError)
    expect(() => many.split(2)).toThrow(OutOfMemoryError)
    expect(many.chunk(2).map((part) => part.numel)).toEqual([2 ** 27, 2 ** 27])
  })

  test('of a disposed tensor is refused', async () => {
    const t = arange(3)
    const view = t.slice(0, 1)
    t.dispose()
    t.dispose()
    expect(t.isDisposed).toBe(true)
    expect(errorOf(DisposedError, () => t.dataSync())).toMatch(/^data: expected a live tensor/)
    await expect(t.data()).rejects.toThrow(DisposedError)
    expect(view.toArray()).toEqual([1n, 2n])
  })
})
