import type { DType } from '../core/dtype.js'
import type { Shape } from '../core/shape.js'
import { Tensor } from '../core/tensor.js'
import { zeros } from './creation.js'
import { binary } from './elementwise.js'
import { stack } from './indexing.js'
import { linear } from './linear.js'
import { matmul } from './matmul.js'
import { narrow, reshape, select, t } from './views.js'

export interface SequenceAttrs {
  /** Whether the last step comes first. */
  readonly reverse: boolean
}

/** Of a layer in one direction, with G gates of H units. */
export interface RecurrentWeights {
  /** [G H, I] */
  readonly wIh: Tensor
  /** [G H, H] */
  readonly wHh: Tensor
  /** [G H] */
  readonly bIh: Tensor | null
  /** [G H] */
  readonly bHh: Tensor | null
}

/** Outputs [T, N, W] of a layer that reads x. */
export function pendingSteps(x: Tensor, width: number, dtype: DType = x.dtype): Tensor {
  return Tensor.pending(x.device, dtype, [x.shape[0], x.shape[1], width])
}

/** The same in the dtype that the layer computes in, for its backward pass. */
export function pendingKept(x: Tensor, width: number): Tensor {
  return pendingSteps(x, width, x.dtype === 'float64' ? 'float64' : 'float32')
}

/** [T, N, W] as [T N, W]. */
export const rowsOf = (x: Tensor): Tensor => reshape(x, [x.shape[0] * x.shape[1], x.shape[2]])

/** Σ_t aᵀ_t b_t: [T, N, A] and [T, N, B] give [A, B]. */
export const overSteps = (a: Tensor, b: Tensor): Tensor => matmul(t(rowsOf(a)), rowsOf(b))

/** dwHh = Σ_t dᵀ_t h_{t-1}, where h is y of each step and h0 (or zeros) before the first one. */
export function hiddenWeightGradient(
  d: Tensor,
  y: Tensor,
  h0: Tensor | null,
  { reverse }: SequenceAttrs,
): Tensor {
  const steps = y.shape[0]
  const [first, later, earlier] = reverse ? [steps - 1, 0, 1] : [0, 1, 0]
  const fromY = overSteps(narrow(d, 0, later, steps - 1), narrow(y, 0, earlier, steps - 1))
  return h0 === null ? fromY : binary('add', fromY, matmul(t(select(d, 0, first)), h0))
}

/**
 * Runs a cell over the steps with ops of their own: what the fused kernels compute, as their second
 * derivative and their tests need it. `step` gets wIh x_t + bIh and the state, whose first part is h.
 */
export function composed(
  x: Tensor,
  { wIh, bIh }: RecurrentWeights,
  initial: readonly Tensor[],
  { reverse }: SequenceAttrs,
  step: (projected: Tensor, state: readonly Tensor[]) => readonly Tensor[],
): { readonly y: Tensor; readonly state: readonly Tensor[] } {
  const steps = x.shape[0]
  const projected = linear(x, wIh, bIh)
  const hidden: Tensor[] = []
  let state = initial
  for (let s = 0; s < steps; s++) {
    const at = reverse ? steps - 1 - s : s
    state = step(select(projected, 0, at), state)
    hidden[at] = state[0]
  }
  return { y: stack(hidden), state }
}

/** The state given, or zeros [N, H]. */
export function stateOrZeros(state: Tensor | null, x: Tensor, wHh: Tensor): Tensor {
  const shape: Shape = [x.shape[1], wHh.shape[1]]
  return state ?? zeros(shape, { dtype: x.dtype, device: x.device })
}
