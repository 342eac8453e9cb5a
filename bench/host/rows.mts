// What is timed: a sum of 4 elements, and the steps whose calls docs/cuda.md counts.
import { randint, randn, type Tensor, tensor } from 'adjoint'
import * as nn from 'adjoint/nn'
import { Gpt } from '../../examples/support/gpt.mjs'
import type { StepRow } from '../support/steps.mjs'

const images = () => ({ x: randn([8, 1, 8, 8]), y: randint(0, 10, [8]) })

const mlp = () =>
  new nn.Sequential(
    ...[new nn.Flatten(), new nn.Linear(64, 32), new nn.ReLU()],
    ...[new nn.Dropout(0.5), new nn.Linear(32, 10)],
  )

export const stepRows: readonly StepRow[] = [
  { name: 'dispatch-mlp', network: mlp, parameters: 2410, batch: images },
  { name: 'dispatch-mlp-clipped', network: mlp, parameters: 2410, batch: images, clips: true },
  {
    name: 'dispatch-cnn',
    network: () =>
      new nn.Sequential(
        ...[new nn.Conv2d(1, 4, 3), new nn.BatchNorm2d(4), new nn.ReLU(), new nn.MaxPool2d(2)],
        ...[new nn.Flatten(), new nn.Linear(36, 10)],
      ),
    parameters: 418,
    batch: images,
  },
  {
    name: 'dispatch-gpt',
    network: () => new Gpt({ vocabulary: 11, context: 7, layers: 1, heads: 2, width: 12 }),
    parameters: 2256,
    batch: () => ({ x: randint(0, 11, [2, 7]), y: randint(0, 11, [14]) }),
  },
]

/** How many sums a run of a row without a network has. */
export const REPEAT = 100

export interface AddRow {
  readonly name: string
  readonly gradient: boolean
}

export const addRows: readonly AddRow[] = [
  { name: 'add of 4 elements', gradient: false },
  { name: 'add of 4 elements, with gradient', gradient: true },
]

/** `REPEAT` sums; the last one. */
export function adds({ gradient }: AddRow): () => Tensor {
  const a = tensor([1, 2, 3, 4], { requiresGrad: gradient })
  const b = tensor([5, 6, 7, 8])
  return () => {
    let c = a.add(b)
    for (let i = 1; i < REPEAT; i++) c = a.add(b)
    return c
  }
}
