import { describe, expect, test } from 'vitest'
import { AutogradError, customFunction, grad, type Tensor, tensor, zeros } from '../../src/index.js'
import { gradcheckTwice } from '../support/gradcheck.js'
import { SeededSampler } from '../support/sampler.js'
import { errorOf, values } from '../support/values.js'

const leaf = (v: number[]) => tensor(v, { requiresGrad: true })

const product = customFunction({
  name: 'product',
  forward: (context, a: Tensor, b: Tensor) => {
    context.saveForBackward(a, b)
    return a.mul(b)
  },
  backward: (context, dy) => {
    const [a, b] = context.savedTensors
    return [dy.mul(b), dy.mul(a)]
  },
})

const exponential = customFunction({
  name: 'exponential',
  forward: (context, x: Tensor) => {
    const y = x.exp()
    context.saveForBackward(y)
    return y
  },
  backward: (context, dy) => dy.mul(context.savedTensors[0]),
})

describe('customFunction', () => {
  test('records nothing of its forward, and runs its own backward', () => {
    const a = leaf([2])
    const b = leaf([3])
    const y = product(a, b)
    expect(String(y)).toContain('gradFn=product')
    y.sum().backward()
    expect([values(a.grad), values(b.grad)]).toEqual([[3], [2]])
  })

  test('double backward, through saved inputs and outputs', () => {
    const s = new SeededSampler(5)
    gradcheckTwice(([a, b]) => [product(a, b)], [s.normal([2, 3]), s.normal([2, 3])])
    gradcheckTwice(([x]) => [exponential(x)], [s.normal([3])])
  })

  test('several results: those without a gradient count as zeros', () => {
    const both = customFunction({
      forward: (_, x: Tensor) => [x.mul(2), x.mul(3), x.argmax(0)] as const,
      backward: (_, d2, d3) => d2.mul(2).add(d3.mul(3)),
    })
    const x = leaf([1, 5])
    const [a, b, c] = both(x)
    expect([a.requiresGrad, b.requiresGrad, c.requiresGrad]).toEqual([true, true, false])
    b.sum().backward(null, { retainGraph: true })
    expect(values(x.grad)).toEqual([3, 3])
    a.add(b).sum().backward()
    expect(values(x.grad)).toEqual([8, 8])
  })

  test('needsInputGrad, arguments that are no tensors, and null gradients', () => {
    let needs: readonly boolean[] = []
    const scale = customFunction({
      forward: (context, x: Tensor, factor: number, y: Tensor) => {
        needs = context.needsInputGrad
        return x.mul(factor).add(y)
      },
      backward: (_, dy) => [dy.mul(10), null, null],
    })
    const x = leaf([1])
    scale(x, 10, tensor([1]))
      .sum()
      .backward()
    expect(needs).toEqual([true, false, false])
    expect(values(x.grad)).toEqual([10])
  })

  test('without anything that requires a gradient it is only its forward', () => {
    expect(product(tensor([2]), tensor([3])).requiresGrad).toBe(false)
  })

  test('an argument that is returned gets an identity of its own', () => {
    const identity = customFunction({
      forward: (_, x: Tensor) => x,
      backward: (_, dy) => dy.mul(5),
    })
    const x = leaf([1])
    const y = identity(x)
    expect(y).not.toBe(x)
    y.sum().backward()
    expect(values(x.grad)).toEqual([5])
    expect(x.isLeaf).toBe(true)
  })

  test('a gradient that is handed on is not shared by two leaves', () => {
    const passOn = customFunction({
      forward: (_, a: Tensor, b: Tensor) => a.add(b),
      backward: (_, dy) => [dy, dy],
    })
    const a = leaf([1])
    const b = leaf([1])
    passOn(a, b).sum().backward()
    ;(a.grad as Tensor).add_(1)
    expect(values(b.grad)).toEqual([1])
  })

  test('a saved value that was overwritten is an error that names the function', () => {
    const x = leaf([1]).mul(1)
    const y = exponential(x)
    y.add_(1)
    expect(errorOf(AutogradError, () => y.sum().backward())).toMatch(/that exponential saved/)
  })

  test('saved values are freed by backward', () => {
    const y = exponential(leaf([1])).sum()
    y.backward()
    expect(errorOf(AutogradError, () => y.backward())).toMatch(/freed.*exponential/)
  })

  test('too many gradients are refused, gradients of a wrong shape too', () => {
    const wrong = (backward: (dy: Tensor) => Tensor[]) =>
      customFunction({
        name: 'wrong',
        forward: (_, x: Tensor) => x.mul(2),
        backward: (_, dy) => backward(dy),
      })
    const run = (f: (x: Tensor) => Tensor) => () =>
      f(leaf([1, 2]))
        .sum()
        .backward()
    expect(errorOf(AutogradError, run(wrong((dy) => [dy, dy])))).toMatch(
      /^wrong: expected at most 1/,
    )
    expect(run(wrong(() => [zeros([3])]))).toThrow(/\[3\]/)
    expect(run(wrong(() => [zeros([])]))).toThrow(/^backward: expected wrong to give/)
  })

  test('an error in backward leaves the library usable', () => {
    const broken = customFunction({
      forward: (_, x: Tensor) => x.mul(2),
      backward: () => {
        throw new Error('in backward')
      },
    })
    const x = leaf([1])
    expect(() => broken(x).sum().backward()).toThrow('in backward')
    expect(values(grad(x.mul(3).sum(), [x])[0])).toEqual([3])
  })
})
