// useDeterministicAlgorithms on its way to the one kernel that it decides on, cuDNN's gradient of
// attention; native/selftest/plans has what cuDNN makes of it.
import { afterEach, describe, expect, test } from 'vitest'
import {
  ArgumentError,
  areDeterministicAlgorithmsEnabled,
  manualSeed,
  randn,
  scaledDotProductAttention,
  type Tensor,
  useDeterministicAlgorithms,
  zeros,
} from '../../src/index.js'
import { isRealCuda, testCuda } from '../support/cuda.js'

afterEach(() => useDeterministicAlgorithms(false))

function gradients(shape: number[], device: 'cpu' | ReturnType<typeof testCuda>): Tensor[] {
  manualSeed(5)
  const draw = () => randn(shape, { device, dtype: 'bfloat16', requiresGrad: true })
  const [q, k, v] = [draw(), draw(), draw()]
  scaledDotProductAttention(q, k, v, { isCausal: true }).sum().backward()
  return [q, k, v].map((x) => x.grad as Tensor)
}

describe.skipIf(isRealCuda)('the library is told of it', () => {
  /** What it was told by a gradient that is computed now. */
  function wasDeterministic(): boolean {
    const device = testCuda()
    gradients([1, 2, 5, 8], device)
    const y = zeros([1], { dtype: 'bool', device })
    y.dataSync() // what fills it has run
    device.calls.begin('attentionWasDeterministic').output(y).run()
    return y.dataSync()[0] === 1
  }

  test('on a device that is opened later, too', () => {
    useDeterministicAlgorithms(true)
    expect(areDeterministicAlgorithmsEnabled()).toBe(true)
    expect(wasDeterministic()).toBe(true)
  })

  test('each time it changes, and not before', () => {
    expect(areDeterministicAlgorithmsEnabled()).toBe(false)
    for (const isEnabled of [false, true, false]) {
      useDeterministicAlgorithms(isEnabled)
      expect(areDeterministicAlgorithmsEnabled()).toBe(isEnabled)
      expect(wasDeterministic()).toBe(isEnabled)
    }
  })
})

test.runIf(isRealCuda)('a gradient of cuDNN repeats bit for bit on a GPU', () => {
  useDeterministicAlgorithms(true)
  const shape = [4, 12, 1024, 64]
  const [first, second] = [1, 2].map(() => gradients(shape, testCuda()))
  for (const [i, x] of first.entries()) expect(x.eq(second[i]).all().item()).toBe(1)
})

test('the CPU repeats bit for bit either way', () => {
  const runs = [false, true].map((isEnabled) => {
    useDeterministicAlgorithms(isEnabled)
    return gradients([2, 3, 33, 16], 'cpu').map((x) => x.dataSync())
  })
  expect(runs[0]).toEqual(runs[1])
})

test('what is no boolean is refused and changes nothing', () => {
  for (const wrong of [1, 0, 'true', undefined, null, {}]) {
    expect(() => useDeterministicAlgorithms(wrong as boolean)).toThrow(ArgumentError)
    expect(() => useDeterministicAlgorithms(wrong as boolean)).toThrow(
      /^useDeterministicAlgorithms: expected a boolean, got /,
    )
  }
  expect(areDeterministicAlgorithmsEnabled()).toBe(false)
})
