import { describe, expect, test } from 'vitest'
import {
  AutogradError,
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

describe('grad()', () => {
  test('returns gradients in the order of the inputs and leaves every grad alone', () => {
    const a = leaf([2])
    const b = leaf([3])
    const [gb, ga] = grad(a.mul(b).sum(), [b, a])
    expect([values(ga), values(gb)]).toEqual([[3], [2]])
    expect([a.grad, b.grad]).toEqual([null, null])
  })

  test('with respect to results of ops, also of one on the way to another', () => {
    const x = leaf([2])
    const y = x.mul(3)
    const z = y.square()
    const [gz, gy, gx] = grad(z.sum(), [z, y, x])
    expect([values(gz), values(gy), values(gx)]).toEqual([[1], [12], [36]])
  })

  test('sums over several outputs, with their weights', () => {
    const x = leaf([1, 2])
    const [g] = grad([x.mul(2), x.square()], [x], {
      gradOutputs: [tensor([1, 10]), tensor([1, 1])],
    })
    expect(values(g)).toEqual([4, 24])
  })

  test('counts an output once where it is an input too', () => {
    const x = leaf([1])
    expect(values(grad(x.sum(), [x])[0])).toEqual([1])
    expect(values(grad(x, [x])[0])).toEqual([1])
  })

  test('an unused input is an error, or null with allowUnused', () => {
    const x = leaf([1])
    const unused = leaf([1])
    expect(errorOf(AutogradError, () => grad(x.mul(2), [x, unused]))).toMatch(
      /^grad: expected outputs that depend on every input, got none for input 1/,
    )
    const [gx, gu] = grad(x.mul(2), [x, unused], { allowUnused: true })
    expect(values(gx)).toEqual([2])
    expect(gu).toBeNull()
  })

  test('walks only what leads to the inputs', () => {
    const x = leaf([1])
    const w = leaf([1])
    const seen: string[] = []
    const a = x.mul(2)
    const b = w.mul(2)
    a.registerHook(() => void seen.push('a'))
    b.registerHook(() => void seen.push('b'))
    grad(a.add(b).sum(), [x])
    expect(seen).toEqual(['a'])
  })

  test('frees the graph unless told otherwise', () => {
    const x = leaf([2])
    const y = x.exp().sum()
    grad(y, [x], { retainGraph: true })
    grad(y, [x])
    expect(errorOf(AutogradError, () => grad(y, [x]))).toMatch(/freed/)
  })

  test('createGraph keeps the graph', () => {
    const x = leaf([2])
    const y = x.exp().sum()
    grad(y, [x], { createGraph: true })
    expect(values(grad(y, [x])[0])[0]).toBeCloseTo(Math.exp(2), 4)
  })

  test('a gradient penalty reaches the weights', () => {
    // p = |d(w x²)/dx|² = 4 w² x²; dp/dw = 8 w x²
    const w = leaf([3])
    const x = leaf([2])
    const [g] = grad(w.mul(x.square()).sum(), [x], { createGraph: true })
    g.square().sum().backward()
    expect(values(w.grad)).toEqual([96])
    expect(values(x.grad)).toEqual([144])
  })

  test('refuses inputs without a gradient and weights of another shape', () => {
    const x = leaf([1, 2])
    expect(errorOf(AutogradError, () => grad(x.sum(), [zeros([1])]))).toMatch(/^grad: expected/)
    expect(errorOf(AutogradError, () => grad(zeros([1]), [x]))).toMatch(/^grad: expected/)
    expect(errorOf(ShapeError, () => grad(x, [x], { gradOutputs: [ones([3])] }))).toMatch(/\[3\]/)
  })
})

describe('hooks', () => {
  test('run in the order in which they were registered, each on what the last one returned', () => {
    const x = leaf([1])
    const y = x.mul(2)
    const seen: number[] = []
    y.registerHook((g) => {
      seen.push(g.item())
      return g.mul(10)
    })
    y.registerHook((g) => void seen.push(g.item()))
    y.registerHook((g) => g.add(1))
    y.sum().backward()
    expect(seen).toEqual([1, 10])
    expect(values(x.grad)).toEqual([22])
  })

  test('of leaves change what is accumulated', () => {
    const x = leaf([1, 2])
    x.registerHook((g) => g.mul(3))
    x.sum().backward()
    x.sum().backward()
    expect(values(x.grad)).toEqual([6, 6])
  })

  test('see the sum of all gradients of a tensor, once', () => {
    const x = leaf([1])
    const y = x.mul(1)
    const seen: number[] = []
    y.registerHook((g) => void seen.push(g.item()))
    y.mul(2).add(y.mul(3)).sum().backward()
    expect(seen).toEqual([5])
  })

  test('can be removed, also twice', () => {
    const x = leaf([1])
    let calls = 0
    const remove = x.registerHook(() => void calls++)
    x.sum().backward()
    remove()
    remove()
    x.sum().backward()
    expect(calls).toBe(1)
  })

  test('may be removed by themselves while they run', () => {
    const x = leaf([1])
    const seen: string[] = []
    const remove = x.registerHook(() => {
      seen.push('first')
      remove()
    })
    x.registerHook(() => void seen.push('second'))
    x.sum().backward()
    x.sum().backward()
    expect(seen).toEqual(['first', 'second', 'second'])
  })

  test('may keep the gradient they get', () => {
    const x = leaf([1, 2])
    let kept: Tensor | null = null
    const y = x.mul(2)
    y.registerHook((g) => {
      kept = g
    })
    y.square().sum().backward()
    expect(values(kept)).toEqual([4, 8])
    x.grad = null
    noGrad(() => (kept as unknown as Tensor).zero_())
  })

  test('that return another shape are refused', () => {
    const x = leaf([1, 2])
    x.registerHook(() => zeros([3]))
    expect(errorOf(ShapeError, () => x.sum().backward())).toMatch(/^hook: expected/)
  })

  test('need a tensor with a gradient', () => {
    expect(errorOf(AutogradError, () => zeros([1]).registerHook(() => null))).toMatch(
      /^registerHook: expected/,
    )
  })

  test('an error in a hook leaves the library usable', () => {
    const x = leaf([1])
    const remove = x.registerHook(() => {
      throw new Error('from a hook')
    })
    expect(() => x.sum().backward()).toThrow('from a hook')
    remove()
    x.mul(2).sum().backward()
    expect(values(x.grad)).toEqual([2])
  })
})

describe('retainGrad and detach', () => {
  test('a result keeps its gradient, which accumulates; a leaf has one anyway', () => {
    const x = leaf([1])
    const y = x.mul(2)
    expect(y.grad).toBeNull()
    y.retainGrad()
    y.retainGrad()
    y.square().sum().backward(null, { retainGraph: true })
    expect(values(y.grad)).toEqual([4])
    y.sum().backward()
    expect(values(y.grad)).toEqual([5])
    x.retainGrad()
    expect(values(x.grad)).toEqual([10])
  })

  test('keeps what the hooks made of it', () => {
    const y = leaf([1]).mul(2)
    y.retainGrad()
    y.registerHook((g) => g.mul(7))
    y.sum().backward()
    expect(values(y.grad)).toEqual([7])
  })

  test('follows a result through an in-place change', () => {
    const y = leaf([1]).mul(2)
    y.retainGrad()
    y.mul_(5)
    y.mul(3).sum().backward()
    expect(values(y.grad)).toEqual([3])
  })

  test('detach cuts the graph, shares memory and the version', () => {
    const x = leaf([1, 2])
    const y = x.mul(2)
    const d = y.detach()
    expect(d.requiresGrad).toBe(false)
    expect(d.isLeaf).toBe(true)
    y.mul(d).sum().backward()
    expect(values(x.grad)).toEqual([4, 8])
    const before = y.version
    d.add_(1)
    expect(y.version).toBe(before + 1)
    expect(values(y)).toEqual([3, 5])
  })
})
