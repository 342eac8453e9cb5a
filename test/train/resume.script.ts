// Trains a small network with everything that has a state: dropout, batch norm, AdamW, a schedule,
// a shuffled loader. Arguments: file of the checkpoint, "fresh" or "resume".
// Prints a line per batch, and last the hash of all weights and the history.
import { createHash } from 'node:crypto'
import { manualSeed } from '../../src/core/generator.js'
import type { Tensor } from '../../src/core/tensor.js'
import { DataLoader, syntheticDigits } from '../../src/data/index.js'
import * as nn from '../../src/nn/index.js'
import { AdamW, CosineAnnealingLR } from '../../src/optim/index.js'
import { classifierStep, Trainer } from '../../src/train/index.js'

const [path, mode] = process.argv.slice(2)

class Net extends nn.Module {
  conv = new nn.Conv2d(1, 4, 3, { stride: 2 })
  norm = new nn.BatchNorm2d(4)
  dropout = new nn.Dropout(0.5)
  fc = new nn.Linear(4 * 13 * 13, 10)

  override forward(x: Tensor): Tensor {
    const h = this.norm.forward(this.conv.forward(x)).relu().flatten(1)
    return this.fc.forward(this.dropout.forward(h))
  }
}

async function main() {
  // On resuming, the weights start from elsewhere: all must come from the file.
  manualSeed(mode === 'resume' ? 1 : 0)
  const model = new Net()
  const loader = new DataLoader(syntheticDigits('train', { count: 150 }), {
    batchSize: 10,
    shuffle: true,
    seed: 3,
    transform: ([x, y]): [Tensor, Tensor] => [x.float().div(255), y],
  })
  const optimizer = new AdamW(model.parameters(), { lr: 1e-2 })
  const trainer = new Trainer({
    model,
    optimizer,
    schedule: new CosineAnnealingLR(optimizer, { tMax: 60 }),
    scheduleEvery: 'batch',
    step: classifierStep((x) => model.forward(x)),
  })
  const { end, history } = await trainer.fit(loader, {
    epochs: 4,
    progress: false,
    checkpoint: { path, everyBatches: 4 },
    resume: mode === 'resume' ? path : undefined,
    onBatchEnd: ({ epoch, batch }) => console.log(`batch ${epoch}.${batch}`),
  })

  const hash = createHash('sha256')
  for (const [key, value] of Object.entries(model.stateDict())) {
    hash.update(key).update(new Uint8Array(value.dataSync().buffer))
  }
  for (const { epoch, loss, accuracy } of history) hash.update(`${epoch} ${loss} ${accuracy}`)
  console.log(`${end} ${hash.digest('hex')}`)
}

main()
