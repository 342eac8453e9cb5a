import { describe, expect, test } from 'vitest'
import {
  DTypeError,
  linear,
  matmul,
  ones,
  ShapeError,
  type Tensor,
  tensor,
  zeros,
} from '../../src/index.js'
import { dense, expectExact, integers, laidOut, layouts, sampled } from '../support/layouts.js'
import * as ref from '../support/reference.js'
import { Random } from '../support/sampler.js'
import { errorOf, values } from '../support/values.js'

/** a [.., M, K] x b [.., K, N], batch axes broadcast: three loops. */
function product(a: ref.NdArray, b: ref.NdArray): ref.NdArray {
  const [m, k] = a.shape.slice(-2)
  const n = b.shape[b.shape.length - 1]
  const lead = ref.broadcast(a.shape.slice(0, -2), b.shape.slice(0, -2))
  // Where the matrices of a batch index begin: `at` finds them by the number of the matrix.
  const numbered = (x: ref.NdArray): ref.NdArray => {
    const shape = x.shape.slice(0, -2)
    return { shape, data: Array.from({ length: ref.count(shape) }, (_, i) => i) }
  }
  const [lefts, rights] = [numbered(a), numbered(b)]
  return ref.build([...lead, m, n], (index) => {
    const [i, j] = index.slice(-2)
    const row = (ref.at(lefts, index.slice(0, -2)) * m + i) * k
    const column = ref.at(rights, index.slice(0, -2)) * k * n + j
    let total = 0
    for (let l = 0; l < k; l++) total += a.data[row + l] * b.data[column + l * n]
    return total
  })
}

const magnitude = (x: ref.NdArray): ref.NdArray => ({ ...x, data: x.data.map(Math.abs) })
const epsilons = { float32: 2 ** -24, float64: 2 ** -53, float16: 2 ** -11, bfloat16: 2 ** -8 }

/** The product of a and b, with the sums of |a||b| by which errors are measured. */
function exact(a: ref.NdArray, b: ref.NdArray) {
  const scale = product(magnitude(a), magnitude(b)).data
  return { want: product(a, b), scale, inner: Math.sqrt(a.shape[a.shape.length - 1]) + 4 }
}

/** Within the error of sums in at least float32, and of one rounding to the dtype. */
function expectProduct(
  got: Tensor,
  { want, scale, inner }: ReturnType<typeof exact>,
  what: string,
): void {
  const dtype = got.dtype as ref.FloatName
  const sums = dtype === 'float64' ? epsilons.float64 : epsilons.float32
  expect(got.shape, what).toEqual(want.shape)
  const wrong = values(got).filter((v, i) => {
    const bound = inner * sums * scale[i] + epsilons[dtype] * Math.abs(want.data[i])
    return !(Math.abs(v - want.data[i]) <= bound)
  })
  expect(wrong, what).toEqual([])
}

/** Sizes around those of vectors, of register tiles and of blocks. */
const sizes: [number, number, number][] = [
  [1, 1, 1],
  [1, 7, 1],
  [3, 5, 2],
  [1, 64, 33],
  [17, 1, 19],
  [15, 31, 33],
  [64, 65, 63],
  [2, 300, 3],
  [130, 9, 70],
]

describe('matmul', () => {
  test.each(['float32', 'float64', 'float16', 'bfloat16'] as const)(
    'of %s, in every pair of layouts',
    (dtype) => {
      const random = new Random(1)
      for (const [m, k, n] of sizes) {
        const a = sampled([m, k], dtype, () => random.normal())
        const b = sampled([k, n], dtype, () => random.normal())
        const answer = exact(a, b)
        for (const one of layouts) {
          for (const two of layouts) {
            const y = matmul(laidOut(a, dtype, one), laidOut(b, dtype, two))
            expectProduct(y, answer, `${dtype} ${m} ${k} ${n}, ${one}, ${two}`)
          }
        }
      }
    },
  )

  test('batches that broadcast, and expanded operands', () => {
    const random = new Random(2)
    const draw = (shape: number[]) => sampled(shape, 'float32', () => random.normal())
    const batches: [number[], number[]][] = [
      [
        [4, 3, 5],
        [4, 5, 2],
      ],
      [
        [4, 3, 5],
        [5, 2],
      ],
      [
        [3, 5],
        [4, 5, 2],
      ],
      [
        [2, 1, 3, 5],
        [4, 5, 2],
      ],
      [
        [1, 3, 5],
        [6, 5, 2],
      ],
      [
        [0, 3, 5],
        [5, 2],
      ],
      [
        [2, 3, 0],
        [2, 0, 4],
      ],
    ]
    for (const [left, right] of batches) {
      const [a, b] = [draw(left), draw(right)]
      for (const layout of layouts) {
        const y = matmul(laidOut(a, 'float32', layout), laidOut(b, 'float32', layout))
        expectProduct(y, exact(a, b), `[${left}] x [${right}], ${layout}`)
      }
    }
    const row = draw([1, 5])
    const repeated = ref.build([3, 5], ([, j]) => ref.at(row, [0, j]))
    const b = draw([5, 4])
    const y = matmul(dense(row, 'float32').expand([3, 5]), dense(b, 'float32'))
    expectProduct(y, exact(repeated, b), 'expanded')
  })

  test.each(['int64', 'int32', 'int8', 'uint8'] as const)('of %s: exact, wrapping', (dtype) => {
    const random = new Random(3)
    const a = integers([5, 9], random, 0, 100)
    const b = integers([9, 4], random, 0, 100)
    const want = ref.build([5, 4], ([i, j]) => {
      let total = 0n
      for (let l = 0; l < 9; l++) total += ref.at(a, [i, l]) * ref.at(b, [l, j])
      return ref.wrap(dtype, total)
    })
    expectExact(matmul(laidOut(a, dtype, 'permuted'), laidOut(b, dtype, 'stepped')), want)
  })

  test('a matrix with itself and with its transpose; promotion', () => {
    const random = new Random(4)
    const a = sampled([6, 6], 'float64', () => random.normal())
    const t = dense(a, 'float64')
    const transposed = ref.build([6, 6], ([i, j]) => ref.at(a, [j, i]))
    expectProduct(matmul(t, t), exact(a, a), 'itself')
    expectProduct(matmul(t.t(), t), exact(transposed, a), 'transpose')
    expect(matmul(ones([2, 2], { dtype: 'int32' }), ones([2, 2])).dtype).toBe('float32')
    expect(matmul(ones([2, 2]), ones([2, 2], { dtype: 'float64' })).dtype).toBe('float64')
  })

  test('NaN and infinities stay in their rows and columns', () => {
    const a = tensor([
      [NaN, 1],
      [Infinity, 2],
      [1, 1],
    ])
    expect(
      values(
        matmul(
          a,
          tensor([
            [1, 0],
            [0, 1],
          ]),
        ),
      ),
    ).toEqual([NaN, NaN, Infinity, NaN, 1, 1])
  })

  test('gradients of all forms are products of their own, reduced over broadcast batches', () => {
    const a = ones([2, 3, 4], { requiresGrad: true })
    const b = ones([4, 5], { requiresGrad: true })
    matmul(a, b).sum().backward()
    expect(values(a.grad)).toEqual(new Array(24).fill(5))
    expect(values(b.grad)).toEqual(new Array(20).fill(6))
    const v = ones([4], { requiresGrad: true })
    matmul(a.detach(), v).sum().backward()
    expect(values(v.grad)).toEqual([6, 6, 6, 6])
  })

  test.each([
    ['inner sizes', [2, 3], [4, 5]],
    ['a vector of another size', [3], [4]],
    ['batches', [2, 3, 4], [3, 4, 5]],
    ['no axes', [], [3]],
  ])('%s that do not fit are refused', (_what, left, right) => {
    expect(errorOf(ShapeError, () => matmul(zeros(left), zeros(right)))).toMatch(
      /^matmul: expected/,
    )
  })

  test('bool is refused', () => {
    const mask = ones([2, 2]).gt(0)
    expect(errorOf(DTypeError, () => matmul(mask, mask))).toMatch(/^matmul: expected numbers/)
  })
})

describe('linear', () => {
  test.each(['float32', 'float64', 'bfloat16'] as const)('is x wᵀ + bias, %s', (dtype) => {
    const random = new Random(5)
    for (const [lead, k, m] of [
      [[3], 5, 4],
      [[2, 3], 17, 33],
      [[], 4, 3],
      [[0], 3, 2],
    ] as const) {
      const x = sampled([...lead, k], dtype, () => random.normal())
      const w = sampled([m, k], dtype, () => random.normal())
      const bias = sampled([m], dtype, () => random.normal())
      const rows = { shape: [ref.count(lead), k], data: x.data }
      // The bias as one more column.
      const wider = ref.build([rows.shape[0], k + 1], ([i, j]) =>
        j < k ? ref.at(rows, [i, j]) : 1,
      )
      const taller = ref.build([k + 1, m], ([i, j]) => (i < k ? ref.at(w, [j, i]) : bias.data[j]))
      for (const layout of layouts) {
        const y = linear(laidOut(x, dtype, layout), laidOut(w, dtype, layout), dense(bias, dtype))
        expect(y.shape).toEqual([...lead, m])
        expectProduct(y.reshape([rows.shape[0], m]), exact(wider, taller), layout)
      }
      expect(linear(dense(x, dtype), dense(w, dtype)).shape).toEqual([...lead, m])
    }
  })

  test.each([
    ['w of one axis', [2, 3], [3], null],
    ['inner sizes', [2, 3], [4, 5], null],
    ['a bias of another size', [2, 3], [4, 3], [3]],
    ['no axes', [], [4, 3], null],
  ])('%s: refused', (_what, x, w, bias) => {
    const call = () => linear(zeros(x), zeros(w), bias === null ? null : zeros(bias))
    expect(errorOf(ShapeError, call)).toMatch(/^linear: expected/)
  })
})
