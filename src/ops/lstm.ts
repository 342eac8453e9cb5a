import { applyAll } from '../core/apply.js'
import { defineOp, type Op, type RuleContext } from '../core/op.js'
import type { Shape } from '../core/shape.js'
import { Tensor } from '../core/tensor.js'
import { byFormula, fusedUnlessTwice } from './by-formula.js'
import { unary } from './elementwise.js'
import { linear } from './linear.js'
import { matmul } from './matmul.js'
import {
  composed,
  hiddenWeightGradient,
  overSteps,
  pendingKept,
  pendingSteps,
  type RecurrentWeights,
  type SequenceAttrs,
  stateOrZeros,
} from './recurrent.js'
import { chunk } from './split.js'
import { add, mul } from './terms.js'

const sigmoid = (x: Tensor) => unary('sigmoid', x)
const tanh = (x: Tensor) => unary('tanh', x)

interface LstmInputs extends RecurrentWeights {
  readonly x: Tensor
  readonly h0: Tensor | null
  readonly c0: Tensor | null
}

interface LstmSaved extends LstmInputs {
  readonly y: Tensor
  readonly gates: Tensor
  readonly cells: Tensor
}

// a = wIh x_t + bIh + wHh h + bHh; c = σ(f) c + σ(i) tanh(g); h = σ(o) tanh(c)
// x [T, N, I]; y [T, N, H] is h of each step, c [N, H] after the last one; gates [T, N, 4H] and
// cells [T, N, H], float32 where the rest is of a half type, are for backward
const lstmOp: Op<SequenceAttrs> = defineOp<SequenceAttrs>()({
  name: 'lstm',
  inputs: ['x', 'wIh', 'wHh', 'bIh', 'bHh', 'h0', 'c0'],
  outputs: ['y', 'c', 'gates', 'cells'],
  differentiable: 2,
  run: ([x, wIh, wHh, bIh, bHh, h0, c0], { reverse }) => {
    const size = wHh.shape[1]
    const y = pendingSteps(x, size)
    const c = Tensor.pending(x.device, x.dtype, [x.shape[1], size])
    const gates = pendingKept(x, 4 * size)
    const cells = pendingKept(x, size)
    const { calls } = x.device
    calls.begin('lstm').input(x).input(wIh).input(wHh).optional(bIh).optional(bHh)
    calls.optional(h0).optional(c0).output(y).output(c).output(gates).output(cells)
    calls.flag(reverse).run()
    return [y, c, gates, cells]
  },
  gradient: fusedUnlessTwice<SequenceAttrs, LstmContext>(
    ['x', 'wIh', 'wHh', 'h0', 'c0', 'y', 'gates', 'cells'],
    (context) => lstmGradients(context),
    byFormula(['x', 'wIh', 'wHh', 'bIh', 'bHh', 'h0', 'c0'], (values, attrs) =>
      composedLstm(values, attrs),
    ),
  ),
  samples: (s) => [
    {
      inputs: [
        s.normal([3, 2, 2]),
        s.normal([12, 2]),
        s.normal([12, 3]),
        s.normal([12]),
        s.normal([12]),
        s.normal([2, 3]),
        s.normal([2, 3]),
      ],
      attrs: { reverse: false },
    },
    {
      inputs: [s.normal([2, 1, 3]), s.normal([8, 3]), s.normal([8, 2]), null, null, null, null],
      attrs: { reverse: true },
    },
  ],
})

type LstmContext = RuleContext<SequenceAttrs> & LstmSaved & { readonly needs: readonly boolean[] }

// With da the gradient of a: dx = da wIh; dwIh = Σ daᵀ x; dwHh = Σ daᵀ h; db = Σ da
function lstmGradients(context: LstmContext): (Tensor | null)[] {
  const { dys, needs, attrs, x, wIh, wHh, h0, c0, y, gates, cells } = context
  const [dy = null, dc = null] = dys
  const [da, dh0, dc0, db] = applyAll(lstmBackwardOp, [dy, dc, wHh, c0, gates, cells], attrs)
  return [
    needs[0] ? matmul(da, wIh) : null,
    needs[1] ? overSteps(da, x) : null,
    needs[2] ? hiddenWeightGradient(da, y, h0, attrs) : null,
    needs[3] ? db : null,
    needs[4] ? db : null,
    dh0,
    dc0,
  ]
}

// From the last step to the first: dc += dh o (1 - tanh²c); di = dc g, df = dc c_{t-1}, dg = dc i,
// do = dh tanh c, times the activations' derivatives; dh_{t-1} = da wHh, dc_{t-1} = dc f; db is the
// sum of da. The rule of `lstm` calls it only where nothing is recorded.
const lstmBackwardOp: Op<SequenceAttrs> = defineOp<SequenceAttrs>()({
  name: 'lstmBackward',
  inputs: ['dy', 'dc', 'wHh', 'c0', 'gates', 'cells'],
  outputs: ['da', 'dh0', 'dc0', 'db'],
  run: ([dy, dc, wHh, c0, gates, cells], { reverse }) => {
    const pending = (shape: Shape) => Tensor.pending(wHh.device, wHh.dtype, shape)
    const da = pending(gates.shape)
    const dh0 = pending(cells.shape.slice(1))
    const dc0 = pending(cells.shape.slice(1))
    const db = pending([wHh.shape[0]])
    const { calls } = wHh.device
    calls.begin('lstmBackward').optional(dy).optional(dc).input(wHh).optional(c0)
    calls.input(gates).input(cells).output(da).output(dh0).output(dc0).output(db)
    calls.flag(reverse).run()
    return [da, dh0, dc0, db]
  },
  gradient: null,
  samples: null,
})

function composedLstm(inputs: LstmInputs, attrs: SequenceAttrs): Tensor[] {
  const { x, wHh, bHh } = inputs
  const initial = [stateOrZeros(inputs.h0, x, wHh), stateOrZeros(inputs.c0, x, wHh)]
  const { y, state } = composed(x, inputs, initial, attrs, (projected, [h, before]) => {
    const [i, f, g, o] = chunk(add(projected, linear(h, wHh, bHh)), 4, 1)
    const c = add(mul(sigmoid(f), before), mul(sigmoid(i), tanh(g)))
    return [mul(sigmoid(o), tanh(c)), c]
  })
  return [y, state[1]]
}

/**
 * One layer of an LSTM in one direction: x [T, N, I], the state before the first step [N, H] each
 * (null for zeros), weights [4H, ..] with rows i, f, g, o. Returns h of each step [T, N, H] and the
 * cells after the last one [N, H]. All of one floating dtype and of fitting shapes; half types are
 * computed in float32, products of bfloat16 as bfloat16 where the processor has them, and of both
 * half types as they are on CUDA.
 */
export function lstm(
  x: Tensor,
  { wIh, wHh, bIh, bHh }: RecurrentWeights,
  h0: Tensor | null,
  c0: Tensor | null,
  attrs: SequenceAttrs,
): [y: Tensor, c: Tensor] {
  const [y, c, gates, cells] = applyAll(lstmOp, [x, wIh, wHh, bIh, bHh, h0, c0], attrs)
  // What backward needs of them is held by the tape.
  gates.dispose()
  cells.dispose()
  return [y, c]
}
