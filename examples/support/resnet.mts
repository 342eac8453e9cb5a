import type { Tensor } from 'adjoint'
import * as nn from 'adjoint/nn'

const { relu } = nn.functional

/** What goes around a residual block: nothing, or a projection where shapes differ. */
export function shortcut(inChannels: number, outChannels: number, stride: number): nn.Sequential {
  if (stride === 1 && inChannels === outChannels) return new nn.Sequential()
  return new nn.Sequential(
    new nn.Conv2d(inChannels, outChannels, 1, { stride, bias: false }),
    new nn.BatchNorm2d(outChannels),
  )
}

/** Two 3x3 convolutions with batch norm around a shortcut, which is projected where shapes differ. */
export class ResidualBlock extends nn.Module {
  readonly body: nn.Sequential
  readonly shortcut: nn.Sequential

  constructor(inChannels: number, outChannels: number, stride: number) {
    super()
    this.body = new nn.Sequential(
      new nn.Conv2d(inChannels, outChannels, 3, { stride, padding: 1, bias: false }),
      new nn.BatchNorm2d(outChannels),
      new nn.ReLU(),
      new nn.Conv2d(outChannels, outChannels, 3, { padding: 1, bias: false }),
      new nn.BatchNorm2d(outChannels),
    )
    this.shortcut = shortcut(inChannels, outChannels, stride)
  }

  forward(x: Tensor): Tensor {
    return relu(this.body.forward(x).add(this.shortcut.forward(x)))
  }
}

/**
 * A residual network for small images (He et al. 2016, section 4.2): three stages of `depth` blocks,
 * whose width doubles where their size halves. Depth 3 and width 16 make ResNet-20.
 * x [N, 3, H, W], logits [N, 10]
 */
export class ResNet extends nn.Module {
  readonly stem: nn.Sequential
  readonly blocks: nn.Sequential
  readonly head: nn.Linear

  constructor(depth = 3, width = 16) {
    super()
    this.stem = new nn.Sequential(
      new nn.Conv2d(3, width, 3, { padding: 1, bias: false }),
      new nn.BatchNorm2d(width),
      new nn.ReLU(),
    )
    this.blocks = new nn.Sequential()
    let channels = width
    for (let stage = 0; stage < 3; stage++) {
      for (let i = 0; i < depth; i++) {
        const out = width << stage
        this.blocks.push(new ResidualBlock(channels, out, stage > 0 && i === 0 ? 2 : 1))
        channels = out
      }
    }
    this.head = new nn.Linear(channels, 10)
  }

  forward(x: Tensor): Tensor {
    const features = this.blocks.forward(this.stem.forward(x))
    return this.head.forward(features.mean([2, 3]))
  }
}
