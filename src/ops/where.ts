import { apply } from '../core/apply.js'
import { resultType } from '../core/dtype.js'
import { DTypeError } from '../core/errors.js'
import { defineOp, deviceOf, from, isTensor, type Value } from '../core/op.js'
import { broadcastShapes, type Shape } from '../core/shape.js'
import { checkTensor, Tensor } from '../core/tensor.js'
import { checkOperand, type Operand } from './operand.js'

const shapeOf = (x: Value): Shape => (x instanceof Tensor ? x.shape : [])

export const whereOp = defineOp()({
  name: 'where',
  inputs: ['condition', 'a', 'b'],
  run: ([condition, a, b]) => {
    const device = deviceOf('where', [condition, a, b])
    if (condition.dtype !== 'bool') {
      throw new DTypeError(`where: expected a bool condition, got ${condition.dtype}`)
    }
    const dtype = resultType('where', [a, b])
    const branches = broadcastShapes('where', shapeOf(a), shapeOf(b))
    const shape = broadcastShapes('where', condition.shape, branches)
    const branch = isTensor(a) ? a : isTensor(b) ? b : null
    const y = Tensor.pendingLike(condition, dtype, shape, branch)
    device.calls.begin('where').input(condition).operand(a).operand(b).output(y).run()
    return y
  },
  // [condition]; [not condition]
  gradient: {
    condition: null,
    a: from(['condition'], ({ dy, condition }) => where(condition, dy, 0)),
    b: from(['condition'], ({ dy, condition }) => where(condition, 0, dy)),
  },
  samples: (s) => [
    { inputs: [s.booleans([2, 3]), s.normal([2, 3]), s.normal([3])], attrs: undefined },
    { inputs: [s.booleans([3]), s.normal([2, 3]), 0.5], attrs: undefined },
  ],
})

/** Elements of `a` where the condition (bool) holds, else of `b`; all broadcast together. */
export function where(condition: Tensor, a: Operand, b: Operand): Tensor {
  checkTensor('where', condition)
  const [x, y] = [checkOperand('where', a, condition), checkOperand('where', b, condition)]
  return apply(whereOp, [condition, x, y], undefined)
}
