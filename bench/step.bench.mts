// Whole training steps (AdamW, cross-entropy) of the small networks, batch 64.
import { randint, randn, type Tensor } from 'adjoint'
import * as nn from 'adjoint/nn'
import { AdamW } from 'adjoint/optim'
import {
  lenetWithBatchNorm,
  mlpWithDropout,
  oneConvolution,
} from '../examples/support/networks.mjs'
import type { Row, Suite } from './support/suite.mjs'

const networks: Record<string, () => nn.Module> = {
  'MLP 784-256-128-10 with dropout': () => mlpWithDropout(0.5),
  'one convolution, two linear layers': oneConvolution,
  'LeNet with batch norm': lenetWithBatchNorm,
}

export const suite: Suite = {
  name: 'training step, float32, batch 64',
  rows: () =>
    Object.entries(networks).map(([name, make]): Row => {
      const net = make()
      const optimizer = new AdamW(net.parameters(), { lr: 1e-3 })
      const x = randn([64, 1, 28, 28])
      const y = randint(0, 10, [64])
      const step = (): Tensor => {
        optimizer.zeroGrad()
        const loss = nn.functional.crossEntropy(net.forward(x) as Tensor, y)
        loss.backward()
        optimizer.step()
        return loss
      }
      return {
        name,
        // It must learn the batch by heart.
        check: () => {
          const before = step().item()
          for (let i = 0; i < 30; i++) step()
          const after = step().item()
          if (!(after < before)) throw new Error(`${name}: loss went from ${before} to ${after}`)
        },
        run: step,
      }
    }),
}
