import { inspect } from 'node:util'
import { describe, expect, test } from 'vitest'
import { arange, full, setDefaultDevice, tensor, zeros } from '../../src/index.js'

// Another device would be named.
setDefaultDevice('cpu')

describe('toString', () => {
  test('shows the elements, the shape and the dtype', () => {
    expect(
      String(
        tensor([
          [1, 2],
          [3, 40],
        ]),
      ),
    ).toBe('Tensor([[ 1.,  2.],\n        [ 3., 40.]], shape=[2, 2], dtype=float32)')
    expect(String(tensor([1n, -20n]))).toBe('Tensor([  1, -20], shape=[2], dtype=int64)')
    expect(String(tensor([true, false]))).toBe('Tensor([ true, false], shape=[2], dtype=bool)')
    expect(String(tensor(2.5))).toBe('Tensor(2.5000, shape=[], dtype=float32)')
    expect(String(zeros([0, 3]))).toBe('Tensor([], shape=[0, 3], dtype=float32)')
    expect(String(full([1], 1, { dtype: 'bfloat16' }))).toContain('dtype=bfloat16')
  })

  test('aligns fractions, shows NaN and infinities, very large and very small numbers', () => {
    expect(String(tensor([0.5, -10.25]))).toContain('[  0.5000, -10.2500]')
    expect(String(tensor([NaN, Infinity, 1]))).toContain('[     NaN, Infinity,   1.0000]')
    expect(String(tensor([1e-7, 1e12, 0.5]))).toContain('1.0000e-7, 1.0000e+12,')
  })

  test('cuts long axes in the middle', () => {
    const shown = String(arange(5000))
    expect(shown).toContain('[   0,    1,    2,    …, 4997, 4998, 4999]')
    const wide = String(zeros([500, 500]))
    expect(wide.split('\n').length).toBe(7)
    expect(wide.length).toBeLessThan(600)
  })

  test('reads no more than it shows', () => {
    const huge = full([1], 7).expand([2 ** 20, 2 ** 20])
    expect(String(huge)).toContain('[7., 7., 7.,  …, 7., 7., 7.]')
    expect(String(huge)).toContain('shape=[1048576, 1048576]')
    expect(String(arange(3000).reshape([3, 1000]).t())).toContain('[   2, 1002, 2002]')
  })

  test('says what made a tensor, and that it is disposed', () => {
    const x = tensor([1], { requiresGrad: true })
    expect(String(x)).toContain('requiresGrad')
    expect(String(x.mul(2))).toContain('gradFn=mul')
    const gone = tensor([1])
    gone.dispose()
    expect(String(gone)).toBe('Tensor(disposed, shape=[1], dtype=float32)')
  })

  test('is what inspect and console.log show', () => {
    const t = tensor([[[1]]])
    expect(inspect(t)).toBe(String(t))
    expect(inspect({ t })).toContain('shape=[1, 1, 1]')
  })

  test('separates matrices by an empty line', () => {
    expect(String(zeros([2, 1, 1]))).toBe(
      'Tensor([[[0.]],\n\n        [[0.]]], shape=[2, 1, 1], dtype=float32)',
    )
  })
})
