// An epoch over 10,000 drawn digits: loader, conversion, step and all.
import { manualSeed, type Tensor } from 'adjoint'
import { DataLoader, syntheticDigits } from 'adjoint/data'
import * as nn from 'adjoint/nn'
import { AdamW } from 'adjoint/optim'
import type { Suite } from './support/suite.mjs'

export const suite: Suite = {
  name: 'epoch',
  rows: () => {
    manualSeed(0)
    const loader = new DataLoader(syntheticDigits('test'), {
      batchSize: 64,
      shuffle: true,
      transform: ([x, y]: readonly [Tensor, Tensor]): [Tensor, Tensor] => [x.float().div(255), y],
    })
    const net = new nn.Sequential(
      new nn.Conv2d(1, 16, 3, { padding: 1 }),
      new nn.ReLU(),
      new nn.MaxPool2d(2),
      new nn.Flatten(),
      new nn.Linear(16 * 14 * 14, 10),
    )
    const optimizer = new AdamW(net.parameters(), { lr: 1e-3 })
    const epoch = (): number => {
      let last = Number.NaN
      let batch = 0
      for (const [x, y] of loader) {
        optimizer.zeroGrad()
        const loss = nn.functional.crossEntropy(net.forward(x) as Tensor, y)
        loss.backward()
        optimizer.step()
        if (++batch === loader.length) last = loss.item()
      }
      return last
    }
    return [
      {
        name: `a batch of ${loader.length} drawn digits`,
        operations: loader.length,
        check: () => {
          const last = epoch()
          if (!(last < 2)) throw new Error(`expected a loss below 2 after an epoch, got ${last}`)
        },
        run: () => void epoch(),
      },
    ]
  },
}
