import { describe, expect, test } from 'vitest'
import {
  ArgumentError,
  arange,
  DTypeError,
  empty,
  emptyLike,
  eye,
  full,
  fullLike,
  linspace,
  ones,
  onesLike,
  ShapeError,
  tensor,
  zeros,
  zerosLike,
} from '../../src/index.js'
import { errorOf, values } from '../support/values.js'

describe('tensor', () => {
  test('from numbers float32, from bigint int64, from booleans bool', () => {
    expect(tensor([1, 2.5]).dtype).toBe('float32')
    expect(tensor([1n, 2n]).dtype).toBe('int64')
    expect(tensor([true, false]).dtype).toBe('bool')
    expect(tensor([1n, 2]).dtype).toBe('int64')
    expect(tensor([true, 2]).dtype).toBe('float32')
    expect(tensor([]).dtype).toBe('float32')
    expect(tensor(7).shape).toEqual([])
    expect(tensor([[[1], [2]]]).shape).toEqual([1, 2, 1])
    expect(tensor([[], []]).shape).toEqual([2, 0])
  })

  test('keeps every digit of the dtype asked for', () => {
    expect(tensor([0.1], { dtype: 'float64' }).item()).toBe(0.1)
    expect(tensor([2 ** 31 - 1], { dtype: 'int32' }).item()).toBe(2 ** 31 - 1)
    expect(tensor([2n ** 63n - 1n]).itemBigInt()).toBe(2n ** 63n - 1n)
    expect(tensor([2 ** 53 - 1], { dtype: 'int64' }).item()).toBe(2 ** 53 - 1)
    expect(tensor([16777217]).item()).toBe(16777216)
  })

  test.each([
    [Float32Array, 'float32'],
    [Float64Array, 'float64'],
    [Int32Array, 'int32'],
    [Int16Array, 'int16'],
    [Int8Array, 'int8'],
    [Uint8Array, 'uint8'],
    [Uint8ClampedArray, 'uint8'],
  ] as const)('from a %o, also a part of its buffer: a copy', (kind, dtype) => {
    const whole = kind.from([9, 1, 2, 3, 4, 9])
    const part = whole.subarray(1, 5)
    const t = tensor(part, { shape: [2, 2] })
    whole.fill(0)
    expect(t.dtype).toBe(dtype)
    expect(t.shape).toEqual([2, 2])
    expect(values(t)).toEqual([1, 2, 3, 4])
    expect(tensor(part, { dtype: 'float16' }).dtype).toBe('float16')
  })

  test('from a BigInt64Array, a Buffer, a SharedArrayBuffer and an empty array', () => {
    expect(tensor(BigInt64Array.of(-(2n ** 63n))).itemBigInt()).toBe(-(2n ** 63n))
    expect(values(tensor(Buffer.from([1, 255])))).toEqual([1, 255])
    const shared = new Float32Array(new SharedArrayBuffer(8)).fill(2)
    expect(values(tensor(shared))).toEqual([2, 2])
    expect(tensor(new Float32Array(0)).shape).toEqual([0])
  })

  test('as bool: everything but 0 is true, NaN too', () => {
    expect(tensor(Uint8Array.of(0, 1, 7), { dtype: 'bool' }).toArray()).toEqual([false, true, true])
    expect(tensor([0, NaN, -0, 0.5], { dtype: 'bool' }).toArray()).toEqual([
      false,
      true,
      false,
      true,
    ])
  })

  test('floats go to integers cut, kept within the range, NaN as 0', () => {
    const wide = [-3.9, 3.9, 1e10, -1e10, Infinity, -Infinity, NaN]
    expect(values(tensor(wide, { dtype: 'int32' }))).toEqual([
      -3, 3, 2147483647, -2147483648, 2147483647, -2147483648, 0,
    ])
    expect(values(tensor(wide, { dtype: 'uint8' }))).toEqual([0, 3, 255, 0, 255, 0, 0])
    expect(tensor([1e19, NaN], { dtype: 'float64' }).to('int64').toArray()).toEqual([
      2n ** 63n - 1n,
      0n,
    ])
  })

  test('refuses rows of unequal length, other kinds of arrays, and shapes that do not fit', () => {
    expect(errorOf(ShapeError, () => tensor([[1, 2], [3]]))).toBe(
      'tensor: expected rows of 2, got a row of 1',
    )
    expect(errorOf(ShapeError, () => tensor([[1, 2], 3]))).toMatch(/got 3$/)
    expect(errorOf(ShapeError, () => tensor([1, [2]]))).toMatch(
      /^tensor: expected numbers at depth 1/,
    )
    expect(errorOf(ShapeError, () => tensor(['1'] as never))).toMatch(/got "1"$/)
    expect(errorOf(DTypeError, () => tensor(new Uint16Array(2)))).toMatch(/Uint16Array/)
    expect(errorOf(DTypeError, () => tensor(new BigUint64Array(2)))).toMatch(/BigUint64Array/)
    expect(errorOf(DTypeError, () => tensor(new DataView(new ArrayBuffer(2)) as never))).toMatch(
      /DataView/,
    )
    expect(errorOf(ShapeError, () => tensor(new Float32Array(3), { shape: [2, 2] }))).toMatch(
      /expected 4 elements for shape \[2, 2\], got 3/,
    )
    expect(errorOf(DTypeError, () => tensor([1.5, 2n]))).toMatch(/whole numbers/)
    expect(errorOf(ArgumentError, () => tensor([2n ** 63n]))).toMatch(/range of int64/)
    const cyclic: unknown[] = []
    cyclic[0] = cyclic
    expect(errorOf(ShapeError, () => tensor(cyclic as never))).toMatch(/at most 8 axes/)
  })

  test('refuses an array whose buffer was detached', () => {
    const array = new Float32Array([1, 2])
    structuredClone(array.buffer, { transfer: [array.buffer] })
    expect(errorOf(ArgumentError, () => tensor(array))).toMatch(/detached/)
  })
})

describe('filled tensors', () => {
  test('zeros, ones, full, and their likes', () => {
    expect(values(zeros([2]))).toEqual([0, 0])
    expect(values(ones([2], { dtype: 'int8' }))).toEqual([1, 1])
    expect(full([2], 2n).dtype).toBe('int64')
    expect(full([1], true).dtype).toBe('bool')
    expect(full([1], 2.5, { dtype: 'int16' }).item()).toBe(2)
    expect(full([], 2n ** 62n).itemBigInt()).toBe(2n ** 62n)
    const x = zeros([3, 2], { dtype: 'float64' }).t()
    for (const f of [zerosLike, onesLike, emptyLike]) {
      expect([f(x).shape, f(x).dtype, f(x).isContiguous]).toEqual([[2, 3], 'float64', true])
    }
    expect(values(fullLike(x, 4, { dtype: 'uint8' }))).toEqual(new Array(6).fill(4))
    expect(empty([2, 3], { dtype: 'bool' }).numel).toBe(6)
    expect(ones([2], { requiresGrad: true }).isLeaf).toBe(true)
  })

  test('arange: int64 for whole numbers, float32 otherwise', () => {
    expect([arange(3).dtype, arange(0, 1, 0.5).dtype]).toEqual(['int64', 'float32'])
    expect(values(arange(2, 8, 3))).toEqual([2, 5])
    expect(values(arange(3, 0, -1))).toEqual([3, 2, 1])
    expect(arange(0).shape).toEqual([0])
    expect(values(arange(0, 3, 1, { dtype: 'uint8' }))).toEqual([0, 1, 2])
  })

  test('linspace meets both ends; eye', () => {
    const t = values(linspace(0, 1, 11, { dtype: 'float64' }))
    expect(t[10]).toBe(1)
    expect(t[5]).toBeCloseTo(0.5, 15)
    expect(values(linspace(5, 6, 1))).toEqual([5])
    expect(eye(2, 3).toArray()).toEqual([
      [1, 0, 0],
      [0, 1, 0],
    ])
    expect(eye(3, 2, { dtype: 'bool' }).toArray()).toEqual([
      [true, false],
      [false, true],
      [false, false],
    ])
  })
})
