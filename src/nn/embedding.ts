import { checkOptions } from '../core/errors.js'
import { noGrad } from '../core/grad-mode.js'
import type { Tensor } from '../core/tensor.js'
import { checkPadding } from '../ops/embedding.js'
import { embedding, empty } from '../ops/index.js'
import { normal_ } from './init.js'
import { checkSize, type LayerOptions, listFields, placement } from './layer-options.js'
import { Module } from './module.js'
import { Parameter } from './parameter.js'

export interface EmbeddingOptions extends LayerOptions {
  /** A row that starts as 0 and is not learned; negative ones count from the end. Default none. */
  paddingIdx?: number | null
}

/**
 * A table of vectors: indices [..] give [.., embeddingDim]. Weights start standard normal.
 * @example new nn.Embedding(65, 384).forward(tensor([[1n, 2n]])) // [1, 2, 384]
 */
export class Embedding extends Module {
  /** [numEmbeddings, embeddingDim] */
  readonly weight: Parameter
  readonly paddingIdx: number | null

  constructor(
    readonly numEmbeddings: number,
    readonly embeddingDim: number,
    options: EmbeddingOptions = {},
  ) {
    super()
    checkOptions('Embedding', options)
    checkSize('Embedding', 'numEmbeddings', numEmbeddings)
    checkSize('Embedding', 'embeddingDim', embeddingDim)
    const padding = checkPadding('Embedding', options.paddingIdx, numEmbeddings)
    this.weight = new Parameter(empty([numEmbeddings, embeddingDim], placement(options)))
    this.paddingIdx = padding < 0 ? null : padding
    normal_(this.weight)
    if (padding >= 0) noGrad(() => this.weight.select(0, padding).fill_(0))
  }

  override forward(index: Tensor): Tensor {
    return embedding(index, this.weight, { paddingIdx: this.paddingIdx })
  }

  protected override describe(): string {
    const { numEmbeddings, embeddingDim, paddingIdx } = this
    const fields = { numEmbeddings, embeddingDim }
    return listFields(paddingIdx === null ? fields : { ...fields, paddingIdx })
  }
}
