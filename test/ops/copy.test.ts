import { describe, expect, test } from 'vitest'
import { cast, type DType, DTypeError, ShapeError, type Tensor, tensor } from '../../src/index.js'
import { dense, expectExact, laidOut, layouts } from '../support/layouts.js'
import * as ref from '../support/reference.js'
import { Random } from '../support/sampler.js'
import { errorOf, values } from '../support/values.js'

const dtypes: DType[] = [
  ...[
    'float32',
    'float64',
    'bfloat16',
    'float16',
    'int64',
    'int32',
    'int16',
    'int8',
    'uint8',
    'bool',
  ],
] as DType[]

/** Numbers that a dtype holds, its ends among them. */
function valuesOf(dtype: DType): ref.Num[] {
  const random = new Random(1)
  if (dtype === 'bool') return [0, 1, 1, 0]
  if (ref.isInteger(dtype)) {
    const { bits, signed } = ref.integerFormats[dtype]
    const ends = signed
      ? [-(2n ** BigInt(bits - 1)), 2n ** BigInt(bits - 1) - 1n, -1n]
      : [2n ** BigInt(bits) - 1n]
    const drawn = Array.from({ length: 20 }, () =>
      ref.wrap(dtype, BigInt(Math.trunc(random.normal() * 2 ** (bits - 3)))),
    )
    return [
      0n,
      1n,
      ...ends,
      ...drawn,
      ...[2049n, 65520n, 16777217n, 33554435n].map((v) => ref.wrap(dtype, v)),
    ]
  }
  const specials = [
    0,
    -0,
    0.5,
    -0.5,
    2.5,
    -3.9,
    127.9,
    128,
    255.5,
    256,
    65519,
    65520,
    1e5,
    2 ** 31,
    -(2 ** 31) - 512,
  ]
  const wide = [
    2 ** 63,
    -(2 ** 63),
    1e19,
    -1e30,
    3.4e38,
    1e-40,
    6e-8,
    2e-8,
    1e300,
    NaN,
    Infinity,
    -Infinity,
  ]
  const fine = Array.from({ length: 40 }, () => random.normal() * 2 ** random.integer(-30, 20))
  return [...specials, ...wide, ...fine].map((v) => ref.roundTo(dtype as ref.FloatName, v))
}

describe.each(dtypes)('cast from %s', (from) => {
  const data = valuesOf(from)
  const x = { shape: [data.length], data }

  test.each(dtypes)('to %s', (to) => {
    const want = { shape: x.shape, data: data.map((v) => ref.convert(v, to)) }
    const y = cast(dense(x, from), to)
    expect(y.dtype).toBe(to)
    expectExact(y, want, `${from} to ${to}`)
    expectExact(cast(laidOut(x, from, 'stepped'), to), want, `${from} to ${to}, stepped`)
  })
})

describe('cast', () => {
  test('to the own dtype is the tensor itself; back and forth gradients keep their dtype', () => {
    const x = tensor([1.5], { requiresGrad: true })
    expect(x.to('float32')).toBe(x)
    x.double().mul(2).float().half().sum().backward()
    expect(x.grad?.dtype).toBe('float32')
    expect(values(x.grad)).toEqual([2])
    expect(x.long().requiresGrad).toBe(false)
  })

  test('short names', () => {
    const x = tensor([1, 0])
    const named: [Tensor, DType][] = [
      [x.float(), 'float32'],
      [x.double(), 'float64'],
      [x.half(), 'float16'],
      [x.bfloat16(), 'bfloat16'],
      [x.long(), 'int64'],
      [x.int(), 'int32'],
      [x.bool(), 'bool'],
      [x.to({ dtype: 'int8' }), 'int8'],
    ]
    for (const [y, dtype] of named) expect(y.dtype).toBe(dtype)
    expect(x.to(x.device)).toBe(x)
    expect(errorOf(DTypeError, () => cast(x, 'uint16' as never))).toMatch(/^to: expected a dtype/)
  })
})

describe('clone, contiguous, copy_, fill_', () => {
  const array = { shape: [2, 3, 5], data: Array.from({ length: 30 }, (_, i) => i) }

  test.each(dtypes)('clone of %s in every layout: row-major, memory of its own', (dtype) => {
    const want = array.data.map((v) => ref.convert(dtype === 'bool' ? v % 2 : v, dtype))
    const x = { ...array, data: want }
    for (const layout of layouts) {
      const t = laidOut(x, dtype, layout)
      const y = t.clone()
      expectExact(y, x, layout)
      expect(y.isContiguous).toBe(true)
      y.fill_(1)
      expectExact(t, x, layout)
      expect(t.contiguous() === t).toBe(t.isContiguous)
      expectExact(t.contiguous(), x, layout)
    }
  })

  test('copy_ from every layout into every layout, broadcast and converted', () => {
    for (const into of layouts) {
      for (const from of layouts) {
        const t = laidOut({ shape: [2, 3, 5], data: new Array(30).fill(0) }, 'float32', into)
        expect(t.copy_(laidOut(array, 'int16', from))).toBe(t)
        expectExact(t, array, `${from} into ${into}`)
      }
    }
    const t = tensor([
      [0, 0],
      [0, 0],
    ])
    expect(values(t.copy_(tensor([1n, 2n])))).toEqual([1, 2, 1, 2])
    expect(values(t.t().copy_(tensor([5, 6])))).toEqual([5, 6, 5, 6])
    expect(values(t)).toEqual([5, 5, 6, 6])
    expect(errorOf(ShapeError, () => t.copy_(tensor([1, 2, 3])))).toMatch(/^copy_?: expected/)
    expect(errorOf(ShapeError, () => tensor([1]).copy_(t))).toMatch(/^copy_: expected/)
  })

  test('fill_ and zero_ through a view leave the rest alone', () => {
    const t = tensor([1, 2, 3, 4])
    t.slice(0, 0, null, 2).fill_(9)
    expect(values(t)).toEqual([9, 2, 9, 4])
    t.slice(0, 1, 2).zero_()
    expect(values(t)).toEqual([9, 0, 9, 4])
    expect(values(tensor([1n, 2n]).fill_(2n ** 40n))).toEqual([2 ** 40, 2 ** 40])
    expect(tensor([1, 2]).to('bool').fill_(false).toArray()).toEqual([false, false])
  })
})
