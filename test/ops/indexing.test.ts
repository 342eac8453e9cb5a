import { describe, expect, test } from 'vitest'
import {
  ArgumentError,
  arange,
  cat,
  type DType,
  DTypeError,
  gather,
  IndexError,
  indexSelect,
  ones,
  ShapeError,
  scatterAdd,
  stack,
  type Tensor,
  tensor,
  zeros,
} from '../../src/index.js'
import { dense, expectExact, laidOut, layouts, sampled } from '../support/layouts.js'
import * as ref from '../support/reference.js'
import { Random } from '../support/sampler.js'
import { errorOf, values } from '../support/values.js'

const dtypes: DType[] = [
  ...(['float32', 'float64', 'bfloat16', 'float16', 'int64'] as const),
  ...(['int32', 'int16', 'int8', 'uint8', 'bool'] as const),
]
const withAxis = (index: readonly number[], axis: number, position: number) =>
  index.map((i, a) => (a === axis ? position : i))
const whole = (shape: number[], random: Random, high: number): ref.NdArray =>
  sampled(shape, 'int64', () => random.integer(0, high))

describe('gather', () => {
  test.each(dtypes)('of %s, along every axis, in every layout', (dtype) => {
    const random = new Random(1)
    for (const shape of [[7], [3, 5], [2, 3, 4]]) {
      const x = whole(shape, random, dtype === 'bool' ? 2 : 100)
      shape.forEach((size, axis) => {
        // longer along the axis, shorter elsewhere
        const picked = shape.map((s, a) => (a === axis ? s + 2 : Math.max(1, s - 1)))
        const at = whole(picked, random, size)
        const want = ref.build(picked, (i) => ref.at(x, withAxis(i, axis, ref.at(at, i))))
        for (const layout of layouts) {
          expectExact(gather(laidOut(x, dtype, layout), axis, laidOut(at, 'int64', layout)), want)
        }
        expectExact(gather(dense(x, dtype), axis, dense(at, 'int32')), want)
      })
    }
  })

  test('gradients of repeated indices add up', () => {
    const x = zeros([3], { requiresGrad: true })
    gather(x, 0, tensor([2n, 0n, 2n, 2n]))
      .mul(tensor([1, 2, 3, 4]))
      .sum()
      .backward()
    expect(values(x.grad)).toEqual([2, 0, 8])
  })

  test('of nothing', () => {
    expect(gather(ones([3]), 0, zeros([0], { dtype: 'int64' })).shape).toEqual([0])
  })
})

describe('scatterAdd', () => {
  test.each(dtypes.filter((d) => d !== 'bool'))(
    'of %s: repeated indices add up in order',
    (dtype) => {
      const random = new Random(2)
      for (const shape of [[7], [3, 5], [2, 3, 4]]) {
        const x = whole(shape, random, 5)
        shape.forEach((size, axis) => {
          const from = shape.map((s, a) => (a === axis ? 2 * s : s))
          const at = whole(from, random, size)
          const source = whole(from, random, 4)
          const data = [...x.data]
          for (const i of ref.indices(from)) {
            const to = withAxis(i, axis, ref.at(at, i))
            data[to.reduce((p, k, a) => p * shape[a] + k, 0)] += ref.at(source, i)
          }
          for (const layout of layouts) {
            const t = laidOut(x, dtype, layout)
            const y = scatterAdd(
              t,
              axis,
              laidOut(at, 'int64', layout),
              laidOut(source, dtype, layout),
            )
            expectExact(y, { shape, data }, `${dtype} ${layout}`)
            expectExact(t, x)
          }
        })
      }
    },
  )
})

describe('indexSelect', () => {
  test.each(dtypes)('of %s, along every axis, in every layout', (dtype) => {
    const random = new Random(3)
    for (const shape of [[7], [3, 5], [2, 3, 4]]) {
      const x = whole(shape, random, dtype === 'bool' ? 2 : 100)
      shape.forEach((size, axis) => {
        const at = whole([6], random, size)
        const picked = shape.map((s, a) => (a === axis ? 6 : s))
        const want = ref.build(picked, (i) => ref.at(x, withAxis(i, axis, at.data[i[axis]])))
        for (const layout of layouts) {
          expectExact(
            indexSelect(laidOut(x, dtype, layout), axis, laidOut(at, 'int64', layout)),
            want,
          )
        }
      })
    }
  })

  test('gradients of rows picked twice add up; rows not picked have none', () => {
    const x = zeros([3, 2], { requiresGrad: true })
    indexSelect(x, 0, tensor([1n, 1n]))
      .sum()
      .backward()
    expect(values(x.grad)).toEqual([0, 0, 2, 2, 0, 0])
  })
})

describe('indices out of range', () => {
  const x = () => arange(6).reshape([2, 3])

  test.each([
    ['gather beyond', () => gather(x(), 1, tensor([[3n]]))],
    ['gather before', () => gather(x(), 1, tensor([[-1n]]))],
    ['scatterAdd beyond', () => scatterAdd(ones([2]), 0, tensor([2n]), ones([1]))],
    ['indexSelect beyond', () => indexSelect(x(), 0, tensor([2n]))],
    ['indexSelect of an empty axis', () => indexSelect(zeros([0]), 0, tensor([0n]))],
    ['a huge index', () => indexSelect(x(), 0, tensor([2n ** 62n]))],
    ['index() beyond', () => x().index(tensor([-3n]))],
  ])('%s', (_what, f) => {
    expect(errorOf(IndexError, f)).toMatch(/^\w+: expected .*, got/)
  })

  test('a failed scatterAdd leaves its tensor alone', () => {
    const t = ones([2])
    errorOf(IndexError, () => scatterAdd(t, 0, tensor([0n, 9n]), ones([2])))
    expect(values(t)).toEqual([1, 1])
  })

  test('shapes and dtypes that do not fit', () => {
    expect(errorOf(ShapeError, () => gather(x(), 1, tensor([[0n], [0n], [0n]])))).toMatch(/^gather/)
    expect(errorOf(DTypeError, () => gather(x(), 1, tensor([[0.5]])))).toMatch(/float32$/)
    expect(errorOf(ShapeError, () => scatterAdd(ones([2]), 0, tensor([0n]), ones([2])))).toMatch(
      /^scatterAdd/,
    )
    expect(errorOf(ShapeError, () => indexSelect(x(), 0, tensor([[0n]])))).toMatch(/^indexSelect/)
  })
})

describe('cat and stack', () => {
  test.each(dtypes)('of %s, along every axis, in every layout', (dtype) => {
    const random = new Random(4)
    const limit = dtype === 'bool' ? 2 : 100
    for (let axis = 0; axis < 3; axis++) {
      const sizes = [2, 0, 1, 3]
      const shapes = sizes.map((size) => withAxis([2, 3, 4], axis, size))
      const parts = shapes.map((shape) => whole(shape, random, limit))
      const want = ref.build(withAxis([2, 3, 4], axis, 6), (i) => {
        let position = i[axis]
        const part = parts.find(({ shape }) => {
          if (position < shape[axis]) return true
          position -= shape[axis]
          return false
        }) as ref.NdArray
        return ref.at(part, withAxis(i, axis, position))
      })
      for (const layout of layouts) {
        expectExact(
          cat(
            parts.map((p) => laidOut(p, dtype, layout)),
            axis,
          ),
          want,
        )
      }
    }
  })

  test('stack makes a new axis anywhere', () => {
    const a = arange(6).reshape([2, 3])
    const rows: [number, number[]][] = [
      [0, [2, 2, 3]],
      [1, [2, 2, 3]],
      [2, [2, 3, 2]],
      [-1, [2, 3, 2]],
    ]
    for (const [axis, shape] of rows) {
      const y = stack([a, a.add(10)], axis)
      expect(y.shape).toEqual(shape)
      expect(values(y.select(axis, 1))).toEqual(values(a.add(10)))
    }
    expect(stack([tensor(1), tensor(2)]).shape).toEqual([2])
  })

  test('one tensor many times, and forty of them, with gradients', () => {
    const x = ones([2], { requiresGrad: true })
    const parts: Tensor[] = Array.from({ length: 40 }, (_, i) => x.mul(i))
    cat(parts).sum().backward()
    expect(values(x.grad)).toEqual([780, 780])
    const last = ones([1], { requiresGrad: true })
    cat([...Array.from({ length: 35 }, () => ones([1])), last])
      .sum()
      .backward()
    expect(values(last.grad)).toEqual([1])
  })

  test.each([
    ['shapes that disagree', ShapeError, () => cat([ones([2, 3]), ones([2, 2])])],
    ['other numbers of axes', ShapeError, () => cat([ones([2]), ones([2, 2])])],
    ['no axes', ShapeError, () => cat([tensor(1)])],
    ['nothing', ArgumentError, () => cat([])],
    ['stack of other shapes', ShapeError, () => stack([ones([2]), ones([3])])],
    ['an axis too far', IndexError, () => cat([ones([2])], 1)],
  ])('%s: refused', (_what, kind, f) => {
    expect(errorOf(kind, f)).toMatch(/^(?:cat|stack): expected/)
  })
})
