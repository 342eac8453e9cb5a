// The networks of the training steps on a GPU: those of the CPU's benchmark that are launch-bound
// there, and what such a card is bought for.
import { randint, randn, type Tensor } from 'adjoint'
import * as nn from 'adjoint/nn'
import { Gpt } from '../../examples/support/gpt.mjs'
import { ResidualBlock, shortcut } from '../../examples/support/resnet.mjs'
import { type StepRow, stepRows } from '../support/steps.mjs'

const { relu } = nn.functional

/** 1x1, 3x3 and 1x1 convolutions with batch norm around a shortcut (He et al. 2016). */
class Bottleneck extends nn.Module {
  readonly body: nn.Sequential
  readonly shortcut: nn.Sequential

  constructor(inChannels: number, width: number, stride: number) {
    super()
    const outChannels = 4 * width
    this.body = new nn.Sequential(
      new nn.Conv2d(inChannels, width, 1, { bias: false }),
      new nn.BatchNorm2d(width),
      new nn.ReLU(),
      new nn.Conv2d(width, width, 3, { stride, padding: 1, bias: false }),
      new nn.BatchNorm2d(width),
      new nn.ReLU(),
      new nn.Conv2d(width, outChannels, 1, { bias: false }),
      new nn.BatchNorm2d(outChannels),
    )
    this.shortcut = shortcut(inChannels, outChannels, stride)
  }

  forward(x: Tensor): Tensor {
    return relu(this.body.forward(x).add(this.shortcut.forward(x)))
  }
}

type Block = new (inChannels: number, width: number, stride: number) => nn.Module & nn.Layer

/** ResNet-18 (blocks of two 3x3) or ResNet-50 (bottlenecks): x [N, 3, 224, 224], logits [N, 1000]. */
class ImageNetResNet extends nn.Module {
  readonly stem: nn.Sequential
  readonly blocks: nn.Sequential
  readonly head: nn.Linear

  constructor(block: Block, expansion: number, counts: readonly number[]) {
    super()
    this.stem = new nn.Sequential(
      new nn.Conv2d(3, 64, 7, { stride: 2, padding: 3, bias: false }),
      new nn.BatchNorm2d(64),
      new nn.ReLU(),
      new nn.MaxPool2d(3, { stride: 2, padding: 1 }),
    )
    this.blocks = new nn.Sequential()
    let channels = 64
    for (const [stage, count] of counts.entries()) {
      const width = 64 << stage
      for (let i = 0; i < count; i++) {
        this.blocks.push(new block(channels, width, stage > 0 && i === 0 ? 2 : 1))
        channels = expansion * width
      }
    }
    this.head = new nn.Linear(channels, 1000)
  }

  forward(x: Tensor): Tensor {
    return this.head.forward(this.blocks.forward(this.stem.forward(x)).mean([2, 3]))
  }
}

const photographs =
  (usual: number) =>
  (samples = usual) => ({
    x: randn([samples, 3, 224, 224]),
    y: randint(0, 1000, [samples]),
  })

const LAUNCH_BOUND = ['mlp', 'cnn', 'lenet-bn', 'resnet20', 'gpt-128', 'lstm']

export const gpuStepRows: readonly StepRow[] = [
  ...stepRows.filter(({ name }) => LAUNCH_BOUND.includes(name)),
  {
    name: 'resnet18',
    network: () => new ImageNetResNet(ResidualBlock, 1, [2, 2, 2, 2]),
    parameters: 11_689_512,
    batch: photographs(128),
  },
  {
    name: 'resnet50',
    network: () => new ImageNetResNet(Bottleneck, 4, [3, 4, 6, 3]),
    parameters: 25_557_032,
    batch: photographs(128),
  },
  {
    name: 'gpt-124m',
    network: () => new Gpt({ vocabulary: 50304, context: 1024, layers: 12, heads: 12, width: 768 }),
    // Its head is not tied to its embedding.
    parameters: 163_109_376,
    batch: (samples = 8) => ({
      x: randint(0, 50257, [samples, 1024]),
      y: randint(0, 50257, [samples * 1024]),
    }),
  },
]
