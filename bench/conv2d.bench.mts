// Convolutions of the MNIST and CIFAR networks: forward, and forward with backward.
import { conv2d, noGrad, ones, randn, type Tensor } from 'adjoint'
import { expectClose, type Row, type Suite } from './support/suite.mjs'

interface Shape {
  readonly n: number
  readonly c: number
  readonly size: number
  readonly k: number
  readonly padding: number
}

/** Some outputs in float64, by the definition. */
function checkForward({ c, size, padding }: Shape, x: Tensor, w: Tensor, y: Tensor): void {
  const [xs, ws, ys] = [x.dataSync(), w.dataSync(), y.dataSync()] as Float32Array[]
  const [, k, p, q] = y.shape
  for (let s = 0; s < 10; s++) {
    const [f, i, j] = [(s * 7) % k, (s * 5) % p, (s * 11) % q]
    let sum = 0
    for (let ch = 0; ch < c; ch++) {
      for (let r = 0; r < 9; r++) {
        const [h, v] = [i + Math.floor(r / 3) - padding, j + (r % 3) - padding]
        if (h < 0 || v < 0 || h >= size || v >= size) continue
        sum += xs[(ch * size + h) * size + v] * ws[(f * c + ch) * 9 + r]
      }
    }
    expectClose(`output ${f}, ${i}, ${j}`, [ys[(f * p + i) * q + j]], [sum], 1e-3)
  }
}

export const suite: Suite = {
  name: 'conv2d',
  rows: () => {
    const shapes: Shape[] = [
      { n: 64, c: 1, size: 28, k: 32, padding: 0 },
      { n: 64, c: 32, size: 14, k: 64, padding: 1 },
      { n: 64, c: 16, size: 32, k: 16, padding: 1 },
      { n: 32, c: 64, size: 32, k: 64, padding: 1 },
    ]
    return shapes.flatMap((shape): Row[] => {
      const { n, c, size, k, padding } = shape
      const x = randn([n, c, size, size], { requiresGrad: true })
      const w = randn([k, c, 3, 3], { requiresGrad: true })
      const out = size + 2 * padding - 2
      const flops = 2 * n * k * out * out * c * 9
      const name = `${n} x ${c} x ${size} x ${size} to ${k}`
      const both = () => {
        x.grad = null
        w.grad = null
        conv2d(x, w, null, { padding }).sum().backward()
      }
      return [
        {
          name,
          flops,
          check: () => noGrad(() => checkForward(shape, x, w, conv2d(x, w, null, { padding }))),
          run: () => noGrad(() => conv2d(x, w, null, { padding }).dispose()),
        },
        {
          name: `${name}, with backward`,
          flops: 3 * flops,
          // The gradient of a sum by the bias-free weights: the sum of each input's window.
          check: () => {
            both()
            const total = noGrad(() => (w.grad as Tensor).sum().item())
            const windows = conv2d(x.detach(), ones(w.shape), null, { padding }).sum().item()
            expectClose('sum of dw', [total], [windows], 1e-2)
          },
          run: both,
        },
      ]
    })
  },
}
