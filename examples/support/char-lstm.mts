import type { Tensor } from 'adjoint'
import * as nn from 'adjoint/nn'

/**
 * Predicts the next of a sequence of tokens by recurrent layers.
 * tokens int64 [N, T], logits [N T, vocabulary]
 */
export class CharLstm extends nn.Module {
  readonly token: nn.Embedding
  readonly lstm: nn.LSTM
  readonly head: nn.Linear

  constructor(vocabulary: number, embedding: number, hidden: number, layers: number) {
    super()
    this.token = new nn.Embedding(vocabulary, embedding)
    this.lstm = new nn.LSTM(embedding, hidden, { numLayers: layers, batchFirst: true })
    this.head = new nn.Linear(hidden, vocabulary)
  }

  forward(tokens: Tensor): Tensor {
    const [output] = this.lstm.forward(this.token.forward(tokens))
    return this.head.forward(output).flatten(0, 1)
  }
}
