// Reductions and softmax against reading the same memory once (a copy into recycled memory).
import { noGrad, rand, type Tensor } from 'adjoint'
import { expectClose, type Row, type Suite } from './support/suite.mjs'

export const suite: Suite = {
  name: 'reduce',
  rows: () => {
    const x = rand([2048, 2048])
    const values = x.dataSync() as Float32Array
    const total = values.reduce((sum, v) => sum + v, 0)
    const row = (name: string, op: () => Tensor, check: (y: Tensor) => void): Row => ({
      name,
      check: () => check(op()),
      run: () => noGrad(() => op().dispose()),
    })
    const sumsTo = (y: Tensor) => {
      const flat = Array.from(y.dataSync() as Float32Array)
      expectClose('total', [flat.reduce((a, b) => a + b, 0)], [total], 1e-3)
    }
    return [
      row('clone', () => x.clone(), sumsTo),
      row('sum over all', () => x.sum(), sumsTo),
      row('sum over rows', () => x.sum(1), sumsTo),
      row('sum over columns', () => x.sum(0), sumsTo),
      row(
        'amax over rows',
        () => x.amax(1),
        (y) => expectClose('amax', [y.amax().item()], [x.amax().item()]),
      ),
      row(
        'softmax over rows',
        () => x.softmax(1),
        (y) => expectClose('mass', [y.sum().item()], [2048], 1e-3),
      ),
    ]
  },
}
