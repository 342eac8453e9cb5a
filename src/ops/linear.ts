import { type ActivationOpcode, numberOpcodes, opcodes } from '../bindings/opcodes.js'
import { apply, applyAll } from '../core/apply.js'
import { autocastTo } from '../core/autocast.js'
import { type DType, isFloating } from '../core/dtype.js'
import { checkOptions, ShapeError } from '../core/errors.js'
import { isGradEnabled } from '../core/grad-mode.js'
import { defineOp, deviceOf, jointly, type Op, type RuleContext, type Sampler } from '../core/op.js'
import { numelOf, type Shape, showShape } from '../core/shape.js'
import type { ValueInfo } from '../core/tape.js'
import { checkTensor, Tensor } from '../core/tensor.js'
import { byFormula, fusedUnlessTwice } from './by-formula.js'
import { cast } from './copy.js'
import { unary } from './elementwise.js'
import { checkLinearActivation, type LinearActivation } from './fused-activation.js'
import { meet, operand, product } from './matmul.js'
import { reshape } from './views.js'

const codes = numberOpcodes(opcodes.activation)

type Needs = readonly boolean[]

const resultOf = (x: Tensor, w: Tensor): Tensor =>
  Tensor.pending(x.device, x.dtype, [x.shape[0], w.shape[0]])

// y [N, M] = x [N, K] wᵀ + bias, with w [M, K] as nn.Linear keeps it; the bias is added where the
// product is finished
const linearOp: Op<void> = defineOp()({
  name: 'linear',
  inputs: ['x', 'w', 'bias'],
  run: ([x, w, bias]) => {
    const y = resultOf(x, w)
    const { calls } = x.device
    calls.begin('matmul').input(x).input(operand(w, true)).optional(bias).output(y).run()
    return y
  },
  // dy w; dyᵀ x; Σ dy, which the engine sums where it is to be differentiated again
  gradient: jointly(
    ['x', 'w'],
    ({ dy, needs, x, w, inputs, createGraph }) => {
      if (!createGraph) return gradients(dy, x, w, null, 'none', needs, inputs)
      return [
        needs[0] ? product(dy, w) : null,
        needs[1] ? product(dy, x, true) : null,
        needs[2] ? dy : null,
      ]
    },
    { x: 'w', w: 'x' },
  ),
  autocast: 'half',
  samples: (s) => [
    { inputs: [s.normal([3, 4]), s.normal([2, 4]), s.normal([2])], attrs: undefined },
    { inputs: [s.normal([3, 4]), s.normal([2, 4]), null], attrs: undefined },
  ],
})

interface ActivatedAttrs {
  readonly activation: LinearActivation
  /** Whether z is kept for the backward pass, where that reads it. */
  readonly keeps: boolean
}
interface ActivatedContext extends RuleContext<ActivatedAttrs> {
  readonly needs: Needs
  readonly x: Tensor
  readonly w: Tensor
  readonly kept: Tensor
}

const samplesOf = (s: Sampler, activation: LinearActivation) => ({
  inputs: [s.normal([3, 4]), s.normal([2, 4]), s.normal([2])],
  attrs: { activation, keeps: true },
})

// z = x wᵀ + bias, y = f(z). The slope of f is told from what is kept: y itself for relu, else z.
const linearActivationOp: Op<ActivatedAttrs> = defineOp<ActivatedAttrs>()({
  name: 'linearActivation',
  inputs: ['x', 'w', 'bias'],
  outputs: ['y', 'kept'],
  run: ([x, w, bias], { activation, keeps }) => {
    const y = resultOf(x, w)
    const z = keeps && activation !== 'relu' ? resultOf(x, w) : null
    const { calls } = x.device
    calls
      .begin('linear')
      .input(x)
      .input(w)
      .optional(bias)
      .output(y)
      .flag(z !== null)
    if (z !== null) calls.output(z)
    calls.number(codes[activation]).run()
    return [y, z ?? y]
  },
  gradient: fusedUnlessTwice<ActivatedAttrs, ActivatedContext>(
    ['x', 'w', 'kept'],
    ({ dy, x, w, kept, attrs, needs, inputs }) =>
      gradients(dy, x, w, kept, attrs.activation, needs, inputs),
    byFormula(['x', 'w', 'bias'], ({ x, w, bias }, { activation }) => [
      unary(activation, apply(linearOp, [x, w, bias], undefined)),
    ]),
  ),
  autocast: 'half',
  samples: (s) => [
    samplesOf(s, 'relu'),
    samplesOf(s, 'gelu'),
    samplesOf(s, 'geluTanh'),
    {
      inputs: [s.normal([2, 3]), s.normal([4, 3]), null],
      attrs: { activation: 'gelu', keeps: true },
    },
  ],
})

interface BackwardAttrs {
  readonly activation: ActivationOpcode
  readonly needs: Needs
  readonly dtypes: readonly DType[]
}

// dz = dy f'(z); dx = dz w; dw = dzᵀ x; dbias = Σ dz, the last two in float32 where the parameters
// are. The rules above call it only where nothing is recorded.
const linearBackwardOp: Op<BackwardAttrs> = defineOp<BackwardAttrs>()({
  name: 'linearBackward',
  inputs: ['dy', 'x', 'w', 'kept'],
  outputs: ['dx', 'dw', 'dbias'],
  run: ([dy, x, w, kept], { activation, needs, dtypes }) => {
    const { calls } = dy.device
    calls.begin('linearBackward').input(dy).optional(x).optional(w).optional(kept)
    const [n, m] = dy.shape
    const shapes: (() => Shape)[] = [() => [n, w.shape[1]], () => [m, x.shape[1]], () => [m]]
    const outputs = shapes.map((shape, i) => {
      calls.flag(needs[i])
      if (!needs[i]) return null
      const output = Tensor.pending(dy.device, dtypes[i], shape())
      calls.output(output)
      return output
    })
    calls.number(codes[activation]).run()
    return outputs as Tensor[]
  },
  gradient: null,
  samples: null,
})

/** Of x, w and bias, null where not needed. */
function gradients(
  dy: Tensor,
  x: Tensor | null,
  w: Tensor | null,
  kept: Tensor | null,
  activation: ActivationOpcode,
  needs: Needs,
  infos: readonly (ValueInfo | null)[],
): (Tensor | null)[] {
  const inputs = [dy, needs[1] ? x : null, needs[0] ? w : null, kept]
  // cuBLASLt's epilogue for both gives them in the dtype of the product.
  const isWide = dy.device.type === 'cpu'
  const dtypes = infos.map((info, i) => (isWide && i > 0 && info?.wideDType) || dy.dtype)
  return applyAll(linearBackwardOp, inputs, { activation, needs, dtypes })
}

export interface LinearOptions {
  /** Applied to the result by the same kernel; default null. */
  activation?: LinearActivation | null
}

/**
 * x wᵀ + bias: x [.., K], w [M, K], bias [M]; the result is [.., M]. With an activation it is what
 * `relu`, `gelu` or `gelu` with `approximate: 'tanh'` would make of that.
 */
export function linear(
  x: Tensor,
  w: Tensor,
  bias?: Tensor | null,
  options: LinearOptions = {},
): Tensor {
  checkOptions('linear', options)
  const activation = checkLinearActivation('linear', options.activation)
  const [input, weight] = meet('linear', x, w)
  if (w.ndim !== 2 || x.ndim === 0 || x.shape[x.ndim - 1] !== w.shape[1]) {
    throw new ShapeError(
      `linear: expected x [.., K] and w [M, K], got ${showShape(x.shape)} and ${showShape(w.shape)}`,
    )
  }
  if (bias) checkTensor('linear', bias)
  if (bias && (bias.ndim !== 1 || bias.shape[0] !== w.shape[0])) {
    throw new ShapeError(
      `linear: expected a bias of shape [${w.shape[0]}], got ${showShape(bias.shape)}`,
    )
  }
  if (bias) deviceOf('linear', [x, bias])
  const lead = input.shape.slice(0, -1)
  const rows = input.ndim === 2 ? input : reshape(input, [numelOf(lead), w.shape[1]])
  const [offset] = autocastTo(linearOp.autocast, [bias ?? null])
  const added = offset && cast(offset, input.dtype)
  const y = activated(rows, weight, added, activation)
  return input.ndim === 2 ? y : reshape(y, [...lead, w.shape[0]])
}

function activated(
  x: Tensor,
  w: Tensor,
  bias: Tensor | null,
  activation: LinearActivation | null,
): Tensor {
  if (activation === null) return apply(linearOp, [x, w, bias], undefined)
  if (!isFloating(x.dtype)) return unary(activation, apply(linearOp, [x, w, bias], undefined))
  const keeps = isGradEnabled() && [x, w, bias].some((t) => t !== null && t.gradEdge() !== null)
  const attrs = { activation, keeps }
  const [y, kept] = applyAll(linearActivationOp, [x, w, bias], attrs)
  // The tape holds it.
  if (kept !== y) kept.dispose()
  return y
}
