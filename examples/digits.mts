// npm run train: a convolutional network learns handwritten digits.
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { AdjointError, manualSeed, type Tensor } from 'adjoint'
import {
  DataLoader,
  type ImageDataset,
  loadMnist,
  randomSplit,
  syntheticDigits,
} from 'adjoint/data'
import { saveSafetensors, writeFileAtomic } from 'adjoint/io'
import * as nn from 'adjoint/nn'
import { AdamW, CosineAnnealingLR } from 'adjoint/optim'
import { classifierStep, Trainer } from 'adjoint/train'
import { makeFolder } from './support/folders.mjs'

const HELP = `Trains a convolutional network on handwritten digits.

  npm run train -- [options]

  --data DIR        folder with MNIST or Fashion-MNIST as published (train-images-idx3-ubyte.gz,
                    train-labels-idx1-ubyte.gz, t10k-…); default: digits drawn by this project
  --epochs N        default 5
  --batch-size N    default 64
  --seed N          of the weights, dropout and the order of the samples; default 0
  --out DIR         where weights, checkpoint and curves go; default runs/digits
  --resume          goes on from the checkpoint in the output folder
  --check           exit code 1 if the test accuracy is below the one stated for the data set
  --help            this text

Ctrl-C stops after the batch under way and leaves a checkpoint.`

/** What each data set is told apart by (its first training labels) and must reach in 5 epochs. */
const DATA_SETS = [
  { name: 'drawn digits', firstLabels: '0123456789', accuracy: 0.99 },
  { name: 'MNIST', firstLabels: '5041921314', accuracy: 0.99 },
  { name: 'Fashion-MNIST', firstLabels: '9003027255', accuracy: 0.9 },
]

/** Two convolutions and two linear layers, with batch norm and dropout. x [N, 1, 28, 28] */
class DigitNet extends nn.Module {
  conv1 = new nn.Conv2d(1, 16, 3, { padding: 1, bias: false })
  norm1 = new nn.BatchNorm2d(16)
  conv2 = new nn.Conv2d(16, 32, 3, { padding: 1, bias: false })
  norm2 = new nn.BatchNorm2d(32)
  pool = new nn.MaxPool2d(2)
  fc1 = new nn.Linear(32 * 7 * 7, 128)
  dropout = new nn.Dropout(0.3)
  fc2 = new nn.Linear(128, 10)

  override forward(x: Tensor): Tensor {
    const a = this.pool.forward(this.norm1.forward(this.conv1.forward(x)).relu())
    const b = this.pool.forward(this.norm2.forward(this.conv2.forward(a)).relu())
    const h = this.fc1.forward(b.flatten(1)).relu()
    return this.fc2.forward(this.dropout.forward(h))
  }
}

function readOptions() {
  const { values } = parseArgs({
    options: {
      data: { type: 'string' },
      epochs: { type: 'string', default: '5' },
      'batch-size': { type: 'string', default: '64' },
      seed: { type: 'string', default: '0' },
      out: { type: 'string', default: 'runs/digits' },
      resume: { type: 'boolean', default: false },
      check: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  const integer = (name: 'epochs' | 'batch-size' | 'seed', least: number): number => {
    const value = Number(values[name])
    if (!/^\d+$/.test(values[name]) || !Number.isSafeInteger(value) || value < least) {
      throw new TypeError(
        `--${name}: expected a whole number of ${least} or more, got '${values[name]}'`,
      )
    }
    return value
  }
  return {
    ...values,
    epochs: integer('epochs', 1),
    batchSize: integer('batch-size', 1),
    seed: integer('seed', 0),
  }
}

type Options = ReturnType<typeof readOptions>

function load(folder: string | undefined): { train: ImageDataset; test: ImageDataset } {
  if (folder === undefined)
    return { train: syntheticDigits('train'), test: syntheticDigits('test') }
  return { train: loadMnist(folder, 'train'), test: loadMnist(folder, 'test') }
}

/** Bytes to floats of about mean 0 and deviation 1, measured on the first training images. */
function normaliser({ tensors: [images] }: ImageDataset) {
  const floats = images.slice(0, 0, 5000).float()
  const mean = floats.mean().item()
  const deviation = floats.std().item()
  return ([x, y]: readonly [Tensor, Tensor]): [Tensor, Tensor] => [
    x.float().sub(mean).div(deviation),
    y,
  ]
}

async function main(options: Options): Promise<number> {
  const { epochs, batchSize, seed, out } = options
  const { train, test } = load(options.data)
  const firstLabels = train.tensors[1].slice(0, 0, 10).toArray().toString().replaceAll(',', '')
  const known = DATA_SETS.find((set) => set.firstLabels === firstLabels)
  const name = known?.name ?? (options.data as string)

  manualSeed(seed)
  const model = new DigitNet()
  const transform = normaliser(train)
  const [learn, validate] = randomSplit(train, [0.9, 0.1])
  const loader = new DataLoader(learn, { batchSize, shuffle: true, seed, transform })
  const validation = new DataLoader(validate, { batchSize: 500, transform })
  const optimizer = new AdamW(model.parameters(), { lr: 2e-3 })
  const schedule = new CosineAnnealingLR(optimizer, { tMax: epochs * loader.length })
  const trainer = new Trainer({
    model,
    optimizer,
    schedule,
    scheduleEvery: 'batch',
    step: classifierStep((x) => model.forward(x)),
  })

  makeFolder(out)
  const checkpoint = join(out, 'checkpoint.safetensors')
  console.log(`Training on ${learn.length.toLocaleString('en-US')} images of ${name}`)
  const { history, end } = await trainer.fit(loader, {
    epochs,
    validation,
    checkpoint: { path: checkpoint, everySeconds: 10 },
    resume: options.resume ? checkpoint : undefined,
  })
  if (end === 'interrupted') {
    console.log(`Stopped. The same command with --resume goes on from ${checkpoint}`)
    return 130
  }

  const { accuracy = 0 } = await trainer.evaluate(
    new DataLoader(test, { batchSize: 500, transform }),
  )
  const weights = join(out, 'weights.safetensors')
  saveSafetensors(weights, model.stateDict())
  // Imported late: the plotting library takes longer to load than all the rest.
  const { curvesSvg } = await import('./support/curves.mjs')
  const curves = join(out, 'curves.svg')
  const points = history.map(({ epoch, loss, accuracy = 0, validation }) => ({
    epoch,
    loss,
    accuracy,
    validationLoss: validation?.loss ?? Number.NaN,
    validationAccuracy: validation?.accuracy ?? Number.NaN,
  }))
  writeFileAtomic(curves, (append) => append(Buffer.from(curvesSvg(`Learning ${name}`, points))))

  console.log(`Test accuracy  ${(100 * accuracy).toFixed(2)} %`)
  console.log(`Weights        ${weights}`)
  console.log(`Curves         ${curves}`)
  if (!options.check) return 0
  if (known === undefined) {
    console.error('--check: no accuracy is stated for this data set')
    return 1
  }
  const passed = accuracy >= known.accuracy
  const stated = `${100 * known.accuracy} % stated for ${name}`
  console.log(`Check          ${passed ? 'passed' : 'FAILED'}: ${stated}`)
  return passed ? 0 : 1
}

let options: Options
try {
  options = readOptions()
} catch (error) {
  console.error(`${(error as Error).message}\n--help lists the options.`)
  process.exit(2)
}
if (options.help) {
  console.log(HELP)
} else {
  try {
    process.exitCode = await main(options)
  } catch (error) {
    // What is wrong with a file or an argument is said in one line; the rest are bugs.
    if (!(error instanceof AdjointError)) throw error
    console.error(error.message)
    process.exitCode = 1
  }
}
