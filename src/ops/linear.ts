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

export type Needs = readonly boolean[]

const resultOf = (x: Tensor, w: Tensor): Tensor =>
  Tensor.pending(x.device, x.dtype, [x.shape[0], w.shape[0]])

/** x wᵀ + bias, unrecorded. */
export function affine(x: Tensor, w: Tensor, bias: Tensor | null): Tensor {
  const y = resultOf(x, w)
  const { calls } = x.device
  calls.begin('matmul').input(x).input(operand(w, true)).optional(bias).output(y).run()
  return y
}

// y [N, M] = x [N, K] wᵀ + bias, with w [M, K] as nn.Linear keeps it; the bias is added where the
// product is finished
const linearOp: Op<void> = defineOp()({
  name: 'linear',
  inputs: ['x', 'w', 'bias'],
  run: ([x, w, bias]) => affine(x, w, bias),
  // dy w; dyᵀ x; Σ dy, which the engine sums where it is to be differentiated again
  gradient: jointly(
    ['x', 'w'],
    ({ dy, needs, x, w, inputs, createGraph }) => {
      if (!createGraph) return gradients({ dy, x, w }, needs, inputs)
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

export interface ActivatedAttrs {
  readonly activation: LinearActivation
  /** Whether the backward pass will want what it tells the slope from. */
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

/**
 * y = f(x wᵀ + bias), unrecorded, and what the slope of f is told from: y itself for relu, else what
 * the kernel leaves.
 */
export function activatedAffine(
  x: Tensor,
  w: Tensor,
  bias: Tensor | null,
  { activation, keeps }: ActivatedAttrs,
): [y: Tensor, kept: Tensor] {
  const y = resultOf(x, w)
  const left = keeps && activation !== 'relu' ? resultOf(x, w) : null
  const { calls } = x.device
  calls
    .begin('linear')
    .input(x)
    .input(w)
    .optional(bias)
    .output(y)
    .flag(left !== null)
  if (left !== null) calls.output(left)
  calls.number(codes[activation]).run()
  return [y, left ?? y]
}

// y = f(x wᵀ + bias)
const linearActivationOp: Op<ActivatedAttrs> = defineOp<ActivatedAttrs>()({
  name: 'linearActivation',
  inputs: ['x', 'w', 'bias'],
  outputs: ['y', 'kept'],
  run: ([x, w, bias], attrs) => activatedAffine(x, w, bias, attrs),
  gradient: fusedUnlessTwice<ActivatedAttrs, ActivatedContext>(
    ['x', 'w', 'kept'],
    ({ dy, x, w, kept, attrs, needs, inputs }) =>
      gradients({ dy, x, w, kept, activation: attrs.activation }, needs, inputs),
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

/** The activation that made x, and what its slope is told from. */
interface Below {
  readonly activation: LinearActivation
  readonly kept: Tensor
}
interface BackwardAttrs {
  readonly activation: ActivationOpcode
  readonly below: ActivationOpcode
  readonly needs: Needs
  readonly dtypes: readonly DType[]
}

// dz = dy f'(z); dx = dz w; dw = dzᵀ x; dbias = Σ dz. Where x = g(u), dx is the gradient of u, dz w
// times g'(u), and dbiasBelow = Σ of that. Those of parameters are float32 where the parameters are.
// Rules call it only where nothing is recorded.
const linearBackwardOp: Op<BackwardAttrs> = defineOp<BackwardAttrs>()({
  name: 'linearBackward',
  inputs: ['dy', 'x', 'w', 'kept', 'keptBelow'],
  outputs: ['dx', 'dw', 'dbias', 'dbiasBelow'],
  run: ([dy, x, w, kept, keptBelow], { activation, below, needs, dtypes }) => {
    const { calls } = dy.device
    calls.begin('linearBackward').input(dy).optional(x).optional(w)
    calls.optional(kept).optional(keptBelow)
    const [n, m] = dy.shape
    const shapes: (() => Shape)[] = [
      () => [n, w.shape[1]],
      () => [m, x.shape[1]],
      () => [m],
      () => [w.shape[1]],
    ]
    const outputs = shapes.map((shape, i) => {
      const isNeeded = needs[i] ?? false
      calls.flag(isNeeded)
      if (!isNeeded) return null
      const output = Tensor.pending(dy.device, dtypes[i], shape())
      calls.output(output)
      return output
    })
    calls.number(codes[activation]).number(codes[below]).run()
    return outputs as Tensor[]
  },
  gradient: null,
  samples: null,
})

interface Given {
  readonly dy: Tensor
  readonly x: Tensor | null
  readonly w: Tensor | null
  readonly activation?: LinearActivation
  readonly kept?: Tensor
  readonly below?: Below
}

/**
 * Of x, w and bias, and of the bias below, null where not needed; `infos` are those of the four.
 * Unrecorded.
 */
export function gradients(
  { dy, x, w, activation, kept, below }: Given,
  needs: Needs,
  infos: readonly (ValueInfo | null)[],
): (Tensor | null)[] {
  const inputs = [dy, needs[1] ? x : null, needs[0] ? w : null, kept ?? null, below?.kept ?? null]
  // cuBLASLt's epilogue for both gives them in the dtype of the product.
  const isWide = dy.device.type === 'cpu'
  const dtypes = infos.map((info, i) => (isWide && i > 0 && info?.wideDType) || dy.dtype)
  return applyAll(linearBackwardOp, inputs, {
    activation: activation ?? 'none',
    below: below?.activation ?? 'none',
    needs,
    dtypes,
  })
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
  const { rows, weight, added, restore } = checked('linear', x, w, bias)
  return restore(activated(rows, weight, added, activation))
}

interface Checked {
  /** [N, K], all in the dtype of the product. */
  readonly rows: Tensor
  readonly weight: Tensor
  readonly added: Tensor | null
  /** Of a result [N, M], with the axes that x has before the last. */
  readonly restore: (y: Tensor) => Tensor
}

/** The operands of a layer as its kernel takes them. */
export function checked(
  op: string,
  x: Tensor,
  w: Tensor,
  bias: Tensor | null | undefined,
): Checked {
  const [input, weight] = meet(op, x, w)
  if (w.ndim !== 2 || x.ndim === 0 || x.shape[x.ndim - 1] !== w.shape[1]) {
    throw new ShapeError(
      `${op}: expected x [.., K] and w [M, K], got ${showShape(x.shape)} and ${showShape(w.shape)}`,
    )
  }
  const added = checkedBias(op, input, w.shape[0], bias)
  const lead = input.shape.slice(0, -1)
  if (lead.length === 1) return { rows: input, weight, added, restore: (y) => y }
  const rows = reshape(input, [numelOf(lead), w.shape[1]])
  return { rows, weight, added, restore: (y) => reshape(y, [...lead, y.shape[1]]) }
}

/** A bias [M] in the dtype of the product. */
export function checkedBias(
  op: string,
  x: Tensor,
  size: number,
  bias: Tensor | null | undefined,
): Tensor | null {
  if (!bias) return null
  checkTensor(op, bias)
  if (bias.ndim !== 1 || bias.shape[0] !== size) {
    throw new ShapeError(`${op}: expected a bias of shape [${size}], got ${showShape(bias.shape)}`)
  }
  deviceOf(op, [x, bias])
  const [offset] = autocastTo(linearOp.autocast, [bias])
  return cast(offset, x.dtype)
}

/** Whether the backward pass will want what the forward pass leaves for it. */
export function isRecorded(inputs: readonly (Tensor | null)[]): boolean {
  return isGradEnabled() && inputs.some((t) => t !== null && t.gradEdge() !== null)
}

function activated(
  x: Tensor,
  w: Tensor,
  bias: Tensor | null,
  activation: LinearActivation | null,
): Tensor {
  if (activation === null) return apply(linearOp, [x, w, bias], undefined)
  if (!isFloating(x.dtype)) return unary(activation, apply(linearOp, [x, w, bias], undefined))
  const attrs = { activation, keeps: isRecorded([x, w, bias]) }
  const [y, kept] = applyAll(linearActivationOp, [x, w, bias], attrs)
  // The tape holds it.
  if (kept !== y) kept.dispose()
  return y
}
