import { arange, type Tensor } from '../../src/index.js'
import * as nn from '../../src/nn/index.js'

const { linear, scaledDotProductAttention } = nn.functional

/** tokens int64 [N, T], logits [N T, vocabulary] */
export class SmallLstm extends nn.Module {
  readonly token: nn.Embedding
  readonly lstm: nn.LSTM
  readonly head: nn.Linear

  constructor(vocabulary: number) {
    super()
    this.token = new nn.Embedding(vocabulary, 6)
    this.lstm = new nn.LSTM(6, 9, { numLayers: 2, batchFirst: true })
    this.head = new nn.Linear(9, vocabulary)
  }

  forward(tokens: Tensor): Tensor {
    const [output] = this.lstm.forward(this.token.forward(tokens))
    return this.head.forward(output).flatten(0, 1)
  }
}

const WIDTH = 12
const HEADS = 2

/** One block of a transformer. tokens int64 [N, T], logits [N T, vocabulary] */
export class SmallGpt extends nn.Module {
  readonly token: nn.Embedding
  readonly position: nn.Embedding
  readonly norm1 = new nn.LayerNorm(WIDTH)
  readonly qkv = new nn.Linear(WIDTH, 3 * WIDTH)
  readonly projection = new nn.Linear(WIDTH, WIDTH)
  readonly norm2 = new nn.LayerNorm(WIDTH)
  readonly expand = new nn.Linear(WIDTH, 4 * WIDTH)
  readonly contract = new nn.Linear(4 * WIDTH, WIDTH)
  readonly head: nn.Linear

  constructor(vocabulary: number, context: number) {
    super()
    this.token = new nn.Embedding(vocabulary, WIDTH)
    this.position = new nn.Embedding(context, WIDTH)
    this.head = new nn.Linear(WIDTH, vocabulary, { bias: false })
  }

  forward(tokens: Tensor): Tensor {
    const [n, t] = tokens.shape
    const place = arange(0, t, 1, { dtype: 'int64' })
    const x = this.token.forward(tokens).add(this.position.forward(place))
    const qkv = this.qkv.forward(this.norm1.forward(x)).reshape([n, t, 3, HEADS, WIDTH / HEADS])
    const [q, k, v] = qkv.unbind(2).map((part) => part.transpose(1, 2))
    const mixed = scaledDotProductAttention(q, k, v, { isCausal: true })
    const y = x.add(this.projection.forward(mixed.transpose(1, 2).reshape([n, t, WIDTH])))
    const { weight, bias } = this.expand
    const wide = linear(this.norm2.forward(y), weight, bias, { activation: 'gelu' })
    const z = y.add(this.contract.forward(wide))
    return this.head.forward(z).flatten(0, 1)
  }
}
