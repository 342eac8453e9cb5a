import { expect, test } from 'vitest'
import { AutogradError, noGrad, type Tensor } from '../../src/index.js'
import { type Differentiable, gradcheck } from '../support/gradcheck.js'
import { Random, SeededSampler } from '../support/sampler.js'

/** Views of a tensor of three axes or fewer, some of them overlapping others. */
function randomView(x: Tensor, random: Random): Tensor {
  const axis = random.integer(0, Math.max(1, x.ndim))
  const size = x.shape[axis] ?? 1
  switch (random.integer(0, 6)) {
    case 0:
      return size > 1 ? x.slice(axis, random.integer(0, size - 1), null, random.integer(1, 3)) : x
    case 1:
      return x.permute(random.permutation(x.ndim))
    case 2:
      return x.ndim > 1 ? x.select(axis, random.integer(0, size)) : x
    case 3:
      return x.isContiguous ? x.reshape([x.numel]) : x
    case 4:
      return x.ndim < 3 ? x.unsqueeze(0) : x
    default:
      return x.narrow(axis, 0, Math.max(1, size - 1))
  }
}

/** Overwrites a tensor by smooth functions of itself, of a constant or of another tensor. */
function randomChange(x: Tensor, all: readonly Tensor[], random: Random): void {
  const other = all[random.integer(0, all.length)]
  const fits = String(other.shape) === String(x.shape) && other.base !== x.base && other !== x
  switch (random.integer(0, 5)) {
    case 0:
      x.mul_(random.uniform(0.5, 1.5))
      break
    case 1:
      x.sin_()
      break
    case 2:
      x.add_(random.uniform(-1, 1))
      break
    case 3:
      if (fits) x.mul_(other.clone())
      else x.cos_()
      break
    default:
      x.copy_(x.mul(0.7).cos())
  }
}

/**
 * A program of views, ops and in-place changes on two inputs, drawn from a seed. Its results are all
 * tensors that it made, so that bases, views and what was computed before a change are all checked.
 */
function program(seed: number): Differentiable {
  return (inputs) => {
    const random = new Random(seed)
    const all = inputs.map((x) => x.mul(1))
    for (let step = 0; step < 12; step++) {
      const x = all[random.integer(0, all.length)]
      const kind = random.next()
      if (kind < 0.4) all.push(randomView(x, random))
      else if (kind < 0.8) randomChange(x, all, random)
      else all.push(x.clone().sin().add(x.mul(0.5)))
    }
    return all
  }
}

test('random programs of views and in-place changes: gradients agree with differences', () => {
  const sampler = new SeededSampler(1)
  let checked = 0
  for (let seed = 0; seed < 150; seed++) {
    const inputs = [sampler.normal([2, 3, 2]), sampler.normal([3, 2])]
    try {
      gradcheck(program(seed), inputs, seed)
      checked++
    } catch (error) {
      // A program may overwrite what its own backward pass needs; nothing else may go wrong.
      const refused = error instanceof AutogradError && /overwritten/.test(error.message)
      if (!refused)
        throw new Error(`program ${seed}: ${(error as Error).message}`, { cause: error })
    }
  }
  expect(checked).toBeGreaterThan(140)
})

test('the same programs without a tape compute the same values', () => {
  const sampler = new SeededSampler(2)
  for (let seed = 0; seed < 40; seed++) {
    const inputs = [sampler.normal([2, 3, 2]), sampler.normal([3, 2])]
    const recorded = program(seed)(inputs.map((x) => x.detach().requiresGrad_()))
    const plain = noGrad(() => program(seed)(inputs))
    recorded.forEach((y, i) => {
      expect(y.dataSync()).toEqual(plain[i].dataSync())
    })
  }
})
