import { applyAll } from '../core/apply.js'
import { isFloating } from '../core/dtype.js'
import { checkOptions, ShapeError } from '../core/errors.js'
import { defineOp, type Op, type RuleContext, type Sampler } from '../core/op.js'
import { showShape } from '../core/shape.js'
import type { Tensor } from '../core/tensor.js'
import { byFormula, fusedUnlessTwice } from './by-formula.js'
import { checkLinearActivation, type LinearActivation } from './fused-activation.js'
import {
  type ActivatedAttrs,
  activatedAffine,
  affine,
  checked,
  checkedBias,
  gradients,
  isRecorded,
  linear,
  type Needs,
} from './linear.js'
import { meet } from './matmul.js'

interface Context extends RuleContext<ActivatedAttrs> {
  readonly needs: Needs
  readonly x: Tensor
  readonly w1: Tensor
  readonly w2: Tensor
  readonly h: Tensor
  readonly kept: Tensor
}

const samplesOf = (s: Sampler, activation: LinearActivation) => ({
  inputs: [s.normal([3, 4]), s.normal([5, 4]), s.normal([5]), s.normal([2, 5]), s.normal([2])],
  attrs: { activation, keeps: true },
})

// h = f(x w1ᵀ + b1), y = h w2ᵀ + b2
const feedForwardOp: Op<ActivatedAttrs> = defineOp<ActivatedAttrs>()({
  name: 'feedForward',
  inputs: ['x', 'w1', 'b1', 'w2', 'b2'],
  outputs: ['y', 'h', 'kept'],
  run: ([x, w1, b1, w2, b2], attrs) => {
    const [h, kept] = activatedAffine(x, w1, b1, attrs)
    return [affine(h, w2, b2), h, kept]
  },
  // dz = dy w2 f'(z), where the product is finished, and db1 = Σ dz; the others as linear's
  gradient: fusedUnlessTwice<ActivatedAttrs, Context>(
    ['x', 'w1', 'w2', 'h', 'kept'],
    ({ dy, x, w1, w2, h, kept, attrs: { activation }, needs, inputs }) => {
      const [isX, isW1, isB1, isW2, isB2] = needs
      const above = [isX || isW1 || isB1, isW2, isB2, isB1]
      const [dz, dw2, db2, db1] = gradients(
        { dy, x: h, w: w2, below: { activation, kept } },
        above,
        [null, inputs[3], inputs[4], inputs[2]],
      )
      if (dz === null || !(isX || isW1)) return [null, null, db1, dw2, db2]
      const [dx, dw1] = gradients({ dy: dz, x, w: w1 }, [isX, isW1], [inputs[0], inputs[1]])
      return [dx, dw1, db1, dw2, db2]
    },
    byFormula(['x', 'w1', 'b1', 'w2', 'b2'], ({ x, w1, b1, w2, b2 }, { activation }) => [
      linear(linear(x, w1, b1, { activation }), w2, b2),
    ]),
  ),
  autocast: 'half',
  samples: (s) => [
    samplesOf(s, 'relu'),
    samplesOf(s, 'gelu'),
    samplesOf(s, 'geluTanh'),
    {
      inputs: [s.normal([2, 3]), s.normal([4, 3]), null, s.normal([3, 4]), null],
      attrs: { activation: 'gelu', keeps: true },
    },
  ],
})

export interface FeedForwardOptions {
  /** Between the layers; default `'gelu'`. */
  activation?: LinearActivation
}

/**
 * Two linear layers with an activation between them, f(x w1ᵀ + b1) w2ᵀ + b2: x [.., K], w1 [M, K],
 * b1 [M], w2 [L, M], b2 [L]; the result is [.., L]. It is what two calls of `linear` would make,
 * but the backward pass applies the activation's slope where the product with w2 is finished.
 * @throws ShapeError where sizes do not fit, DTypeError for bool operands
 */
export function feedForward(
  x: Tensor,
  w1: Tensor,
  b1: Tensor | null | undefined,
  w2: Tensor,
  b2: Tensor | null | undefined,
  options: FeedForwardOptions = {},
): Tensor {
  checkOptions('feedForward', options)
  const activation = checkLinearActivation('feedForward', options.activation) ?? 'gelu'
  const { rows, weight, added, restore } = checked('feedForward', x, w1, b1)
  const [, weight2] = meet('feedForward', rows, w2)
  if (w2.ndim !== 2 || w2.shape[1] !== w1.shape[0]) {
    throw new ShapeError(
      `feedForward: expected w2 of shape [L, ${w1.shape[0]}], got ${showShape(w2.shape)}`,
    )
  }
  if (weight2.dtype !== rows.dtype || !isFloating(rows.dtype)) {
    return linear(linear(x, w1, b1, { activation }), w2, b2)
  }
  const added2 = checkedBias('feedForward', rows, w2.shape[0], b2)
  const inputs = [rows, weight, added, weight2, added2]
  const attrs = { activation, keeps: isRecorded(inputs) }
  const [y, h, kept] = applyAll(feedForwardOp, inputs, attrs)
  // The tape holds what it reads.
  h.dispose()
  if (kept !== h) kept.dispose()
  return restore(y)
}
