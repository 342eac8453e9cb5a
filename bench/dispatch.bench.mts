// What one op costs from the call to the kernel and back: wrapper, tape node and reclamation
// included. Targets: add of 4 elements at most 450 ns, 700 ns with gradient.
import { capture, type Tensor, tensor } from 'adjoint'
import { chain, chainInputs } from './support/chain.mjs'
import { expectClose, type Row, type Suite } from './support/suite.mjs'

const REPEAT = 100

export const suite: Suite = {
  name: 'dispatch',
  rows: () => {
    const a = tensor([1, 2, 3, 4])
    const b = tensor([5, 6, 7, 8])
    const w = tensor([1, 2, 3, 4], { requiresGrad: true })
    const row = (name: string, op: () => Tensor, expected: number[]): Row => ({
      name,
      operations: REPEAT,
      check: () => expectClose(name, op().dataSync(), expected),
      run: () => {
        for (let i = 0; i < REPEAT; i++) op()
      },
    })
    const inputs = chainInputs(4)
    const capturedInputs = chainInputs(4)
    const captured = capture(() => chain(capturedInputs))
    return [
      row('add', () => a.add(b), [6, 8, 10, 12]),
      row('add, with gradient', () => w.add(b), [6, 8, 10, 12]),
      row('mul, with gradient', () => w.mul(b), [5, 12, 21, 32]),
      row('add a number', () => a.add(1), [2, 3, 4, 5]),
      row('view', () => a.reshape([2, 2]), [1, 2, 3, 4]),
      {
        name: '20 ops, forward and backward',
        check: () => expectClose('elements', [chain(inputs).numel], [4]),
        run: () => chain(inputs),
      },
      {
        name: '20 ops, forward and backward, captured',
        check: () => {
          const expected = chain(chainInputs(4)).dataSync() as Float32Array
          for (let i = 0; i < 4; i++) expectClose('gradient', captured().dataSync(), expected, 0)
        },
        run: captured,
      },
    ]
  },
}
