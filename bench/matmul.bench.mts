// Matrix products. `bench_native` of the self-test build prints the probed rate of the processor.
import { noGrad, randn, type Tensor } from 'adjoint'
import { expectClose, type Row, type Suite } from './support/suite.mjs'

/** Some elements of a b, in float64. */
function checkProduct(a: Tensor, b: Tensor, y: Tensor): void {
  const [x, w, p] = [a.dataSync(), b.dataSync(), y.dataSync()] as Float32Array[]
  const [m, k] = a.shape
  const n = b.shape[1]
  for (let s = 0; s < 20; s++) {
    const [i, j] = [(s * 7919) % m, (s * 104729) % n]
    let sum = 0
    for (let l = 0; l < k; l++) sum += x[i * k + l] * w[l * n + j]
    expectClose(`element ${i}, ${j}`, [p[i * n + j]], [sum], 1e-3)
  }
}

export const suite: Suite = {
  name: 'matmul',
  rows: () => {
    const shapes = [
      [512, 512, 512],
      [64, 64, 64],
      [256, 256, 256],
      [1024, 1024, 1024],
      [64, 784, 256],
      [64, 21632, 128],
      [1, 1024, 1024],
    ]
    return shapes.map(([m, k, n]): Row => {
      const a = randn([m, k])
      const b = randn([k, n])
      return {
        name: `${m} x ${k} x ${n}`,
        flops: 2 * m * k * n,
        check: () => checkProduct(a, b, a.matmul(b)),
        run: () => noGrad(() => a.matmul(b).dispose()),
      }
    })
  },
}
