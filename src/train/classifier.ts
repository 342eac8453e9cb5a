import { checkFunction, checkList } from '../core/errors.js'
import { checkTensor, type Tensor } from '../core/tensor.js'
import { crossEntropy } from '../ops/index.js'
import type { StepResult } from './tally.js'

/**
 * The step of a classifier: inputs and int64 targets [N]; `forward` gives logits [N, C]; the loss
 * is the mean cross-entropy, and an answer is right where its largest logit is the target's.
 */
export function classifierStep(
  forward: (x: Tensor) => Tensor,
): (batch: readonly [x: Tensor, target: Tensor]) => StepResult {
  checkFunction('classifierStep', forward)
  return (batch) => {
    checkList('classifierStep', 'a batch of inputs and targets', batch)
    const [x, target] = batch
    checkTensor('classifierStep', target)
    const logits = checkTensor('classifierStep', forward(x))
    const correct = logits.detach().argmax(1).eq(target).sum()
    return { loss: crossEntropy(logits, target), correct, samples: target.length }
  }
}
