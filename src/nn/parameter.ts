import { requiresGrad_ } from '../core/autograd.js'
import { checkOptions } from '../core/errors.js'
import { noGrad } from '../core/grad-mode.js'
import { keep } from '../core/scope.js'
import { Edge } from '../core/tape.js'
import { checkTensor, Tensor } from '../core/tensor.js'
import { contiguous } from '../ops/index.js'

/**
 * A tensor that a module learns: a leaf with row-major memory, which requires a gradient unless it
 * is frozen. A class rather than a mark on a tensor, so that `instanceof` and the type of a field
 * tell it apart even when frozen; it has no fields of its own, so that ops see one kind of object.
 * It shares the memory of the tensor that it is made from, where that is row-major.
 */
export class Parameter extends Tensor {
  /** @throws DTypeError for integers and bool that are to require a gradient */
  constructor(data: Tensor, options: { requiresGrad?: boolean } = {}) {
    checkTensor('Parameter', data).checkLive('Parameter')
    checkOptions('Parameter', options)
    const dense = noGrad(() => contiguous(data))
    super(dense.device, dense.dtype, dense.shape, dense.strides, dense.offset)
    this.takeOver(dense)
    keep(this)
    if (options.requiresGrad ?? true) requiresGrad_(this)
  }
}

/**
 * Gives a leaf other memory, of another dtype or device; its gradient is converted with it. The
 * object stays the same, so optimizers and modules that share it go on with it.
 */
export function convertInPlace(t: Tensor, convert: (t: Tensor) => Tensor): void {
  noGrad(() => {
    const source = convert(t)
    if (source === t) return
    const { edge, slot } = t
    if (slot?.grad) slot.grad = keep(convert(slot.grad))
    t.takeOver(source)
    if (edge !== null) t.edge = Edge.of(edge.node, edge.index, t)
  })
}
