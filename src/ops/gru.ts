import { applyAll } from '../core/apply.js'
import { defineOp, type Op, type RuleContext } from '../core/op.js'
import type { Shape } from '../core/shape.js'
import { Tensor } from '../core/tensor.js'
import { byFormula, fusedUnlessTwice } from './by-formula.js'
import { binary, unary } from './elementwise.js'
import { cat } from './indexing.js'
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
import { narrow } from './views.js'

const sigmoid = (x: Tensor) => unary('sigmoid', x)

interface GruInputs extends RecurrentWeights {
  readonly x: Tensor
  readonly h0: Tensor | null
}

type GruContext = RuleContext<SequenceAttrs> &
  GruInputs & { readonly y: Tensor; readonly gates: Tensor; readonly needs: readonly boolean[] }

// r, z = σ(wIh x_t + bIh + wHh h + bHh); m = wHn h + bHn; n = tanh(wIn x_t + bIn + r m);
// h = (1 - z) n + z h. x [T, N, I]; y [T, N, H] is h of each step; gates [T, N, 4H], which hold
// n, r, z and m and are float32 where the rest is of a half type, are for backward
const gruOp: Op<SequenceAttrs> = defineOp<SequenceAttrs>()({
  name: 'gru',
  inputs: ['x', 'wIh', 'wHh', 'bIh', 'bHh', 'h0'],
  outputs: ['y', 'gates'],
  run: ([x, wIh, wHh, bIh, bHh, h0], { reverse }) => {
    const y = pendingSteps(x, wHh.shape[1])
    const gates = pendingKept(x, 4 * wHh.shape[1])
    const { calls } = x.device
    calls.begin('gru').input(x).input(wIh).input(wHh).optional(bIh).optional(bHh).optional(h0)
    calls.output(y).output(gates).flag(reverse).run()
    return [y, gates]
  },
  gradient: fusedUnlessTwice<SequenceAttrs, GruContext>(
    ['x', 'wIh', 'wHh', 'h0', 'y', 'gates'],
    (context) => gruGradients(context),
    byFormula(['x', 'wIh', 'wHh', 'bIh', 'bHh', 'h0'], (values, attrs) => [
      composedGru(values, attrs),
    ]),
  ),
  samples: (s) => [
    {
      inputs: [
        s.normal([3, 2, 2]),
        s.normal([9, 2]),
        s.normal([9, 3]),
        s.normal([9]),
        s.normal([9]),
        s.normal([2, 3]),
      ],
      attrs: { reverse: false },
    },
    {
      inputs: [s.normal([2, 1, 3]), s.normal([6, 3]), s.normal([6, 2]), null, null, null],
      attrs: { reverse: true },
    },
  ],
})

/** Three blocks of rows in the order of the sums of x (n, r, z) from that of the weights. */
const inOrderOfSums = (w: Tensor): Tensor => {
  const size = w.shape[0] / 3
  return cat([narrow(w, 0, 2 * size, size), narrow(w, 0, 0, 2 * size)])
}
/** And back: r, z, n. */
const inOrderOfWeights = (w: Tensor): Tensor => {
  const size = w.shape[0] / 3
  return cat([narrow(w, 0, size, 2 * size), narrow(w, 0, 0, size)])
}

// With da the gradients of the sums n, r, z and dm = da_n r: dx = da wIh; dwIh = Σ daᵀ x;
// dwHh = Σ [da_r, da_z, dm]ᵀ h; the biases' are the sums of the same
function gruGradients(context: GruContext): (Tensor | null)[] {
  const { dys, needs, attrs, x, wIh, wHh, h0, y, gates } = context
  const [all, dh0, sums] = applyAll(gruBackwardOp, [dys[0], wHh, h0, gates, y], attrs)
  const size = wHh.shape[1]
  const [da, dh] = [narrow(all, 2, 0, 3 * size), narrow(all, 2, size, 3 * size)]
  return [
    needs[0] ? matmul(da, inOrderOfSums(wIh)) : null,
    needs[1] ? inOrderOfWeights(overSteps(da, x)) : null,
    needs[2] ? hiddenWeightGradient(dh, y, h0, attrs) : null,
    needs[3] ? inOrderOfWeights(narrow(sums, 0, 0, 3 * size)) : null,
    needs[4] ? narrow(sums, 0, size, 3 * size) : null,
    dh0,
  ]
}

// From the last step to the first: dn = dh (1 - z), dz = dh (h_{t-1} - n), da_n = dn (1 - n²),
// dr = da_n m, dm = da_n r, times the activations' derivatives;
// dh_{t-1} = dh z + [da_r, da_z, dm] wHh; sums are those of dgates over steps and rows. The rule of
// `gru` calls it only where nothing is recorded.
const gruBackwardOp: Op<SequenceAttrs> = defineOp<SequenceAttrs>()({
  name: 'gruBackward',
  inputs: ['dy', 'wHh', 'h0', 'gates', 'y'],
  outputs: ['dgates', 'dh0', 'sums'],
  run: ([dy, wHh, h0, gates, y], { reverse }) => {
    const pending = (shape: Shape) => Tensor.pending(wHh.device, wHh.dtype, shape)
    const dgates = pending(gates.shape)
    const dh0 = pending(y.shape.slice(1))
    const sums = pending([gates.shape[2]])
    const { calls } = wHh.device
    calls.begin('gruBackward').optional(dy).input(wHh).optional(h0).input(gates).input(y)
    calls.output(dgates).output(dh0).output(sums).flag(reverse).run()
    return [dgates, dh0, sums]
  },
  gradient: null,
  samples: null,
})

function composedGru(inputs: GruInputs, attrs: SequenceAttrs): Tensor {
  const { x, wHh, bHh } = inputs
  const initial = [stateOrZeros(inputs.h0, x, wHh)]
  return composed(x, inputs, initial, attrs, (projected, [h]) => {
    const [aR, aZ, aN] = chunk(projected, 3, 1)
    const [hR, hZ, m] = chunk(linear(h, wHh, bHh), 3, 1)
    const n = unary('tanh', add(aN, mul(sigmoid(add(aR, hR)), m)))
    return [add(n, mul(sigmoid(add(aZ, hZ)), binary('sub', h, n)))]
  }).y
}

/**
 * One layer of a GRU in one direction: x [T, N, I], h before the first step [N, H] (null for zeros),
 * weights [3H, ..] with rows r, z, n. Returns h of each step, [T, N, H]. Dtypes as for `lstm`.
 */
export function gru(
  x: Tensor,
  { wIh, wHh, bIh, bHh }: RecurrentWeights,
  h0: Tensor | null,
  attrs: SequenceAttrs,
): Tensor {
  const [y, gates] = applyAll(gruOp, [x, wIh, wHh, bIh, bHh, h0], attrs)
  // What backward needs of it is held by the tape.
  gates.dispose()
  return y
}
