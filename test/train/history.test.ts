import { describe, expect, it } from 'vitest'
import { ArgumentError } from '../../src/core/errors.js'
import { checkEarlyStop, type EpochRecord, shouldStop } from '../../src/train/history.js'

const run = (losses: number[]): EpochRecord[] =>
  losses.map((loss, i) => ({
    epoch: i + 1,
    loss: 9,
    validation: { loss, accuracy: 1 - loss },
    seconds: 1,
  }))

describe('shouldStop', () => {
  it('waits for as many epochs without improvement as it is told', () => {
    expect(shouldStop([], { patience: 1 })).toBe(false)
    expect(shouldStop(run([3, 2, 2]), { patience: 2 })).toBe(false)
    expect(shouldStop(run([3, 2, 2, 2.5]), { patience: 2 })).toBe(true)
    expect(shouldStop(run([3, 2, 2, 1]), { patience: 2 })).toBe(false)
  })

  it('watches the accuracy, where larger is better, and wants more than minDelta', () => {
    const history = run([0.5, 0.4, 0.39, 0.38])
    expect(shouldStop(history, { patience: 2, monitor: 'accuracy' })).toBe(false)
    expect(shouldStop(history, { patience: 2, monitor: 'accuracy', minDelta: 0.05 })).toBe(true)
  })

  it('counts NaN as no improvement, and training scores where nothing was validated', () => {
    expect(shouldStop(run([Number.NaN, Number.NaN]), { patience: 1 })).toBe(true)
    expect(shouldStop(run([1, Number.NaN, 0.5]), { patience: 2 })).toBe(false)
    const plain = [1, 2].map((loss, i) => ({ epoch: i + 1, loss, seconds: 1 }))
    expect(shouldStop(plain, { patience: 1 })).toBe(true)
  })

  it('refuses rules that make no sense', () => {
    for (const patience of [0, -1, 1.5]) {
      expect(() => checkEarlyStop({ patience })).toThrow(ArgumentError)
    }
    expect(() => checkEarlyStop({ patience: 1, monitor: 'other' as 'loss' })).toThrow(ArgumentError)
    expect(() => checkEarlyStop({ patience: 1, minDelta: -1 })).toThrow(ArgumentError)
  })
})
