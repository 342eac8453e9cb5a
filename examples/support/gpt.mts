import { arange, type Tensor } from 'adjoint'
import * as nn from 'adjoint/nn'

const { feedForward, scaledDotProductAttention } = nn.functional

/** Attention to what stands before, then two linear layers, each added to what came in. */
class GptBlock extends nn.Module {
  readonly norm1: nn.LayerNorm
  readonly qkv: nn.Linear
  readonly projection: nn.Linear
  readonly norm2: nn.LayerNorm
  readonly expand: nn.Linear
  readonly contract: nn.Linear

  constructor(
    readonly width: number,
    readonly heads: number,
  ) {
    super()
    this.norm1 = new nn.LayerNorm(width)
    this.qkv = new nn.Linear(width, 3 * width)
    this.projection = new nn.Linear(width, width)
    this.norm2 = new nn.LayerNorm(width)
    this.expand = new nn.Linear(width, 4 * width)
    this.contract = new nn.Linear(4 * width, width)
  }

  /** [N, T, width] */
  forward(x: Tensor): Tensor {
    const { width, heads } = this
    const [n, t] = x.shape
    const qkv = this.qkv.forward(this.norm1.forward(x)).reshape([n, t, 3, heads, width / heads])
    const [q, k, v] = qkv.unbind(2).map((part) => part.transpose(1, 2)) // [N, heads, T, D]
    const mixed = scaledDotProductAttention(q, k, v, { isCausal: true })
    const y = x.add(this.projection.forward(mixed.transpose(1, 2).reshape([n, t, width])))
    const { expand, contract } = this
    return y.add(
      feedForward(
        this.norm2.forward(y),
        expand.weight,
        expand.bias,
        contract.weight,
        contract.bias,
      ),
    )
  }
}

export interface GptSize {
  readonly vocabulary: number
  /** The longest sequence. */
  readonly context: number
  readonly layers: number
  readonly heads: number
  readonly width: number
}

/**
 * A decoder-only transformer with norms before its parts (Radford et al. 2019).
 * tokens int64 [N, T], logits [N T, vocabulary]
 */
export class Gpt extends nn.Module {
  readonly token: nn.Embedding
  readonly position: nn.Embedding
  readonly blocks: nn.Sequential
  readonly norm: nn.LayerNorm
  readonly head: nn.Linear

  constructor({ vocabulary, context, layers, heads, width }: GptSize) {
    super()
    this.token = new nn.Embedding(vocabulary, width)
    this.position = new nn.Embedding(context, width)
    const blocks = Array.from({ length: layers }, () => new GptBlock(width, heads))
    this.blocks = new nn.Sequential(...blocks)
    this.norm = new nn.LayerNorm(width)
    this.head = new nn.Linear(width, vocabulary, { bias: false })
  }

  forward(tokens: Tensor): Tensor {
    const positions = this.position.forward(arange(tokens.shape[1]))
    const x = this.token.forward(tokens).add(positions)
    return this.head.forward(this.norm.forward(this.blocks.forward(x))).flatten(0, 1)
  }
}
