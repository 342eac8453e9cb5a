import type { Tensor } from '../core/tensor.js'
import * as activations from './activations.js'
import { Conv2d } from './conv.js'
import { Linear } from './linear.js'
import type { Layer } from './module.js'
import { BatchNorm, LayerNorm, RMSNorm } from './norm.js'
import * as pooling from './pooling.js'

/**
 * Layers whose kernel can apply the activation that follows, by their `forward`: one that a hook or
 * a subclass has replaced is not found here, and runs as it is.
 */
const rectified = new Map<unknown, (layer: Layer, x: Tensor) => Tensor>([
  [BatchNorm.prototype.forward, (layer, x) => (layer as BatchNorm).normalize(x, 'relu')],
  [Conv2d.prototype.forward, (layer, x) => (layer as Conv2d).convolve(x, 'relu')],
])

/** Both layers in one kernel, where there is one for them; else null. */
export function fused(layer: Layer, next: Layer | undefined): ((x: Tensor) => Tensor) | null {
  if (next?.forward !== activations.ReLU.prototype.forward) return null
  const run = rectified.get(layer.forward)
  return run === undefined ? null : (x) => run(layer, x)
}

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
