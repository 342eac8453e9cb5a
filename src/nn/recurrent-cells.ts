import { checkOptions, ShapeError } from '../core/errors.js'
import { deviceOf } from '../core/op.js'
import { showShape } from '../core/shape.js'
import { checkTensor, type Tensor } from '../core/tensor.js'
import { gru } from '../ops/gru.js'
import { cast, reshape } from '../ops/index.js'
import { lstm } from '../ops/lstm.js'
import type { RecurrentWeights } from '../ops/recurrent.js'
import { checkSize, type LayerOptions, listFields } from './layer-options.js'
import { Module } from './module.js'
import type { Parameter } from './parameter.js'
import { checkState, recurrentParameter, recurrentTypes } from './recurrent.js'

export interface RecurrentCellOptions extends LayerOptions {
  /** Whether biases are learned; default true. */
  bias?: boolean
}

/** What the cells share: the parameters, under PyTorch's names, and one step of a layer. */
abstract class RecurrentCell extends Module {
  /** [G hiddenSize, inputSize] */
  readonly weight_ih: Parameter
  /** [G hiddenSize, hiddenSize] */
  readonly weight_hh: Parameter
  /** [G hiddenSize] */
  readonly bias_ih: Parameter | null
  /** [G hiddenSize] */
  readonly bias_hh: Parameter | null
  readonly #stateNames: readonly string[]

  constructor(
    readonly inputSize: number,
    readonly hiddenSize: number,
    options: RecurrentCellOptions,
    gates: number,
    stateNames: readonly string[],
  ) {
    super()
    checkOptions(this.constructor.name, options)
    const name = this.constructor.name
    checkSize(name, 'inputSize', inputSize)
    checkSize(name, 'hiddenSize', hiddenSize)
    this.#stateNames = stateNames
    const make = (...shape: number[]) => recurrentParameter(shape, hiddenSize, options)
    const rows = gates * hiddenSize
    const hasBias = options.bias ?? true
    this.weight_ih = make(rows, inputSize)
    this.weight_hh = make(rows, hiddenSize)
    this.bias_ih = hasBias ? make(rows) : null
    this.bias_hh = hasBias ? make(rows) : null
  }

  /** The parts of the state [N, H] after a step on x [1, N, I]. */
  protected abstract step(
    x: Tensor,
    weights: RecurrentWeights,
    state: readonly (Tensor | null)[],
  ): readonly Tensor[]

  protected runStep(x: Tensor, state: unknown): readonly Tensor[] {
    const { inputSize, hiddenSize, weight_ih, weight_hh, bias_ih, bias_hh } = this
    const name = this.constructor.name
    const { ndim, shape } = checkTensor(name, x)
    if ((ndim !== 1 && ndim !== 2) || shape[ndim - 1] !== inputSize) {
      throw new ShapeError(
        `${name}: expected x of shape [N, ${inputSize}] or [${inputSize}], got ${showShape(shape)}`,
      )
    }
    const stateShape = [...shape.slice(0, -1), hiddenSize]
    const before = checkState(name, this.#stateNames, state, stateShape)
    deviceOf(name, [x, weight_ih, ...(before ?? [])])
    const { result, convert } = recurrentTypes(name, weight_ih, [x, ...(before ?? [])])
    const batch = ndim === 2 ? shape[0] : 1
    const parts = this.#stateNames.map((_, k) =>
      before ? reshape(convert(before[k]), [batch, hiddenSize]) : null,
    )
    const weights = {
      wIh: convert(weight_ih),
      wHh: convert(weight_hh),
      bIh: bias_ih && convert(bias_ih),
      bHh: bias_hh && convert(bias_hh),
    }
    const after = this.step(reshape(convert(x), [1, batch, inputSize]), weights, parts)
    return after.map((part) => reshape(cast(part, result), stateShape))
  }

  protected override describe(): string {
    const { inputSize, hiddenSize, bias_ih } = this
    return listFields({ inputSize, hiddenSize, bias: bias_ih !== null })
  }
}

/**
 * One step of an LSTM; see `LSTM` for the formulas.
 * @example const [h, c] = new nn.LSTMCell(8, 16).forward(x)
 */
export class LSTMCell extends RecurrentCell {
  constructor(inputSize: number, hiddenSize: number, options: RecurrentCellOptions = {}) {
    super(inputSize, hiddenSize, options, 4, ['h', 'c'])
  }

  /**
   * x [N, inputSize] or [inputSize] and the state before, h and c [N, hiddenSize] or [hiddenSize],
   * default zeros; returns the state after the step.
   * @throws ShapeError, DTypeError
   */
  override forward(
    x: Tensor,
    state?: readonly [h: Tensor, c: Tensor] | null,
  ): [h: Tensor, c: Tensor] {
    const [h, c] = this.runStep(x, state)
    return [h, c]
  }

  protected override step(
    x: Tensor,
    weights: RecurrentWeights,
    [h0, c0]: readonly (Tensor | null)[],
  ): readonly Tensor[] {
    return lstm(x, weights, h0, c0, { reverse: false })
  }
}

/**
 * One step of a GRU; see `GRU` for the formulas.
 * @example const h = new nn.GRUCell(8, 16).forward(x)
 */
export class GRUCell extends RecurrentCell {
  constructor(inputSize: number, hiddenSize: number, options: RecurrentCellOptions = {}) {
    super(inputSize, hiddenSize, options, 3, ['h'])
  }

  /**
   * x [N, inputSize] or [inputSize] and h before [N, hiddenSize] or [hiddenSize], default zeros;
   * returns h after the step.
   * @throws ShapeError, DTypeError
   */
  override forward(x: Tensor, h?: Tensor | null): Tensor {
    return this.runStep(x, h)[0]
  }

  protected override step(
    x: Tensor,
    weights: RecurrentWeights,
    [h0]: readonly (Tensor | null)[],
  ): readonly Tensor[] {
    return [gru(x, weights, h0, { reverse: false })]
  }
}
