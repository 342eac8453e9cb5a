import { afterAll, beforeAll, expect, test } from 'vitest'
import {
  cat,
  conv2d,
  crossEntropy,
  getNumThreads,
  grad,
  linear,
  logSoftmax,
  manualSeed,
  randint,
  randn,
  randperm,
  scatterAdd,
  setNumThreads,
  softmax,
  type Tensor,
} from '../../src/index.js'

const before = getNumThreads()
beforeAll(() => manualSeed(7))
afterAll(() => setNumThreads(before))

const x = randn([300, 301])
const w = randn([64, 301])
const images = randn([4, 3, 29, 31])
const filters = randn([8, 3, 3, 3])
const classes = randint(0, 301, [300])
const slopes = (y: Tensor, of: Tensor[]) => cat(grad(y.sum(), of).map((g) => g.flatten()))

/** Work that is cut into chunks: large enough for several threads. */
const work: [string, () => Tensor][] = [
  ['a sum of all elements', () => x.mul(1e3).sum()],
  ['sums of rows and of columns', () => cat([x.sum(0), x.sum(1)])],
  ['a product of matrices', () => x.matmul(x.t())],
  [
    'a linear layer and its gradient',
    () => {
      const [a, b] = [x.detach().requiresGrad_(), w.detach().requiresGrad_()]
      return slopes(linear(a, b).square(), [a, b])
    },
  ],
  ['softmax along both axes', () => cat([softmax(x, 0), logSoftmax(x, 1)])],
  [
    'elementwise functions',
    () =>
      x
        .exp()
        .add(x.sin())
        .mul(x.t().slice(0, 0, 300).slice(1, 0, 1)),
  ],
  [
    'a convolution and its gradients',
    () => {
      const [a, b] = [images.detach().requiresGrad_(), filters.detach().requiresGrad_()]
      return slopes(conv2d(a, b, null, { padding: 1 }).square(), [a, b])
    },
  ],
  [
    'cross-entropy and its gradient',
    () => {
      const a = x.detach().requiresGrad_()
      return slopes(crossEntropy(a, classes), [a])
    },
  ],
  ['additions at repeated indices', () => scatterAdd(x, 1, randint(0, 301, [300, 301]), x)],
  ['random numbers', () => cat([randn([100_003]), randperm(5000).float()])],
]

test.each(work)('%s: the same bits with 1, 2, 3 and 7 threads, and twice', (_what, f) => {
  const run = (threads: number) => {
    setNumThreads(threads)
    manualSeed(11)
    const data = f().dataSync()
    return Buffer.from(data.buffer, data.byteOffset, data.byteLength)
  }
  const first = run(1)
  for (const threads of [1, 2, 3, 7]) expect(run(threads).equals(first), `${threads}`).toBe(true)
})
