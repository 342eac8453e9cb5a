import type { Tensor } from '../core/tensor.js'
import type { LinearActivation } from '../ops/fused-activation.js'
import * as activations from './activations.js'
import { Conv2d } from './conv.js'
import { Linear } from './linear.js'
import type { Layer } from './module.js'
import { BatchNorm, LayerNorm, RMSNorm } from './norm.js'
import * as pooling from './pooling.js'

interface Fusable {
  readonly of: readonly LinearActivation[]
  readonly run: (layer: Layer, x: Tensor, activation: LinearActivation) => Tensor
}

/**
 * Layers whose kernel can apply the activation that follows, and which ones, by their `forward`: one
 * that a hook or a subclass has replaced is not found here, and runs as it is.
 */
const fusables = new Map<unknown, Fusable>([
  [
    BatchNorm.prototype.forward,
    { of: ['relu'], run: (layer, x) => (layer as BatchNorm).normalize(x, 'relu') },
  ],
  [
    Conv2d.prototype.forward,
    { of: ['relu'], run: (layer, x) => (layer as Conv2d).convolve(x, 'relu') },
  ],
  [
    Linear.prototype.forward,
    {
      of: ['relu', 'gelu', 'geluTanh'],
      run: (layer, x, activation) => (layer as Linear).activate(x, activation),
    },
  ],
])

/** The activation that a layer is, if a kernel can apply it. */
function activationOf(layer: Layer | undefined): LinearActivation | null {
  if (layer?.forward === activations.ReLU.prototype.forward) return 'relu'
  if (layer?.forward !== activations.GELU.prototype.forward) return null
  const { approximate } = layer as activations.GELU
  return approximate === 'tanh' ? 'geluTanh' : approximate === 'none' ? 'gelu' : null
}

/** Layers that run as one, and how many. */
export interface Fused {
  readonly count: number
  readonly run: (x: Tensor) => Tensor
}

/**
 * The layers from a position on that there is one kernel, or one op, for; else null. Two linear
 * layers with an activation between them are one, unless another activation follows: that goes into
 * the second one's kernel.
 */
export function fused(layers: readonly Layer[], at: number): Fused | null {
  const layer = layers[at]
  const activation = activationOf(layers[at + 1])
  const fusable = fusables.get(layer.forward)
  if (activation === null || !fusable?.of.includes(activation)) return null
  const second = layers[at + 2]
  if (isLinear(layer) && isLinear(second) && activationOf(layers[at + 3]) === null) {
    return { count: 3, run: (x) => layer.feedForward(x, activation, second) }
  }
  return { count: 2, run: (x) => fusable.run(layer, x, activation) }
}

const isLinear = (layer: Layer | undefined): layer is Linear =>
  layer?.forward === Linear.prototype.forward

const ownLayers = [Conv2d, Linear, BatchNorm, LayerNorm, RMSNorm]
const forgetful = new Set<unknown>(
  [...Object.values(activations), ...Object.values(pooling), ...ownLayers].map(
    (layer) => layer.prototype.forward,
  ),
)

/**
 * Whether a layer keeps neither what it reads nor what it returns, so that a value between two such
 * layers is known to nobody else: one of ours whose `forward` no hook or subclass has replaced.
 */
export const isForgetful = (layer: Layer): boolean => forgetful.has(layer.forward)
