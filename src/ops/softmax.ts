import { apply } from '../core/apply.js'
import { floatType } from '../core/dtype.js'
import { defineOp, from, type Op } from '../core/op.js'
import { checkAxis } from '../core/shape.js'
import { checkTensor, Tensor } from '../core/tensor.js'
import { cast } from './copy.js'
import { unary } from './elementwise.js'
import { sum } from './reduce.js'
import { mul, sub } from './terms.js'
import { reshape } from './views.js'

interface SoftmaxAttrs {
  readonly axis: number
  readonly logarithm: boolean
}

const softmaxOp: Op<SoftmaxAttrs> = defineOp<SoftmaxAttrs>()({
  name: 'softmax',
  autocast: 'float32 on cuda',
  inputs: ['x'],
  run: ([x], { axis, logarithm }) => {
    const y = Tensor.pending(x.device, x.dtype, x.shape)
    x.device.calls.begin('softmax').input(x).output(y).number(axis).flag(logarithm).run()
    return y
  },
  gradient: { x: from(['y'], ({ dy, y, attrs }) => apply(softmaxBackwardOp, [dy, y], attrs)) },
  samples: (s) => [
    { inputs: [s.normal([3, 4])], attrs: { axis: 1, logarithm: false } },
    { inputs: [s.normal([3, 4])], attrs: { axis: 0, logarithm: true } },
  ],
})

// g is the gradient of y. softmax: dx = y (g - Σ g y); its logarithm: dx = g - eʸ Σ g
const softmaxBackwardOp: Op<SoftmaxAttrs> = defineOp<SoftmaxAttrs>()({
  name: 'softmaxBackward',
  inputs: ['g', 'y'],
  run: ([g, y], { axis, logarithm }) => {
    const dx = Tensor.pending(y.device, y.dtype, y.shape)
    const { calls } = y.device
    calls.begin('softmaxBackward').input(g).input(y).output(dx).number(axis).flag(logarithm).run()
    return dx
  },
  gradient: {
    // y (dy - Σ dy y); for the logarithm dy - Σ dy eʸ
    g: from(['y'], ({ dy, y, attrs: { axis, logarithm } }) => {
      const p = logarithm ? unary('exp', y) : y
      const shifted = sub(dy, sum(mul(dy, p), axis, { keepdim: true }))
      return logarithm ? shifted : mul(y, shifted)
    }),
    // dy (g - Σ g y) - g Σ dy y; for the logarithm -dy eʸ Σ g
    y: from(['g', 'y'], ({ dy, g, y, attrs: { axis, logarithm } }) => {
      const total = (a: Tensor) => sum(a, axis, { keepdim: true })
      if (logarithm) return unary('neg', mul(mul(dy, unary('exp', y)), total(g)))
      return sub(mul(dy, sub(g, total(mul(g, y)))), mul(g, total(mul(dy, y))))
    }),
  },
  samples: (s) => [
    { inputs: [s.normal([3, 4]), s.normal([3, 4])], attrs: { axis: 1, logarithm: false } },
    { inputs: [s.normal([3, 4]), s.normal([3, 4])], attrs: { axis: 0, logarithm: true } },
  ],
})

function softmaxAlong(name: string, x: Tensor, axis: number, logarithm: boolean): Tensor {
  const input = cast(x, floatType(checkTensor(name, x).dtype))
  const attrs = { axis: checkAxis(name, axis, x.ndim), logarithm }
  if (x.ndim > 0) return apply(softmaxOp, [input], attrs)
  return reshape(apply(softmaxOp, [reshape(input, [1])], attrs), [])
}

/** eˣ / Σ eˣ along an axis (default the last), without overflow. */
export function softmax(x: Tensor, axis = -1): Tensor {
  return softmaxAlong('softmax', x, axis, false)
}

/** log(eˣ / Σ eˣ) along an axis (default the last), without overflow. */
export function logSoftmax(x: Tensor, axis = -1): Tensor {
  return softmaxAlong('logSoftmax', x, axis, true)
}
