import { ArgumentError, checkList, checkOptions, describe } from '../core/errors.js'
import { noGrad } from '../core/grad-mode.js'
import { recording } from '../core/recording.js'
import { checkTensor, Tensor } from '../core/tensor.js'
import { contiguous, norm, stack, zeros } from '../ops/index.js'
import { checkRange } from './optimizer.js'

/** The gradients, each once. */
function gradientsOf(op: string, params: Iterable<Tensor>, limit: number): Tensor[] {
  checkRange(op, 'a limit', limit, 0)
  checkList(op, 'parameters', params, true)
  const grads = [...params].flatMap((p) => {
    const { slot } = checkTensor(op, p)
    if (slot !== null) recording()?.touch(slot, 'read')
    return slot?.grad ?? []
  })
  return [...new Set(grads)]
}

/** Gradients of one device and dtype, which one native call takes. */
class Group {
  readonly grads: Tensor[] = []
  private dense: readonly Tensor[] = []

  constructor(private readonly first: Tensor) {}

  static of(grads: readonly Tensor[]): Group[] {
    const groups: Group[] = []
    for (const g of grads) {
      let group = groups.find(({ first }) => first.device === g.device && first.dtype === g.dtype)
      if (group === undefined) {
        group = new Group(g)
        groups.push(group)
      }
      group.grads.push(g)
    }
    return groups
  }

  norm(normType: number): Tensor {
    const { device, dtype } = this.first
    this.dense = this.grads.map((g) => contiguous(g))
    const norm = Tensor.pending(device, dtype, [])
    const calls = device.calls.begin('totalNorm').number(this.dense.length)
    for (const g of this.dense) calls.input(g)
    calls.output(norm).number(normType).run()
    return norm
  }

  clip(norm: Tensor, maxNorm: number): void {
    const { device } = this.first
    // Before the call begins, since it is one of its own from another device.
    const own = norm.to(device)
    const calls = device.calls.begin('clipToNorm').number(this.dense.length)
    calls.input(own)
    for (const g of this.dense) calls.input(g)
    calls.number(maxNorm).run()
    this.dense.forEach((g, i) => {
      if (g !== this.grads[i]) this.grads[i].copy_(g)
    })
  }
}

/**
 * Scales all gradients by min(1, maxNorm / (norm + 1e-6)), where norm is that of all of them as one
 * vector, and returns that norm []. Two native calls, and nothing waits for the device unless
 * `errorIfNonfinite` asks.
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
  if (typeof normType !== 'number' || !(normType > 0)) {
    throw new ArgumentError(`clipGradNorm_: expected a norm above 0, got ${describe(normType)}`)
  }
  const grads = gradientsOf('clipGradNorm_', params, maxNorm)
  return noGrad(() => {
    if (grads.length === 0) return zeros([])
    const groups = Group.of(grads)
    const norms = groups.map((group) => group.norm(normType))
    const total =
      norms.length === 1 ? norms[0] : norm(stack(norms.map((n) => n.to(grads[0].device))), normType)
    if (errorIfNonfinite && total.isfinite().item() === 0) {
      throw new ArgumentError(
        `clipGradNorm_: expected gradients of a finite norm, got ${total.item()}`,
      )
    }
    for (const group of groups) group.clip(total, maxNorm)
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
