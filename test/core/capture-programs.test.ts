import { expect, test } from 'vitest'
import { capture, cat, manualSeed, noGrad, randn, type Tensor } from '../../src/index.js'
import { Random } from '../support/sampler.js'
import { bits } from '../support/twins.js'

const SIZE = 7

/** What makes one more square matrix of those there are; some in place, some by views. */
const moves: readonly ((a: Tensor, b: Tensor) => Tensor)[] = [
  (a, b) => a.add(b),
  (a, b) => a.mul(b).sub(0.5),
  (a, b) => a.matmul(b).tanh(),
  (a) => a.t(),
  (a) => a.exp().add(1).log(),
  (a, b) => cat([a.slice(0, 0, 3), b.slice(0, 3, SIZE)], 0),
  (a, b) => a.sum(1, { keepdim: true }).add(b).softmax(0),
  (a, b) => a.clone().mul_(0.5).add_(b.t()),
  (a, b) => {
    const c = a.clone()
    c.slice(0, 1, 4).copy_(b.slice(0, 0, 3).t().sum(0).unsqueeze(1))
    return c
  },
  (a, b) => {
    const y = a.mul(2)
    y.dispose()
    return b.sub(a)
  },
]

/** A program drawn from a seed: many temporaries of mixed lifetimes, gradients, several results. */
function program(seed: number, w: Tensor): (x: Tensor) => Tensor[] {
  return (x) => {
    const random = new Random(seed)
    const values: Tensor[] = [x, w, x.add(w)]
    const pick = () => values[random.integer(0, values.length)]
    for (let i = 0; i < 30; i++) {
      values.push(moves[random.integer(0, moves.length)](pick(), pick()))
      if (values.length > 6) values.splice(random.integer(0, values.length), 1)
    }
    w.grad = null
    const loss = values.reduce((sum, v) => sum.add(v.mean()), w.sum())
    loss.backward()
    noGrad(() => w.sub_((w.grad as Tensor).mul(0.01)))
    return [loss, pick(), values[values.length - 1]]
  }
}

test.each(Array.from({ length: 40 }, (_, seed) => seed))('program %i', (seed) => {
  const run = (isCaptured: boolean) => {
    manualSeed(seed)
    const w = randn([SIZE, SIZE], { requiresGrad: true })
    const body = program(seed, w)
    const step = isCaptured ? capture(body) : body
    return Array.from({ length: 5 }, () => {
      const results = step(randn([SIZE, SIZE]))
      expect(results.every((t) => Number.isFinite(t.sum().item()))).toBe(true)
      return [...results, w, w.grad as Tensor].map(bits)
    })
  }
  expect(run(true)).toEqual(run(false))
})
