import { describe, expect, test } from 'vitest'
import {
  ArgumentError,
  arange,
  IndexError,
  ShapeError,
  type Tensor,
  tensor,
  zeros,
} from '../../src/index.js'
import { gradcheckTwice } from '../support/gradcheck.js'
import { SeededSampler } from '../support/sampler.js'
import { errorOf, values } from '../support/values.js'

const box = () => arange(24).reshape([2, 3, 4])

/** Every view function, on a tensor of shape [2, 3, 4]. */
const viewFunctions: [string, (x: Tensor) => Tensor, number[]][] = [
  ['reshape', (x) => x.reshape([4, -1]), [4, 6]],
  ['view', (x) => x.view([2, 12]), [2, 12]],
  ['flatten', (x) => x.flatten(), [24]],
  ['flatten(1)', (x) => x.flatten(1), [2, 12]],
  ['flatten(0, 1)', (x) => x.flatten(0, 1), [6, 4]],
  ['unsqueeze', (x) => x.unsqueeze(-1), [2, 3, 4, 1]],
  ['squeeze', (x) => x.unsqueeze(1).unsqueeze(0).squeeze(), [2, 3, 4]],
  ['squeeze(axis)', (x) => x.unsqueeze(1).unsqueeze(0).squeeze(0), [2, 1, 3, 4]],
  ['permute', (x) => x.permute([2, 0, -2]), [4, 2, 3]],
  ['transpose', (x) => x.transpose(0, -1), [4, 3, 2]],
  ['t', (x) => x.select(0, 0).t(), [4, 3]],
  ['expand', (x) => x.unsqueeze(0).expand([5, 2, -1, 4]), [5, 2, 3, 4]],
  ['slice', (x) => x.slice(2, -3, -1), [2, 3, 2]],
  ['slice with a step', (x) => x.slice(1, 0, null, 2), [2, 2, 4]],
  ['select', (x) => x.select(1, -1), [2, 4]],
  ['narrow', (x) => x.narrow(2, 1, 2), [2, 3, 2]],
  ['split', (x) => x.split(2, 1)[1], [2, 1, 4]],
  ['split by sizes', (x) => x.split([1, 3], 2)[1], [2, 3, 3]],
  ['chunk', (x) => x.chunk(3, 2)[1], [2, 3, 2]],
  ['unbind', (x) => x.unbind(1)[2], [2, 4]],
  ['index', (x) => x.index(1, [0, 2], null, ':'), [2, 1, 4]],
  ['a reshape that must copy', (x) => x.permute([2, 1, 0]).reshape([24]), [24]],
]

describe.each(viewFunctions)('%s', (name, f, shape) => {
  test('has its shape, and gradients to the second order', () => {
    expect(f(box()).shape).toEqual(shape)
    gradcheckTwice(([x]) => [f(x)], [new SeededSampler(1).normal([2, 3, 4])])
  })

  test('shares memory and version, unless it had to copy', () => {
    const x = box()
    const y = f(x)
    const before = values(x)
    x.add_(1)
    const seen = values(y)
    const copied = name.includes('must copy')
    expect(seen).toEqual(
      values(f(tensor(before).reshape([2, 3, 4]))).map((v) => v + (copied ? 0 : 1)),
    )
    expect(y.version).toBe(copied ? 0 : 1)
  })
})

describe('reshape', () => {
  test('splits and joins axes that lie contiguously, without copying', () => {
    const x = zeros([4, 6]).t() // [6, 4], strides [1, 6]
    expect(x.view([2, 3, 4]).strides).toEqual([3, 1, 6])
    expect(x.view([6, 2, 2]).strides).toEqual([1, 12, 6])
    expect(errorOf(ShapeError, () => x.view([24]))).toMatch(/use reshape$/)
    expect(values(x.reshape([24]))).toHaveLength(24)
  })

  test('keeps an expanded axis expanded', () => {
    const x = tensor([1, 2]).unsqueeze(1).expand([2, 3])
    expect(x.view([2, 1, 3]).strides[2]).toBe(0)
    expect(values(x.reshape([6]))).toEqual([1, 1, 1, 2, 2, 2])
  })

  test('of empty and of zero-dimensional tensors', () => {
    expect(zeros([0, 3]).reshape([3, 0, 2]).shape).toEqual([3, 0, 2])
    expect(zeros([0, 3]).reshape([-1, 3]).shape).toEqual([0, 3])
    expect(tensor(1).reshape([1, 1]).shape).toEqual([1, 1])
    expect(zeros([1, 1]).reshape([]).shape).toEqual([])
    expect(tensor(5).flatten().shape).toEqual([1])
  })

  test.each([
    [[5]],
    [[-1, 5]],
    [[-1, -1]],
    [[24, 0]],
    [[-2, 12]],
    [[2.5, 2]],
    [[1, 1, 1, 1, 1, 1, 1, 1, 24]],
  ])('to %j is refused', (shape) => {
    expect(errorOf(ShapeError, () => box().reshape(shape))).toMatch(/^reshape: expected/)
  })

  test('of nothing into -1 and 0 is refused', () => {
    expect(errorOf(ShapeError, () => zeros([0]).reshape([0, -1]))).toMatch(/^reshape: expected/)
  })
})

describe('slices', () => {
  test('positions beyond the axis are clipped, as in Python', () => {
    const x = arange(5)
    expect(values(x.slice(0, -100, 100))).toEqual([0, 1, 2, 3, 4])
    expect(values(x.slice(0, 3, 1))).toEqual([])
    expect(values(x.slice(0, 7))).toEqual([])
    expect(values(x.slice(0, 1, -1, 2))).toEqual([1, 3])
    expect(values(x.slice(0, 4, null, 3))).toEqual([4])
  })

  test.each([
    ['a step of 0', ArgumentError, (x: Tensor) => x.slice(0, 0, 2, 0)],
    ['a fraction', IndexError, (x: Tensor) => x.slice(0, 0.5)],
    ['an axis too far', IndexError, (x: Tensor) => x.slice(3)],
    ['select beyond', IndexError, (x: Tensor) => x.select(0, 2)],
    ['select before', IndexError, (x: Tensor) => x.select(0, -3)],
    ['narrow beyond', IndexError, (x: Tensor) => x.narrow(0, 1, 2)],
    ['narrow by NaN', IndexError, (x: Tensor) => x.narrow(0, Number.NaN, 1)],
    ['split by 0', ArgumentError, (x: Tensor) => x.split(0)],
    ['split sizes that do not add up', ShapeError, (x: Tensor) => x.split([1, 2])],
    ['chunk 0', ArgumentError, (x: Tensor) => x.chunk(0)],
    ['squeeze of an axis too far', IndexError, (x: Tensor) => x.squeeze(3)],
    ['permute with one axis twice', ArgumentError, (x: Tensor) => x.permute([0, 0, 1])],
    ['permute with too few', ShapeError, (x: Tensor) => x.permute([0, 1])],
    ['t of three axes', ShapeError, (x: Tensor) => x.t()],
    ['expand of a size that is not 1', ShapeError, (x: Tensor) => x.expand([2, 6, 4])],
    ['expand to fewer axes', ShapeError, (x: Tensor) => x.expand([4])],
    ['expand with -1 for a new axis', ShapeError, (x: Tensor) => x.expand([-1, 2, 3, 4])],
    ['select of no axes', ShapeError, (x: Tensor) => x.sum().select(0, 0)],
    ['flatten backwards', ArgumentError, (x: Tensor) => x.flatten(2, 1)],
  ])('%s is refused', (_what, kind, f) => {
    expect(errorOf(kind, () => f(box()))).toMatch(/^\w+: expected/)
  })

  test('chunk and split of sizes that do not divide', () => {
    expect(
      arange(7)
        .split(3)
        .map((p) => p.numel),
    ).toEqual([3, 3, 1])
    expect(
      arange(7)
        .chunk(4)
        .map((p) => p.numel),
    ).toEqual([2, 2, 2, 1])
    expect(
      arange(0)
        .split(3)
        .map((p) => p.numel),
    ).toEqual([0])
    expect(zeros([2, 0]).unbind(1)).toEqual([])
  })
})

describe('index', () => {
  const x = () => arange(12).reshape([3, 4])

  test('numbers, ranges, ellipsis, new axes and integer tensors', () => {
    expect(values(x().index(1))).toEqual([4, 5, 6, 7])
    expect(x().index(-1, -1).item()).toBe(11)
    expect(values(x().index(':', 0))).toEqual([0, 4, 8])
    expect(values(x().index('...', 0))).toEqual([0, 4, 8])
    expect(values(x().index([1, null], [null, 2]))).toEqual([4, 5, 8, 9])
    expect(values(x().index([0, null, 2], [1, 4, 2]))).toEqual([1, 3, 9, 11])
    expect(x().index(null, '...', null).shape).toEqual([1, 3, 4, 1])
    expect(values(x().index(tensor([2n, 0n]), 1))).toEqual([9, 1])
    expect(x().index().shape).toEqual([3, 4])
  })

  test.each([
    ['too many', [0, 0, 0]],
    ['two ellipses', ['...', '...']],
    ['a fraction', [0.5]],
    ['a word', ['first']],
    ['beyond', [3]],
    ['a range of fractions', [[0.5, 2]]],
    ['undefined', [undefined]],
  ])('%s is refused', (_what, specs) => {
    expect(errorOf(IndexError, () => x().index(...(specs as never[])))).toMatch(/^\w+: expected/)
  })
})
