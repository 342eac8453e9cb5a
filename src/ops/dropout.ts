import { apply, applyAll } from '../core/apply.js'
import { isFloating } from '../core/dtype.js'
import { ArgumentError, checkOptions, DTypeError, describe } from '../core/errors.js'
import { type Generator, generatorId } from '../core/generator.js'
import { defineOp, from, type Op } from '../core/op.js'
import { checkTensor, Tensor } from '../core/tensor.js'

interface MaskAttrs {
  /** Probability of an element to be dropped. */
  readonly p: number
}

interface DropoutAttrs extends MaskAttrs {
  readonly generator: number
}

// y[i] = u[i] < p ? 0 : x[i] / (1 - p) with uniform u (Srivastava et al. 2014); state int64 [2] on
// the device is where the generator stood, from which backward draws the same u again
const dropoutOp: Op<DropoutAttrs> = defineOp<DropoutAttrs>()({
  name: 'dropout',
  inputs: ['x'],
  outputs: ['y', 'state'],
  run: ([x], { p, generator }) => {
    const y = Tensor.pendingLike(x, x.dtype, x.shape)
    const state = Tensor.pending(x.device, 'int64', [2])
    const { calls } = x.device
    calls.begin('dropout').input(x).output(y).output(state).number(p).number(generator).run()
    return [y, state]
  },
  gradient: {
    x: from(['state'], ({ dy, state, attrs: { p } }) =>
      apply(dropoutBackwardOp, [dy, state], { p }),
    ),
  },
  // Finite differences need a mask that stays, which only p = 0 has here; dropoutBackward has one.
  samples: (s) => [{ inputs: [s.normal([2, 3])], attrs: { p: 0, generator: 0 } }],
})

// dx[i] = u[i] < p ? 0 : g[i] / (1 - p); linear in g with a diagonal matrix, its own transpose
const dropoutBackwardOp: Op<MaskAttrs> = defineOp<MaskAttrs>()({
  name: 'dropoutBackward',
  inputs: ['g', 'state'],
  run: ([g, state], { p }) => {
    const dx = Tensor.pendingLike(g, g.dtype, g.shape)
    g.device.calls.begin('dropoutBackward').input(g).input(state).output(dx).number(p).run()
    return dx
  },
  gradient: {
    g: from(['state'], ({ dy, state, attrs }) => apply(dropoutBackwardOp, [dy, state], attrs)),
    state: null,
  },
  samples: (s) => [{ inputs: [s.normal([3, 4]), s.integers([2], 0, 1000)], attrs: { p: 0.4 } }],
})

export interface DropoutOptions {
  /** Whether anything is dropped; default true. */
  training?: boolean
  /** Default: the device's own, which `manualSeed` seeds. */
  generator?: Generator
}

/**
 * Sets each element to 0 with probability p and divides the others by 1 - p, so that the mean stays.
 * The tensor itself outside of training.
 * @throws ArgumentError for p outside [0, 1]
 */
export function dropout(x: Tensor, p: number, options: DropoutOptions = {}): Tensor {
  if (typeof p !== 'number' || !(p >= 0 && p <= 1)) {
    throw new ArgumentError(`dropout: expected p in [0, 1], got ${describe(p)}`)
  }
  checkOptions('dropout', options)
  if (!isFloating(checkTensor('dropout', x).dtype)) {
    throw new DTypeError(`dropout: expected a floating dtype, got ${x.dtype}`)
  }
  if (p === 0 || options.training === false) return x
  const generator = generatorId(options.generator, x.device)
  const [y, state] = applyAll(dropoutOp, [x], { p, generator })
  // What backward needs of it is held by the tape.
  state.dispose()
  return y
}
