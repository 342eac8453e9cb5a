// Published results on MNIST, one network at a time:
//   npm run mnist -- --model mlp --data DIR --check
// DIR holds the four published gzip'd IDX files.
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { AdjointError, manualSeed, type Tensor } from 'adjoint'
import { DataLoader, type ImageDataset, loadMnist } from 'adjoint/data'
import { loadSafetensors, saveSafetensors } from 'adjoint/io'
import * as nn from 'adjoint/nn'
import { AdamW, OneCycleLR } from 'adjoint/optim'
import { classifierStep, Trainer } from 'adjoint/train'
import { makeFolder } from './support/folders.mjs'
import { lenetWithBatchNorm, mlpWithDropout, oneConvolution } from './support/networks.mjs'

interface Example {
  readonly what: string
  readonly make: () => nn.Layer
  readonly epochs: number
  readonly lr: number
  /** Test accuracy that is published for such a network, or expected of it. */
  readonly accuracy: number
  /** Results are means over these. */
  readonly seeds: readonly number[]
}

const EXAMPLES: Record<string, Example> = {
  mlp: {
    what: '784-128-10',
    make: () =>
      new nn.Sequential(
        new nn.Flatten(),
        new nn.Linear(784, 128),
        new nn.ReLU(),
        new nn.Linear(128, 10),
      ),
    epochs: 10,
    lr: 2e-3,
    accuracy: 0.97,
    seeds: [0],
  },
  'mlp-dropout': {
    what: '784-256-128-10 with dropout, saved and loaded again',
    make: () => mlpWithDropout(0.2),
    epochs: 10,
    lr: 3e-3,
    accuracy: 0.982,
    seeds: [0],
  },
  cnn: {
    what: 'one 3x3 convolution (32 channels), two linear layers',
    make: oneConvolution,
    epochs: 5,
    lr: 2e-3,
    accuracy: 0.985,
    seeds: [0],
  },
  'lenet-bn': {
    what: 'LeNet-like with batch norm',
    make: lenetWithBatchNorm,
    epochs: 8,
    lr: 4e-3,
    accuracy: 0.992,
    seeds: [0, 1, 2],
  },
}

// Of the 60,000 training images, over 255.
const MEAN = 0.1307
const DEVIATION = 0.3081

function loaderOf(
  data: ImageDataset,
  shuffle: boolean,
  seed: number,
): DataLoader<[Tensor, Tensor]> {
  return new DataLoader(data, {
    batchSize: shuffle ? 64 : 500,
    shuffle,
    seed,
    transform: ([x, y]): [Tensor, Tensor] => [x.float().div(255).sub(MEAN).div(DEVIATION), y],
  })
}

/** Trains once and returns the test accuracy of the weights as read back from their file. */
async function run(
  name: string,
  example: Example,
  seed: number,
  epochs: number,
  data: { train: ImageDataset; test: ImageDataset },
  out: string,
): Promise<number> {
  manualSeed(seed)
  const model = example.make()
  const loader = loaderOf(data.train, true, seed)
  const optimizer = new AdamW(model.parameters(), { lr: example.lr })
  const schedule = new OneCycleLR(optimizer, {
    maxLr: example.lr,
    totalSteps: epochs * loader.length,
  })
  const trainer = new Trainer({
    model,
    optimizer,
    schedule,
    scheduleEvery: 'batch',
    step: classifierStep((x) => model.forward(x)),
  })
  await trainer.fit(loader, { epochs })

  const file = join(out, `${name}-${seed}.safetensors`)
  saveSafetensors(file, model.stateDict())
  const loaded = example.make()
  loaded.loadStateDict(loadSafetensors(file))
  const evaluator = new Trainer({
    model: loaded,
    optimizer,
    step: classifierStep((x) => loaded.forward(x)),
  })
  const { accuracy = 0 } = await evaluator.evaluate(loaderOf(data.test, false, seed))
  return accuracy
}

const HELP = `Trains a network on MNIST to the accuracy stated for it.

  --model NAME   ${Object.keys(EXAMPLES).join(', ')}; default mlp
  --data DIR     folder with the published files
  --epochs N     default: what the result is stated for
  --out DIR      where weights go; default runs/mnist
  --check        exit code 1 if the mean test accuracy is below the one stated
`

const { values } = parseArgs({
  options: {
    model: { type: 'string', default: 'mlp' },
    data: { type: 'string' },
    epochs: { type: 'string' },
    out: { type: 'string', default: 'runs/mnist' },
    check: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
const example = EXAMPLES[values.model]
const epochs = values.epochs === undefined ? example?.epochs : Number(values.epochs)
if (values.help || !example || !values.data || !(Number.isInteger(epochs) && epochs > 0)) {
  console.log(HELP)
  process.exitCode = values.help ? 0 : 2
} else {
  try {
    const data = { train: loadMnist(values.data, 'train'), test: loadMnist(values.data, 'test') }
    makeFolder(values.out)
    console.log(`${example.what}, ${epochs} epochs`)
    const accuracies: number[] = []
    for (const seed of example.seeds) {
      const accuracy = await run(values.model, example, seed, epochs, data, values.out)
      accuracies.push(accuracy)
      console.log(`seed ${seed}: test accuracy ${(100 * accuracy).toFixed(2)} %`)
    }
    const mean = accuracies.reduce((a, b) => a + b, 0) / accuracies.length
    const passed = mean >= example.accuracy
    console.log(
      `mean ${(100 * mean).toFixed(2)} %, stated ${100 * example.accuracy} %: ` +
        (passed ? 'reached' : 'MISSED'),
    )
    if (values.check && !passed) process.exitCode = 1
  } catch (error) {
    if (!(error instanceof AdjointError)) throw error
    console.error(error.message)
    process.exitCode = 1
  }
}
