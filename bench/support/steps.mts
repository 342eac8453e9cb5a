// The training steps that are timed: AdamW on cross-entropy, one batch of random data.
import { autocast, capture, manualSeed, randint, randn, type Tensor } from 'adjoint'
import * as nn from 'adjoint/nn'
import { AdamW, clipGradNorm_ } from 'adjoint/optim'
import { CharLstm } from '../../examples/support/char-lstm.mjs'
import { Gpt } from '../../examples/support/gpt.mjs'
import {
  lenetWithBatchNorm,
  mlpWithDropout,
  oneConvolution,
} from '../../examples/support/networks.mjs'
import { ResNet } from '../../examples/support/resnet.mjs'

/** bfloat16: float32 weights under autocast. */
export const PRECISIONS = ['float32', 'bfloat16'] as const
export type Precision = (typeof PRECISIONS)[number]

export interface Batch {
  readonly x: Tensor
  /** int64 [samples] */
  readonly y: Tensor
}

export interface StepRow {
  /** Also what the peers call the network. */
  readonly name: string
  /** From what it reads to logits [samples, classes]. */
  readonly network: () => nn.Layer
  /** How many values its parameters have. */
  readonly parameters: number
  /** Inputs and labels; fewer samples than usual where a check wants them. */
  readonly batch: (samples?: number) => Batch
  /** Whether its gradients are clipped to norm 1. */
  readonly clips?: boolean
  /**
   * Arithmetic of a step in GFLOP: matrix products and convolutions by their definition, forward and
   * backward.
   */
  readonly gflop?: number
}

const images =
  (usual: number, channels: number, size: number) =>
  (samples = usual): Batch => ({
    x: randn([samples, channels, size, size]),
    y: randint(0, 10, [samples]),
  })

const digits = images(64, 1, 28)

const VOCABULARY = 65

/** Sequences of tokens; the samples are the sequences. */
const text =
  (usual: number, length: number) =>
  (samples = usual): Batch => ({
    x: randint(0, VOCABULARY, [samples, length]),
    y: randint(0, VOCABULARY, [samples * length]),
  })

export const stepRows: readonly StepRow[] = [
  {
    name: 'mlp-tiny',
    network: () => new nn.Sequential(new nn.Linear(10, 10), new nn.ReLU(), new nn.Linear(10, 10)),
    parameters: 220,
    batch: () => ({ x: randn([1, 10]), y: randint(0, 10, [1]) }),
  },
  {
    name: 'mlp',
    network: () => mlpWithDropout(0.5),
    parameters: 235_146,
    batch: digits,
    gflop: 0.06,
  },
  { name: 'cnn', network: oneConvolution, parameters: 2_770_634, batch: digits, gflop: 1.1 },
  { name: 'lenet-bn', network: lenetWithBatchNorm, parameters: 421_834, batch: digits, gflop: 1.6 },
  {
    name: 'resnet20',
    network: () => new ResNet(3, 16),
    parameters: 272_474,
    batch: images(64, 3, 32),
    gflop: 15.6,
  },
  {
    name: 'resnet-w64',
    network: () => new ResNet(2, 64),
    parameters: 2_777_674,
    batch: images(32, 3, 32),
    gflop: 81,
  },
  {
    name: 'gpt-128',
    network: () =>
      new Gpt({ vocabulary: VOCABULARY, context: 128, layers: 4, heads: 4, width: 128 }),
    parameters: 826_368,
    batch: text(16, 128),
    gflop: 10.7,
  },
  {
    name: 'gpt-384',
    network: () =>
      new Gpt({ vocabulary: VOCABULARY, context: 256, layers: 6, heads: 6, width: 384 }),
    parameters: 10_795_776,
    batch: text(8, 256),
    gflop: 139,
  },
  {
    name: 'lstm',
    network: () => new CharLstm(VOCABULARY, 64, 256, 2),
    parameters: 876_929,
    batch: text(32, 64),
    gflop: 10.7,
  },
]

/** A network with its optimizer and its batch, drawn from one seed. */
export class TrainingStep {
  readonly network: nn.Layer
  readonly batch: Batch
  readonly #optimizer: AdamW
  #step: (x: Tensor, y: Tensor) => Tensor

  /**
   * Default float32; float64 from the same weights and batch. With `samples` the batch is that small.
   * With `isCaptured` the third run and those after it are replays.
   */
  constructor(
    private readonly row: StepRow,
    readonly precision: Precision | 'float64' = 'float32',
    samples?: number,
    private readonly isCaptured = false,
  ) {
    manualSeed(0)
    this.network = row.network()
    const count = this.network.parameters().reduce((sum, p) => sum + p.numel, 0)
    if (count !== row.parameters) {
      throw new Error(`step/${row.name}: expected ${row.parameters} parameters, got ${count}`)
    }
    const { x, y } = row.batch(samples)
    this.batch = { x: precision === 'float64' && x.dtype === 'float32' ? x.double() : x, y }
    if (precision === 'float64') this.network.to('float64')
    this.#optimizer = new AdamW(this.network.parameters(), { lr: 1e-3 })
    this.#step = this.#make()
  }

  /** The loss. */
  forward(x = this.batch.x, y = this.batch.y): Tensor {
    const loss = () => nn.functional.crossEntropy(this.network.forward(x), y)
    return this.precision === 'bfloat16' ? autocast('bfloat16', loss) : loss()
  }

  /** One step; the loss before it. */
  run(): Tensor {
    return this.#step(this.batch.x, this.batch.y)
  }

  #make(): (x: Tensor, y: Tensor) => Tensor {
    const train = (x: Tensor, y: Tensor) => this.#train(x, y)
    return this.isCaptured ? capture(train) : train
  }

  #train(x: Tensor, y: Tensor): Tensor {
    this.#optimizer.zeroGrad()
    const loss = this.forward(x, y)
    loss.backward()
    if (this.row.clips) clipGradNorm_(this.network.parameters(), 1)
    this.#optimizer.step()
    return loss
  }

  /** Of the first `count` steps, without dropout, whose masks no other library draws alike. */
  losses(count: number): number[] {
    const dropout = (active: boolean) => {
      for (const module of this.network.modules()) {
        if (module instanceof nn.Dropout) module.train(active)
      }
      // What was captured went by the other mode.
      this.#step = this.#make()
    }
    dropout(false)
    const values = Array.from({ length: count }, () => this.run().item())
    dropout(true)
    return values
  }
}

/** The greatest difference of two runs of losses, relative where they are above 1. */
export function lossError(actual: readonly number[], expected: readonly number[]): number {
  const errors = actual.map(
    (loss, i) => Math.abs(loss - expected[i]) / Math.max(1, Math.abs(expected[i])),
  )
  return errors.some(Number.isNaN) ? Number.POSITIVE_INFINITY : Math.max(...errors)
}
