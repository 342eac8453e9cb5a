import { applyAll } from '../core/apply.js'
import { autocastTo } from '../core/autocast.js'
import { isFloating } from '../core/dtype.js'
import { ArgumentError, checkOptions, DTypeError, describe, ShapeError } from '../core/errors.js'
import type { Generator } from '../core/generator.js'
import { defineOp, deviceOf, jointly, type Op } from '../core/op.js'
import { broadcastShapes, contiguousStrides, numelOf, sameShape, showShape } from '../core/shape.js'
import { checkTensor, Tensor } from '../core/tensor.js'
import { byFormula } from './by-formula.js'
import { arange } from './creation.js'
import { dropout } from './dropout.js'
import { binary, unary } from './elementwise.js'
import { matmul } from './matmul.js'
import { amax, sum } from './reduce.js'
import { softmax } from './softmax.js'
import { mul, sub } from './terms.js'
import { expand, reshape, transpose, unsqueeze } from './views.js'
import { where } from './where.js'

interface AttentionAttrs {
  readonly scale: number
  readonly isCausal: boolean
}

/** q [.., Tq, D], k [.., Tk, D], v [.., Tk, E] and a mask [.., Tq, Tk] or none. */
interface Operands {
  readonly q: Tensor
  readonly k: Tensor
  readonly v: Tensor
  readonly mask: Tensor | null
}

const add = (a: Tensor | null, b: Tensor) => (a === null ? b : binary('add', a, b))
const swap = (x: Tensor) => transpose(x, -2, -1)

/** A result [B, H, T, D] that lies in memory as [B, T, H, D]: heads are joined without a copy. */
function pendingHeads(like: Tensor, [b, h, t, d]: readonly number[]) {
  const memory = [b, t, h, d]
  const [batch, position, head, one] = contiguousStrides(memory)
  const strides = [batch, head, position, one]
  return { y: new Tensor(like.device, like.dtype, [b, h, t, d], strides), memory }
}

// y = softmax(scale q kᵀ + mask) v, lse[i] = log Σ exp(..) (Vaswani et al. 2017), blocked over the
// sequence (Dao et al. 2022); q, k [B, H, T, D], v [B, H, Tk, E], mask [B, H, Tq, Tk] or null
const attentionOp: Op<AttentionAttrs> = defineOp<AttentionAttrs>()({
  name: 'attention',
  inputs: ['q', 'k', 'v', 'mask'],
  outputs: ['y', 'lse'],
  differentiable: 2,
  run: ([q, k, v, mask], { scale, isCausal }) => {
    const [b, h, tq] = q.shape
    const { y, memory } = pendingHeads(q, [b, h, tq, v.shape[3]])
    const dtype = q.dtype === 'float64' ? 'float64' : 'float32'
    const lse = Tensor.pending(q.device, dtype, [b, h, tq])
    const { calls } = q.device
    calls.begin('attention').input(q).input(k).input(v).optional(mask)
    calls.outputAs(y, memory).output(lse).number(scale).flag(isCausal).run()
    return [y, lse]
  },
  // Through y by the fused kernel. With p = exp(scores - lse) and s the gradient of the scores:
  // through lse s = p dlse, and a mask that is added has s as its gradient, both by the formula.
  gradient: jointly(['q', 'k', 'v', 'mask', 'y', 'lse'], (context) => {
    const { dys, attrs, needs, q, k, v, mask, y, lse } = context
    const [dy, dlse] = dys
    let [dq = null, dk = null, dv = null]: (Tensor | null)[] = dy
      ? applyAll(attentionBackwardOp, [dy, q, k, v, mask, y, lse], attrs)
      : []
    if (!dlse && !needs[3]) return [dq, dk, dv, null]
    const p = probabilities({ q, k, v, mask }, lse, attrs)
    const fromLse = dlse ? mul(p, unsqueeze(dlse, 3)) : null
    if (fromLse !== null) {
      const ds = mul(fromLse, attrs.scale)
      dq = add(dq, matmul(ds, k))
      dk = add(dk, matmul(swap(ds), q))
    }
    const fromY = dy && needs[3] ? scoreGradient(p, dy, v, y) : null
    const dmask = fromY === null ? fromLse : add(fromLse, fromY)
    return [dq, dk, dv, needs[3] ? dmask : null]
  }),
  autocast: 'half',
  samples: (s) => [
    {
      inputs: [s.normal([1, 2, 3, 2]), s.normal([1, 2, 4, 2]), s.normal([1, 2, 4, 3]), null],
      attrs: { scale: 0.7, isCausal: true },
    },
    {
      inputs: [
        s.normal([2, 1, 2, 2]),
        s.normal([2, 1, 3, 2]),
        s.normal([2, 1, 3, 2]),
        s.normal([2, 1, 2, 3]),
      ],
      attrs: { scale: 1.3, isCausal: false },
    },
  ],
})

// p = exp(scores - lse); ds = p (g vᵀ - Σ g y); dq = scale ds k; dk = scale dsᵀ q; dv = pᵀ g
const attentionBackwardOp: Op<AttentionAttrs> = defineOp<AttentionAttrs>()({
  name: 'attentionBackward',
  inputs: ['g', 'q', 'k', 'v', 'mask', 'y', 'lse'],
  outputs: ['dq', 'dk', 'dv'],
  differentiable: 3,
  run: ([g, q, k, v, mask, y, lse], { scale, isCausal }) => {
    const gradients = [q, k, v].map((x) => pendingHeads(x, x.shape))
    const { calls } = q.device
    calls.begin('attentionBackward').input(g).input(q).input(k).input(v).optional(mask)
    calls.input(y).input(lse)
    for (const d of gradients) calls.outputAs(d.y, d.memory)
    calls.number(scale).flag(isCausal).run()
    return gradients.map((d) => d.y)
  },
  gradient: byFormula(
    ['g', 'q', 'k', 'v', 'mask', 'y', 'lse'],
    ({ g, q, k, v, mask, y, lse }, attrs: AttentionAttrs) => {
      const p = probabilities({ q, k, v, mask }, lse, attrs)
      const ds = mul(scoreGradient(p, g, v, y), attrs.scale)
      return [matmul(ds, k), matmul(swap(ds), q), matmul(swap(p), g)]
    },
  ),
  samples: (s) => {
    const qkv = () => [s.normal([1, 2, 2, 2]), s.normal([1, 2, 3, 2]), s.normal([1, 2, 3, 1])]
    const statistics = () => [s.normal([1, 2, 2, 1]), s.uniform([1, 2, 2], 1, 2)]
    const g = () => s.normal([1, 2, 2, 1])
    return [
      { inputs: [g(), ...qkv(), null, ...statistics()], attrs: { scale: 0.7, isCausal: true } },
      {
        inputs: [g(), ...qkv(), s.normal([1, 2, 2, 3]), ...statistics()],
        attrs: { scale: 1.3, isCausal: false },
      },
    ]
  },
})

/** scale q kᵀ + mask [.., Tq, Tk], -∞ where a key does not count. */
function scoresOf({ q, k, mask }: Operands, { scale, isCausal }: AttentionAttrs): Tensor {
  let scores = mul(matmul(q, swap(k)), scale)
  if (isCausal) {
    const at = (x: Tensor) => arange(0, x.shape[x.ndim - 2], 1, { device: x.device })
    const isSeen = binary('ge', unsqueeze(at(q), 1), at(k))
    scores = where(isSeen, scores, Number.NEGATIVE_INFINITY)
  }
  if (mask === null) return scores
  if (mask.dtype === 'bool') return where(mask, scores, Number.NEGATIVE_INFINITY)
  return add(scores, mask)
}

/** exp(scores - lse) */
const probabilities = (operands: Operands, lse: Tensor, attrs: AttentionAttrs) =>
  unary('exp', sub(scoresOf(operands, attrs), unsqueeze(lse, lse.ndim)))

/** p (dy vᵀ - Σ dy y): the gradient of the scores */
const scoreGradient = (p: Tensor, dy: Tensor, v: Tensor, y: Tensor) =>
  mul(p, sub(matmul(dy, swap(v)), sum(mul(dy, y), -1, { keepdim: true })))

/** dropout(softmax(scores)) v with all scores in memory; rows that see no key are 0. */
function composed(
  operands: Operands,
  attrs: AttentionAttrs,
  p: number,
  generator?: Generator,
): Tensor {
  const scores = scoresOf(operands, attrs)
  if (scores.shape[scores.ndim - 1] === 0) return matmul(scores, operands.v)
  const isDead = binary('eq', amax(scores, -1, { keepdim: true }), Number.NEGATIVE_INFINITY)
  const weights = where(isDead, 0, softmax(where(isDead, 0, scores)))
  return matmul(dropout(weights, p, { generator }), operands.v)
}

export interface AttentionOptions {
  /** Broadcasts to [.., Tq, Tk]: bool (a key counts where it is true), or added to the scores. */
  attnMask?: Tensor | null
  /** Whether query i sees the keys up to i alone; default false. Not together with a mask. */
  isCausal?: boolean
  /** Factor of q kᵀ; default 1 / √D. */
  scale?: number
  /** Probability of a weight to be dropped; default 0. */
  dropoutP?: number
  /** Of the dropout; default: the device's own, which `manualSeed` seeds. */
  generator?: Generator
}

const NAME = 'scaledDotProductAttention'

/** Checks dtypes and sizes; the axes before the last two, broadcast. */
function checkOperands({ q, k, v, mask }: Operands): readonly number[] {
  for (const [name, x] of Object.entries({ q, k, v })) {
    if (checkTensor(NAME, x).ndim < 2) {
      throw new ShapeError(
        `${NAME}: expected ${name} with at least two axes, got ${showShape(x.shape)}`,
      )
    }
  }
  if (mask !== null) checkTensor(NAME, mask)
  deviceOf(NAME, [q, k, v, mask])
  if (!isFloating(q.dtype) || k.dtype !== q.dtype || v.dtype !== q.dtype) {
    throw new DTypeError(
      `${NAME}: expected q, k and v of one floating dtype, got ${q.dtype}, ${k.dtype} and ${v.dtype}`,
    )
  }
  if (mask !== null && mask.dtype !== 'bool' && mask.dtype !== q.dtype) {
    throw new DTypeError(`${NAME}: expected a mask of bool or ${q.dtype}, got ${mask.dtype}`)
  }
  const [d, tk] = [q.shape[q.ndim - 1], k.shape[k.ndim - 2]]
  if (k.shape[k.ndim - 1] !== d || v.shape[v.ndim - 2] !== tk) {
    throw new ShapeError(
      `${NAME}: expected q [.., Tq, D], k [.., Tk, D] and v [.., Tk, E], got ` +
        `${showShape(q.shape)}, ${showShape(k.shape)} and ${showShape(v.shape)}`,
    )
  }
  const leadOf = (x: Tensor) => x.shape.slice(0, -2)
  const lead = broadcastShapes(NAME, broadcastShapes(NAME, leadOf(q), leadOf(k)), leadOf(v))
  const scores = [...lead, q.shape[q.ndim - 2], tk]
  if (mask !== null && !sameShape(broadcastShapes(NAME, mask.shape, scores), scores)) {
    throw new ShapeError(
      `${NAME}: expected a mask that broadcasts to ${showShape(scores)}, got ${showShape(mask.shape)}`,
    )
  }
  return lead
}

/**
 * softmax(scale q kᵀ + mask) v, as torch.nn.functional.scaled_dot_product_attention: q [.., Tq, D],
 * k [.., Tk, D], v [.., Tk, E]; the result is [.., Tq, E]. Axes before the last two broadcast. A
 * query that sees no key gives 0. Work goes block by block along the sequence (Dao et al. 2022), so
 * that the scores [Tq, Tk] are never held, nor read where a causal mask hides a whole block; the
 * result lies in memory so that `transpose(1, 2).reshape([B, T, -1])` joins the heads without a
 * copy. With dropout, and for the gradient of a mask that requires one, all scores are held.
 * @throws ArgumentError for a mask together with `isCausal`, or dropoutP outside [0, 1]
 */
export function scaledDotProductAttention(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  options: AttentionOptions = {},
): Tensor {
  checkOptions(NAME, options)
  const given = [query, key, value, options.attnMask ?? null] as const
  const [q, k, v, mask] = autocastTo(attentionOp.autocast, given)
  const { isCausal = false, dropoutP = 0, generator } = options
  const lead = checkOperands({ q, k, v, mask })
  const scale = options.scale ?? 1 / Math.sqrt(q.shape[q.ndim - 1])
  if (typeof scale !== 'number' || Number.isNaN(scale)) {
    throw new ArgumentError(`${NAME}: expected a number as scale, got ${describe(scale)}`)
  }
  if (typeof isCausal !== 'boolean' || (isCausal && mask !== null)) {
    throw new ArgumentError(
      `${NAME}: expected isCausal as a boolean, and no mask with it, got ${describe(isCausal)}`,
    )
  }
  if (typeof dropoutP !== 'number' || !(dropoutP >= 0 && dropoutP <= 1)) {
    throw new ArgumentError(`${NAME}: expected dropoutP in [0, 1], got ${describe(dropoutP)}`)
  }
  const attrs = { scale, isCausal }
  if (dropoutP > 0) return composed({ q, k, v, mask }, attrs, dropoutP, generator)
  // To [B, H, rows, columns]: two axes before the last two, repeated where they broadcast.
  const b = numelOf(lead.length > 1 ? lead.slice(0, -1) : lead)
  const h = lead.length > 1 ? lead[lead.length - 1] : 1
  const fold = (x: Tensor) => {
    const [rows, columns] = x.shape.slice(-2)
    const whole = expand(x, [...lead, rows, columns])
    return lead.length === 2 ? whole : reshape(whole, [b, h, rows, columns])
  }
  const [tq, tk] = [q.shape[q.ndim - 2], k.shape[k.ndim - 2]]
  const wholeMask = mask && expand(mask, [...lead, tq, tk])
  const inputs = [fold(q), fold(k), fold(v), wholeMask && fold(wholeMask)]
  const [y, lse] = applyAll(attentionOp, inputs, attrs)
  // What backward needs of it is held by the tape.
  lse.dispose()
  return lead.length === 2 ? y : reshape(y, [...lead, tq, v.shape[v.ndim - 1]])
}
