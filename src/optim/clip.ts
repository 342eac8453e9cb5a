import { ArgumentError, checkList, checkOptions, describe } from '../core/errors.js'
import { noGrad } from '../core/grad-mode.js'
import { recording } from '../core/recording.js'
import { checkTensor, type Tensor } from '../core/tensor.js'
import { norm, stack, zeros } from '../ops/index.js'

function gradientsOf(op: string, params: Iterable<Tensor>, limit: number): Tensor[] {
  if (!(limit >= 0)) throw new ArgumentError(`${op}: expected a limit of 0 or more, got ${limit}`)
  checkList(op, 'parameters', params, true)
  return [...params].flatMap((p) => {
    const { slot } = checkTensor(op, p)
    if (slot !== null) recording()?.touch(slot, 'read')
    return slot?.grad ?? []
  })
}

/**
 * Scales all gradients by min(1, maxNorm / (norm + 1e-6)), where norm is that of all of them as one
 * vector, and returns that norm [].
 * @param options.normType 2 by default; Infinity for the largest element
 * @param options.errorIfNonfinite whether to throw if the norm is NaN or infinite; default false
 */
export function clipGradNorm_(
  params: Iterable<Tensor>,
  maxNorm: number,
  options: { normType?: number; errorIfNonfinite?: boolean } = {},
): Tensor {
  checkOptions('clipGradNorm_', options)
  const { normType = 2, errorIfNonfinite = false } = options
  if (!(normType > 0)) {
    throw new ArgumentError(`clipGradNorm_: expected a norm above 0, got ${describe(normType)}`)
  }
  const grads = gradientsOf('clipGradNorm_', params, maxNorm)
  return noGrad(() => {
    if (grads.length === 0) return zeros([])
    const { device } = grads[0]
    const norms = grads.map((g) => norm(g, normType).to(device))
    const total = norm(stack(norms), normType)
    if (errorIfNonfinite && total.isfinite().item() === 0) {
      throw new ArgumentError(
        `clipGradNorm_: expected gradients of a finite norm, got ${total.item()}`,
      )
    }
    const factor = total.add(1e-6).reciprocal().mul(maxNorm).clamp(null, 1)
    const factors = new Map([[device, factor]])
    for (const g of grads) {
      const own = factors.get(g.device) ?? factor.to(g.device)
      factors.set(g.device, own)
      g.mul_(own)
    }
    return total
  })
}

/** Cuts all elements of the gradients to [-limit, limit]. */
export function clipGradValue_(params: Iterable<Tensor>, limit: number): void {
  const grads = gradientsOf('clipGradValue_', params, limit)
  noGrad(() => {
    for (const g of grads) g.maximum_(-limit).minimum_(limit)
  })
}
