import { describe, expect, test } from 'vitest'
import {
  ArgumentError,
  AutogradError,
  grad,
  noGrad,
  ones,
  type Tensor,
  tensor,
} from '../../src/index.js'
import { errorOf, values } from '../support/values.js'

const leaf = (v: number[]) => tensor(v, { requiresGrad: true })

describe('what may not be overwritten', () => {
  test('a leaf that requires a gradient, outside of noGrad', () => {
    const x = leaf([1, 2])
    expect(errorOf(AutogradError, () => x.add_(1))).toMatch(/^add_: expected .* got a leaf that/)
    expect(errorOf(AutogradError, () => x.fill_(1))).toMatch(/^fill_: expected/)
    expect(values(x)).toEqual([1, 2])
    noGrad(() => x.add_(1))
    expect(values(x)).toEqual([2, 3])
  })

  test('a view of such a leaf, and a leaf that is a view', () => {
    const x = leaf([1, 2])
    expect(errorOf(AutogradError, () => x.slice(0, 0, 1).mul_(2))).toMatch(/view of a leaf/)
    expect(errorOf(AutogradError, () => x.reshape([2, 1]).t().zero_())).toMatch(/view of a leaf/)
    const v = tensor([1, 2, 3]).slice(0, 1).requiresGrad_()
    expect(errorOf(AutogradError, () => v.mul_(2))).toMatch(/got a leaf that/)
    expect(values(x)).toEqual([1, 2])
  })

  test('a view that was made inside noGrad, of a result with a history', () => {
    const y = leaf([1, 2]).mul(1)
    const v = noGrad(() => y.slice(0, 0, 1))
    expect(v.requiresGrad).toBe(false)
    expect(errorOf(AutogradError, () => v.mul_(2))).toMatch(/^mul_: expected a view made while/)
    noGrad(() => v.mul_(2))
    expect(values(y)).toEqual([2, 2])
  })

  test('expanded memory, with gradients and without', () => {
    const y = leaf([1]).mul(1)
    for (const x of [tensor([1]), y]) {
      expect(errorOf(ArgumentError, () => x.expand([3]).add_(1))).toMatch(
        /^add_: expected a tensor whose elements have memory of their own, got an expanded one/,
      )
    }
    expect(values(y)).toEqual([1])
  })

  test('memory that the other operand overlaps in part', () => {
    const x = tensor([1, 2, 3, 4])
    expect(errorOf(ArgumentError, () => x.slice(0, 1).add_(x.slice(0, 0, 3)))).toMatch(/overlap/)
    const m = tensor([
      [1, 2],
      [3, 4],
    ])
    expect(errorOf(ArgumentError, () => m.add_(m.t()))).toMatch(/overlap/)
    expect(values(x)).toEqual([1, 2, 3, 4])
    x.slice(0, 0, null, 2).add_(x.slice(0, 1, null, 2)) // interleaved, not overlapping
    expect(values(x)).toEqual([3, 2, 7, 4])
    x.add_(x)
    expect(values(x)).toEqual([6, 4, 14, 8])
  })
})

describe('saved values', () => {
  test.each([
    ['mul', (x: Tensor) => x.mul(x), 'an input'],
    ['exp', (x: Tensor) => x.exp(), 'the output'],
    ['softmax', (x: Tensor) => x.softmax(0), 'the output'],
  ])('%s: one that was overwritten is an error that names the op', (name, f, which) => {
    const x = leaf([1, 2]).mul(1)
    const y = f(x)
    ;(which === 'an input' ? x : y).add_(1)
    expect(errorOf(AutogradError, () => y.sum().backward())).toMatch(
      new RegExp(`^backward: expected the values that ${name} saved as they were`),
    )
  })

  test('what a rule does not read may be overwritten', () => {
    const w = leaf([1, 2])
    const x = w.mul(1)
    const y = x.exp() // reads its output
    x.zero_()
    y.sum().backward()
    expect(values(w.grad)[0]).toBeCloseTo(Math.E, 5)
    const z = w.mul(1)
    const sum = z.add(1) // reads nothing
    z.mul_(2)
    sum.mul_(2)
    sum.sum().backward()
    expect(values(w.grad)[0]).toBeCloseTo(Math.E + 2, 5)
  })

  test('are watched through every view of their memory', () => {
    const w = leaf([1, 2])
    for (const touch of [
      (t: Tensor) => t.slice(0, 0, 1).add_(1),
      (t: Tensor) => t.reshape([2, 1]).t().mul_(2),
      (t: Tensor) => t.detach().add_(1),
      (t: Tensor) => noGrad(() => t.add_(1)),
    ]) {
      const x = w.mul(1)
      const y = x.slice(0, 1).square()
      touch(x)
      expect(errorOf(AutogradError, () => y.sum().backward())).toMatch(/that square saved/)
    }
  })

  test('a leaf changed inside noGrad between forward and backward is noticed', () => {
    const w = leaf([1, 2])
    const loss = w.square().sum()
    noGrad(() => w.sub_(0.1))
    expect(errorOf(AutogradError, () => loss.backward())).toMatch(/square saved/)
  })

  test('an in-place op keeps what it reads itself', () => {
    const w = leaf([0.5])
    const x = w.mul(1)
    x.square_() // reads the value it overwrites
    x.mul_(x) // reads both operands, which it overwrites
    x.exp_() // reads its result
    x.sum().backward() // exp(w⁴)
    expect(values(w.grad)[0]).toBeCloseTo(0.5 * Math.exp(0.0625), 6)
  })

  test('the version is shared by views and counts every write', () => {
    const x = tensor([1, 2, 3])
    const v = x.slice(0, 1)
    expect([x.version, v.version]).toEqual([0, 0])
    v.add_(1)
    x.fill_(3)
    expect([x.version, v.version, x.detach().version]).toEqual([2, 2, 2])
    expect(x.clone().version).toBe(0)
  })
})

describe('history follows', () => {
  test('a tensor', () => {
    const w = leaf([1, 2])
    const y = w.mul(2)
    y.mul_(3)
    y.add_(w)
    y.sum().backward()
    expect(values(w.grad)).toEqual([7, 7])
  })

  test('a tensor without a gradient that takes a value with one', () => {
    const w = leaf([2])
    const x = tensor([5])
    x.mul_(w)
    expect(x.requiresGrad).toBe(true)
    expect(x.isLeaf).toBe(false)
    x.mul(3).sum().backward()
    expect(values(w.grad)).toEqual([15])
  })

  test('the base, when a view is changed', () => {
    const w = leaf([1, 2, 3])
    const base = w.mul(1)
    base.slice(0, 0, 2).mul_(10)
    base
      .mul(tensor([1, 2, 3]))
      .sum()
      .backward()
    expect(values(w.grad)).toEqual([10, 20, 3])
  })

  test('a base without a gradient, and its other views', () => {
    const w = leaf([2])
    const base = tensor([1, 2, 3])
    const other = base.slice(0, 0, 2)
    base.slice(0, 1).mul_(w)
    expect(base.requiresGrad).toBe(true)
    expect(other.requiresGrad).toBe(true)
    expect(values(other)).toEqual([1, 4])
    other.sum().backward(null, { retainGraph: true })
    expect(values(w.grad)).toEqual([2])
    base.sum().backward()
    expect(values(w.grad)).toEqual([7])
  })

  test('views made before, when the base is changed', () => {
    const w = leaf([1, 2, 3])
    const base = w.mul(1)
    const view = base.slice(0, 1)
    const of = view.reshape([2, 1])
    base.mul_(4)
    view.sum().add(of.sum()).backward()
    expect(values(w.grad)).toEqual([0, 8, 8])
  })

  test('chained views, changed at every level', () => {
    const w = tensor(
      [
        [1, 2, 3],
        [4, 5, 6],
      ],
      { requiresGrad: true },
    )
    const base = w.mul(1)
    const rows = base.slice(0, 1) // [[4, 5, 6]]
    const part = rows.t().slice(0, 0, 2) // [[4], [5]]
    part.mul_(2)
    base.mul_(3)
    rows.select(1, 2).mul_(5)
    part.select(0, 1).mul_(7)
    expect(values(base)).toEqual([3, 6, 9, 24, 210, 90])
    base.sum().backward()
    expect(values(w.grad)).toEqual([3, 3, 3, 6, 42, 15])
  })

  test('fill, zero and copy cut the gradient of what they overwrite', () => {
    const w = leaf([1, 2, 3])
    const s = leaf([10])
    const base = w.mul(1)
    base.slice(0, 0, 1).zero_()
    base.select(0, 1).copy_(s.reshape([]))
    base.sum().backward()
    expect(values(base)).toEqual([0, 10, 3])
    expect(values(w.grad)).toEqual([0, 0, 1])
    expect(values(s.grad)).toEqual([1])
  })

  test('an integer tensor that copies a value with a gradient takes no history', () => {
    const w = leaf([1.5])
    const x = tensor([7n])
    x.copy_(w)
    expect(values(x)).toEqual([1])
    expect(x.requiresGrad).toBe(false)
  })

  test('an older result keeps the older history', () => {
    const w = leaf([1, 1])
    const y = w.mul(2)
    const before = y.add(0)
    y.mul_(100)
    before.sum().backward()
    expect(values(w.grad)).toEqual([2, 2])
  })

  test('broadcast operands sum their gradients', () => {
    const w = tensor(2, { requiresGrad: true })
    const y = ones([2, 3])
    y.mul_(w)
    y.sum().backward()
    expect(w.grad?.item()).toBe(6)
    expect(w.grad?.shape).toEqual([])
  })

  test('a dropped view changes its base all the same', () => {
    const w = leaf([1, 2])
    const base = w.mul(1)
    for (let i = 0; i < 2; i++) base.select(0, i).mul_(i + 5)
    base.sum().backward()
    expect(values(w.grad)).toEqual([5, 6])
  })

  test('views of a transposed and of an offset base', () => {
    const w = tensor(
      [
        [1, 2],
        [3, 4],
      ],
      { requiresGrad: true },
    )
    const held = tensor([0, 0, 1, 1, 1, 1]).slice(0, 2).reshape([2, 2]).detach()
    const other = held.t()
    held.mul_(w)
    held.t().select(0, 1).mul_(10)
    other.add(held.t()).mul(0.5).sum().backward()
    expect(values(held)).toEqual([1, 20, 3, 40])
    expect(values(w.grad)).toEqual([1, 10, 1, 10])
  })

  test('double backward through a changed view', () => {
    const w = leaf([2, 3])
    const base = w.mul(w)
    base.select(0, 0).mul_(w.select(0, 1)) // [w0² w1, w1²]
    const [g] = grad(base.sum(), [w], { createGraph: true }) // [2 w0 w1, w0² + 2 w1]
    expect(values(g)).toEqual([12, 10])
    const [h] = grad(g.sum(), [w]) // [2 w1 + 2 w0, 2 w0 + 2]
    expect(values(h)).toEqual([10, 6])
  })

  test('an error leaves data and history as they were', () => {
    const w = leaf([1, 2])
    const y = w.mul(1)
    expect(() => y.add_(ones([3]))).toThrow(/add/)
    expect(() => y.add_(ones([2, 2]))).toThrow(/^add_: expected a result of the tensor's shape/)
    y.sum().backward()
    expect(values(y)).toEqual([1, 2])
    expect(values(w.grad)).toEqual([1, 1])
  })
})
