import { describe, expect, test } from 'vitest'
import {
  AutogradError,
  DTypeError,
  full,
  grad,
  noGrad,
  ones,
  ShapeError,
  type Tensor,
  tensor,
  zeros,
} from '../../src/index.js'
import { errorOf, values } from '../support/values.js'

const leaf = (v: number[]) => tensor(v, { requiresGrad: true })

/** Whether a write to one shows in the other. */
function shareMemory(a: Tensor, b: Tensor): boolean {
  const before = values(b)
  noGrad(() => a.add_(1))
  const changed = String(values(b)) !== String(before)
  noGrad(() => a.sub_(1))
  return changed
}

describe('gradients of leaves', () => {
  test('accumulate over backward passes until they are set to null', () => {
    const x = leaf([1, 2])
    x.mul(3).sum().backward()
    x.square().sum().backward()
    expect(values(x.grad)).toEqual([5, 7])
    x.grad = null
    x.sum().backward()
    expect(values(x.grad)).toEqual([1, 1])
  })

  test('accumulate over several uses in one pass', () => {
    const x = leaf([2])
    x.mul(x).add(x).mul(x).sum().backward() // x³ + x²
    expect(values(x.grad)).toEqual([16])
  })

  test('accumulate into a tensor that a user has put there', () => {
    const x = leaf([1, 2])
    x.grad = tensor([10, 20])
    x.sum().backward()
    expect(values(x.grad)).toEqual([11, 21])
  })

  test('have the dtype and shape of the leaf, whatever it was promoted and broadcast to', () => {
    const x = tensor([[1], [2]], { dtype: 'float16', requiresGrad: true })
    x.mul(ones([2, 3], { dtype: 'float64' }))
      .sum()
      .backward()
    expect(x.grad?.dtype).toBe('float16')
    expect(x.grad?.shape).toEqual([2, 1])
    expect(values(x.grad)).toEqual([3, 3])
  })

  test.each([false, true])(
    'never share memory with one another (createGraph %s)',
    (createGraph) => {
      const x = leaf([1, 2])
      const z = leaf([3, 4])
      x.add(z).backward(tensor([1, 1]), { createGraph })
      expect(values(x.grad)).toEqual([1, 1])
      expect(shareMemory(x.grad as Tensor, z.grad as Tensor)).toBe(false)
      expect(shareMemory(z.grad as Tensor, x.grad as Tensor)).toBe(false)
    },
  )

  test('never share memory through views of one gradient', () => {
    const x = leaf([1, 2, 3, 4])
    const z = tensor(
      [
        [1, 2],
        [3, 4],
      ],
      { requiresGrad: true },
    )
    const w = tensor(
      [
        [1, 2],
        [3, 4],
      ],
      { requiresGrad: true },
    )
    x.reshape([2, 2])
      .add(z)
      .add(w.t())
      .backward(
        tensor([
          [1, 1],
          [1, 1],
        ]),
      )
    const all = [x, z, w].map((t) => t.grad as Tensor)
    for (const a of all) for (const b of all) if (a !== b) expect(shareMemory(a, b)).toBe(false)
  })

  test.each([false, true])(
    'never share memory with what the user passed in (createGraph %s)',
    (createGraph) => {
      const x = leaf([1, 2])
      const seed = tensor([1, 1])
      x.backward(seed, { createGraph })
      expect(shareMemory(x.grad as Tensor, seed)).toBe(false)
    },
  )

  test('never share memory with retained gradients', () => {
    const x = leaf([1, 2])
    const y = x.add(0)
    const z = y.add(0)
    y.retainGrad()
    z.retainGrad()
    z.sum().backward()
    const all = [x, y, z].map((t) => t.grad as Tensor)
    for (const a of all) for (const b of all) if (a !== b) expect(shareMemory(a, b)).toBe(false)
  })

  test('are whole and writable where they came from an expanded gradient', () => {
    const x = leaf([1, 2, 3])
    x.sum().backward()
    noGrad(() => x.grad?.mul_(tensor([1, 2, 3])))
    expect(values(x.grad)).toEqual([1, 2, 3])
  })

  test('stay null where nothing depends on a leaf', () => {
    const x = leaf([1])
    const unused = leaf([1])
    x.mul(2).sum().backward()
    expect(unused.grad).toBeNull()
  })

  test('may be assigned only with the right shape, and only to what has a place for one', () => {
    const x = leaf([1, 2])
    expect(errorOf(ShapeError, () => (x.grad = zeros([3])))).toBe(
      'grad: expected shape [2], got [3]',
    )
    expect(errorOf(AutogradError, () => (zeros([2]).grad = zeros([2])))).toMatch(/^grad: expected/)
  })
})

describe('requiresGrad', () => {
  test('of leaves and results', () => {
    const x = leaf([1])
    const y = x.mul(2)
    const c = tensor([1])
    expect([x, y, c].map((t) => [t.requiresGrad, t.isLeaf])).toEqual([
      [true, true],
      [true, false],
      [false, true],
    ])
    expect(c.mul(2).requiresGrad).toBe(false)
  })

  test('only of floating dtypes', () => {
    expect(errorOf(DTypeError, () => tensor([1n], { requiresGrad: true }))).toMatch(/int64/)
    expect(errorOf(DTypeError, () => full([1], true).requiresGrad_())).toMatch(/bool/)
    const x = leaf([1.5])
    expect(x.to('int32').requiresGrad).toBe(false)
    expect(x.gt(0).requiresGrad).toBe(false)
    expect(x.reshape([1, 1]).argmax(1).requiresGrad).toBe(false)
  })

  test('is taken back from a leaf, but not from a result', () => {
    const x = leaf([1])
    expect(x.requiresGrad_(false).mul(2).requiresGrad).toBe(false)
    expect(x.grad).toBeNull()
    const y = leaf([1]).mul(2)
    expect(errorOf(AutogradError, () => y.requiresGrad_(false))).toMatch(/detach/)
    expect(y.requiresGrad_()).toBe(y)
  })
})

describe('the graph', () => {
  test('is freed by backward, unless retainGraph', () => {
    const x = leaf([2])
    const y = x.square().sum()
    y.backward(null, { retainGraph: true })
    y.backward()
    expect(values(x.grad)).toEqual([8])
    expect(errorOf(AutogradError, () => y.backward())).toMatch(
      /^backward: expected a graph that has not been freed.*square.*retainGraph: true/,
    )
    expect(values(x.grad)).toEqual([8])
  })

  test('of ops that save nothing can be walked again', () => {
    const x = leaf([2])
    const y = x.add(1).sum()
    y.backward()
    y.backward()
    expect(values(x.grad)).toEqual([2])
  })

  test('survives until its last user: a shared part that was freed is an error by name', () => {
    const x = leaf([2])
    const shared = x.exp()
    shared.mul(2).sum().backward()
    expect(errorOf(AutogradError, () => shared.mul(3).sum().backward())).toMatch(/at exp/)
  })

  test('needs a gradient for outputs of several elements, of their shape', () => {
    const x = leaf([1, 2])
    expect(errorOf(AutogradError, () => x.mul(2).backward())).toMatch(
      /^backward: expected a tensor of one element, or a gradient for it, got shape \[2\]/,
    )
    expect(errorOf(ShapeError, () => x.mul(2).backward(ones([3])))).toMatch(/\[2\], got \[3\]/)
    expect(errorOf(AutogradError, () => tensor([1]).backward())).toMatch(/requires a gradient/)
  })

  test('of a zero-dimensional and of an empty leaf', () => {
    const x = tensor(3, { requiresGrad: true })
    x.mul(x).backward()
    expect(x.grad?.item()).toBe(6)
    const e = zeros([0, 3], { requiresGrad: true })
    e.mul(2).sum().backward()
    expect(e.grad?.shape).toEqual([0, 3])
  })

  test('may be thousands of ops deep', () => {
    const x = leaf([1])
    let y: Tensor = x
    for (let i = 0; i < 20_000; i++) y = y.add(x)
    y.sum().backward()
    expect(values(x.grad)).toEqual([20_001])
  })

  test('differentiates again with createGraph', () => {
    const x = leaf([2])
    x.square().mul(x).sum().backward(null, { createGraph: true }) // 3x²
    const first = x.grad as Tensor
    expect(values(first)).toEqual([12])
    expect(first.requiresGrad).toBe(true)
    expect(values(grad(first.sum(), [x])[0])).toEqual([12]) // 6x
  })

  test('third derivatives', () => {
    const x = leaf([0.5])
    let y: Tensor = x.sin()
    for (let i = 0; i < 3; i++) [y] = grad(y.sum(), [x], { createGraph: true })
    expect(values(y)[0]).toBeCloseTo(-Math.cos(0.5), 6)
  })

  test('without createGraph gradients have no history', () => {
    const x = leaf([2])
    x.square().sum().backward()
    expect(x.grad?.requiresGrad).toBe(false)
  })
})
