import type { Tensor } from '../core/tensor.js'
import { ReLU } from './activations.js'
import type { Layer } from './module.js'
import { BatchNorm } from './norm.js'

/**
 * Layers whose kernel can apply the activation that follows, by their `forward`: one that a hook or
 * a subclass has replaced is not found here, and runs as it is.
 */
const rectified = new Map<unknown, (layer: Layer, x: Tensor) => Tensor>([
  [BatchNorm.prototype.forward, (layer, x) => (layer as BatchNorm).normalize(x, 'relu')],
])

/** Both layers in one kernel, where there is one for them; else null. */
export function fused(layer: Layer, next: Layer | undefined): ((x: Tensor) => Tensor) | null {
  if (next?.forward !== ReLU.prototype.forward) return null
  const run = rectified.get(layer.forward)
  return run === undefined ? null : (x) => run(layer, x)
}
