import { autocastDType, autocastTo } from '../core/autocast.js'
import { type DType, isFloating, promoteTypes } from '../core/dtype.js'
import { ArgumentError, checkOptions, DTypeError, describe, ShapeError } from '../core/errors.js'
import { checkHeap } from '../core/heap.js'
import { deviceOf } from '../core/op.js'
import { type Shape, sameShape, showShape } from '../core/shape.js'
import { checkTensor, type Tensor } from '../core/tensor.js'
import { gru } from '../ops/gru.js'
import {
  cast,
  cat,
  contiguous,
  dropout,
  empty,
  select,
  squeeze,
  stack,
  transpose,
  unsqueeze,
} from '../ops/index.js'
import { lstm } from '../ops/lstm.js'
import type { RecurrentWeights, SequenceAttrs } from '../ops/recurrent.js'
import { uniform_ } from './init.js'
import { checkSize, type LayerOptions, listFields, placement } from './layer-options.js'
import { Module } from './module.js'
import { Parameter } from './parameter.js'

// Of the parameters of a layer, as objects.
const LAYER_BYTES = 8192

export interface RecurrentOptions extends LayerOptions {
  /** Layers on top of one another; default 1. */
  numLayers?: number
  /** Whether biases are learned; default true. */
  bias?: boolean
  /** Whether sequences are [N, T, ..] rather than [T, N, ..]; the state never is. Default false. */
  batchFirst?: boolean
  /** Probability of an output of all layers but the last to be dropped in training; default 0. */
  dropout?: number
  /** Whether each layer also runs from the last step to the first; default false. */
  bidirectional?: boolean
}

/** Weights [G H, I or H] and biases [G H] of a layer, uniform in ±1 / √H. */
export function recurrentParameter(
  shape: readonly number[],
  hiddenSize: number,
  options: LayerOptions,
): Parameter {
  const parameter = new Parameter(empty(shape, placement(options)))
  const bound = 1 / Math.sqrt(hiddenSize)
  uniform_(parameter, -bound, bound)
  return parameter
}

/** The dtype of a layer's results, and what brings its operands into the dtype of its kernels. */
export interface RecurrentTypes {
  readonly result: DType
  readonly convert: (x: Tensor) => Tensor
}

/** The common dtype of a layer's weights and what it is given, or what autocast makes of it. */
export function recurrentTypes(
  layer: string,
  weight: Tensor,
  inputs: readonly Tensor[],
): RecurrentTypes {
  for (const x of inputs) {
    if (!isFloating(x.dtype)) {
      throw new DTypeError(`${layer}: expected floating inputs, got ${x.dtype}`)
    }
  }
  const common = inputs.reduce((dtype, x) => promoteTypes(dtype, x.dtype), weight.dtype)
  const low = common === 'float64' ? null : autocastDType()
  if (low === null) return { result: common, convert: (x) => cast(x, common) }
  // Under autocast, as PyTorch: a layer of LSTMs is on the list of the lower precision, and on a GPU
  // all are; others keep the dtype of what they are given.
  if (layer === 'LSTM' || weight.device.type === 'cuda')
    return { result: low, convert: (x) => autocastTo('half', [x])[0] }
  return { result: inputs[0].dtype, convert: (x) => cast(x, 'float32') }
}

/** The parts of a state, each of one shape; null where none is given. */
export function checkState(
  layer: string,
  names: readonly string[],
  state: unknown,
  shape: Shape,
): readonly Tensor[] | null {
  if (state === undefined || state === null) return null
  const parts: readonly unknown[] = names.length === 1 ? [state] : Array.isArray(state) ? state : []
  if (parts.length !== names.length) {
    throw new ArgumentError(
      `${layer}: expected the state [${names.join(', ')}], got ${describe(state)}`,
    )
  }
  return parts.map((part, k) => {
    const t = checkTensor(layer, part)
    if (!sameShape(t.shape, shape)) {
      throw new ShapeError(
        `${layer}: expected ${names[k]} of shape ${showShape(shape)}, got ${showShape(t.shape)}`,
      )
    }
    return t
  })
}

/** What one layer gives in one direction: h of each step, and its state after the last one. */
interface LayerResult {
  readonly y: Tensor
  readonly state: readonly Tensor[]
}

/** What LSTM and GRU share: layers, directions, layouts, and PyTorch's names of the parameters. */
abstract class Recurrent extends Module {
  readonly [weight: `weight_${string}`]: Parameter
  readonly [bias: `bias_${string}`]: Parameter | undefined
  readonly numLayers: number
  readonly bias: boolean
  readonly batchFirst: boolean
  readonly dropout: number
  readonly bidirectional: boolean
  /** By layer and, where there are two, direction. */
  readonly #suffixes: readonly string[]
  readonly #stateNames: readonly string[]

  constructor(
    readonly inputSize: number,
    readonly hiddenSize: number,
    options: RecurrentOptions,
    gates: number,
    stateNames: readonly string[],
  ) {
    super()
    checkOptions(this.constructor.name, options)
    const { numLayers = 1, bias = true, batchFirst = false, bidirectional = false } = options
    const name = this.constructor.name
    checkSize(name, 'inputSize', inputSize)
    checkSize(name, 'hiddenSize', hiddenSize)
    this.numLayers = checkSize(name, 'numLayers', numLayers)
    this.bias = bias
    this.batchFirst = batchFirst
    this.bidirectional = bidirectional
    const p = options.dropout ?? 0
    if (typeof p !== 'number' || !(p >= 0 && p <= 1)) {
      throw new ArgumentError(`${name}: expected dropout in [0, 1], got ${describe(p)}`)
    }
    this.dropout = p
    this.#stateNames = stateNames
    checkHeap(name, this.numLayers, LAYER_BYTES)
    const directions = bidirectional ? ['', '_reverse'] : ['']
    this.#suffixes = Array.from({ length: numLayers }, (_, layer) =>
      directions.map((direction) => `l${layer}${direction}`),
    ).flat()
    const rows = gates * hiddenSize
    this.#suffixes.forEach((suffix, i) => {
      const features = i < directions.length ? inputSize : hiddenSize * directions.length
      const shapes = {
        [`weight_ih_${suffix}`]: [rows, features],
        [`weight_hh_${suffix}`]: [rows, hiddenSize],
        ...(bias && { [`bias_ih_${suffix}`]: [rows], [`bias_hh_${suffix}`]: [rows] }),
      }
      for (const [key, shape] of Object.entries(shapes)) {
        Object.assign(this, { [key]: recurrentParameter(shape, hiddenSize, options) })
      }
    })
  }

  /** One layer in one direction; x [T, N, ..], the parts of the state [N, H] or null for zeros. */
  protected abstract runLayer(
    x: Tensor,
    weights: RecurrentWeights,
    state: readonly (Tensor | null)[],
    attrs: SequenceAttrs,
  ): LayerResult

  /** All layers: the output, and the parts of the state after the last step. */
  protected runLayers(x: Tensor, state: unknown): { output: Tensor; state: Tensor[] } {
    const initial = this.#checkInputs(x, state)
    const { result, convert } = recurrentTypes(this.constructor.name, this.weight_ih_l0, [
      x,
      ...(initial ?? []),
    ])
    const isBatched = x.ndim === 3
    const batched = (t: Tensor) => convert(isBatched ? t : unsqueeze(t, 1))
    let y = batched(this.batchFirst && isBatched ? transpose(x, 0, 1) : x)
    const before = initial?.map(batched)
    const after: (readonly Tensor[])[] = []
    for (let layer = 0; layer < this.numLayers; layer++) {
      const input = contiguous(
        layer > 0 ? dropout(y, this.dropout, { training: this.training }) : y,
      )
      const outputs = (this.bidirectional ? [false, true] : [false]).map((reverse) => {
        const i = after.length
        const parts = this.#stateNames.map((_, k) => (before ? select(before[k], 0, i) : null))
        const done = this.runLayer(input, this.#weightsOf(i, convert), parts, { reverse })
        after.push(done.state)
        return done.y
      })
      y = outputs.length === 1 ? outputs[0] : cat(outputs, 2)
    }
    const restored = (t: Tensor) => cast(isBatched ? t : squeeze(t, 1), result)
    return {
      output: restored(this.batchFirst && isBatched ? transpose(y, 0, 1) : y),
      state: this.#stateNames.map((_, k) => restored(stack(after.map((parts) => parts[k])))),
    }
  }

  #weightsOf(i: number, convert: RecurrentTypes['convert']): RecurrentWeights {
    const suffix = this.#suffixes[i]
    const bias = (t: Parameter | undefined) => (t ? convert(t) : null)
    return {
      wIh: convert(this[`weight_ih_${suffix}`]),
      wHh: convert(this[`weight_hh_${suffix}`]),
      bIh: bias(this[`bias_ih_${suffix}`]),
      bHh: bias(this[`bias_hh_${suffix}`]),
    }
  }

  /** The parts of the initial state, or null for zeros. */
  #checkInputs(x: Tensor, state: unknown): readonly Tensor[] | null {
    const { inputSize, hiddenSize, batchFirst } = this
    const name = this.constructor.name
    const { ndim, shape } = checkTensor(name, x)
    const [steps, batch] = batchFirst && ndim === 3 ? [shape[1], shape[0]] : shape
    if ((ndim !== 2 && ndim !== 3) || shape[ndim - 1] !== inputSize || steps === 0) {
      const layout = batchFirst ? 'N, T' : 'T, N'
      throw new ShapeError(
        `${name}: expected x of shape [${layout}, ${inputSize}] or [T, ${inputSize}] with a step ` +
          `or more, got ${showShape(shape)}`,
      )
    }
    const stateShape = [this.#suffixes.length, ...(ndim === 3 ? [batch] : []), hiddenSize]
    const parts = checkState(name, this.#stateNames, state, stateShape)
    deviceOf(name, [x, this.weight_ih_l0, ...(parts ?? [])])
    return parts
  }

  protected override describe(): string {
    const { inputSize, hiddenSize, numLayers, bias, batchFirst, bidirectional } = this
    const fields: Record<string, unknown> = { inputSize, hiddenSize }
    if (numLayers !== 1) fields.numLayers = numLayers
    if (!bias) fields.bias = false
    if (batchFirst) fields.batchFirst = true
    if (this.dropout !== 0) fields.dropout = this.dropout
    if (bidirectional) fields.bidirectional = true
    return listFields(fields)
  }
}

/** h after the last step that a direction takes. */
function lastOf(y: Tensor, { reverse }: SequenceAttrs): Tensor {
  return select(y, 0, reverse ? 0 : -1)
}

/**
 * Long short-term memory (Hochreiter & Schmidhuber 1997), in layers L and directions D:
 *
 *     i, f, g, o = W_ih x_t + b_ih + W_hh h + b_hh
 *     c = σ(f) c + σ(i) tanh(g);  h = σ(o) tanh(c)
 *
 * Parameters have PyTorch's names (`weight_ih_l0`, …, `bias_hh_l1_reverse`) and start uniform in
 * ±1 / √hiddenSize.
 * @example const [output, [h, c]] = new nn.LSTM(8, 16, { batchFirst: true }).forward(x)
 */
export class LSTM extends Recurrent {
  constructor(inputSize: number, hiddenSize: number, options: RecurrentOptions = {}) {
    super(inputSize, hiddenSize, options, 4, ['h', 'c'])
  }

  /**
   * x [T, N, inputSize] ([N, T, inputSize] with `batchFirst`, [T, inputSize] without a batch) and
   * the state before the first step, h and c [L D, N, hiddenSize], default zeros. Returns h of each
   * step [T, N, D hiddenSize] and the state after the last one.
   * @throws ShapeError, DTypeError
   */
  override forward(
    x: Tensor,
    state?: readonly [h: Tensor, c: Tensor] | null,
  ): [output: Tensor, state: [h: Tensor, c: Tensor]] {
    const after = this.runLayers(x, state)
    return [after.output, [after.state[0], after.state[1]]]
  }

  protected override runLayer(
    x: Tensor,
    weights: RecurrentWeights,
    [h0, c0]: readonly (Tensor | null)[],
    attrs: SequenceAttrs,
  ): LayerResult {
    const [y, c] = lstm(x, weights, h0, c0, attrs)
    return { y, state: [lastOf(y, attrs), c] }
  }
}

/**
 * Gated recurrent unit (Cho et al. 2014), in layers L and directions D:
 *
 *     r, z = σ(W_ih x_t + b_ih + W_hh h + b_hh)
 *     n = tanh(W_in x_t + b_in + r (W_hn h + b_hn));  h = (1 - z) n + z h
 *
 * Parameters have PyTorch's names and start uniform in ±1 / √hiddenSize.
 * @example const [output, h] = new nn.GRU(8, 16, { batchFirst: true }).forward(x)
 */
export class GRU extends Recurrent {
  constructor(inputSize: number, hiddenSize: number, options: RecurrentOptions = {}) {
    super(inputSize, hiddenSize, options, 3, ['h'])
  }

  /**
   * As `LSTM.forward`, with a state of one part, h [L D, N, hiddenSize].
   * @throws ShapeError, DTypeError
   */
  override forward(x: Tensor, h?: Tensor | null): [output: Tensor, h: Tensor] {
    const after = this.runLayers(x, h)
    return [after.output, after.state[0]]
  }

  protected override runLayer(
    x: Tensor,
    weights: RecurrentWeights,
    [h0]: readonly (Tensor | null)[],
    attrs: SequenceAttrs,
  ): LayerResult {
    const y = gru(x, weights, h0, attrs)
    return { y, state: [lastOf(y, attrs)] }
  }
}
