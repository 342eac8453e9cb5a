import { describe, expect, test } from 'vitest'
import {
  AutogradError,
  enableGrad,
  enableGradAsync,
  isGradEnabled,
  noGrad,
  noGradAsync,
  tensor,
} from '../../src/index.js'
import { errorOf } from '../support/values.js'

const tick = () => new Promise((resolve) => setImmediate(resolve))
const tracked = () => tensor([1], { requiresGrad: true }).mul(2).requiresGrad

describe('noGrad and enableGrad', () => {
  test('nest and restore', () => {
    const seen = noGrad(() => [isGradEnabled(), enableGrad(tracked), tracked(), isGradEnabled()])
    expect(seen).toEqual([false, true, false, false])
    expect(isGradEnabled()).toBe(true)
  })

  test('restore after an error', () => {
    expect(() =>
      noGrad(() => {
        throw new Error('inside')
      }),
    ).toThrow('inside')
    expect(isGradEnabled()).toBe(true)
  })

  test('leaves that ask for a gradient inside still require one', () => {
    const x = noGrad(() => tensor([1], { requiresGrad: true }))
    expect(x.requiresGrad).toBe(true)
    expect(x.mul(2).requiresGrad).toBe(true)
  })

  test('refuse a function that returns a promise, and name the async form', () => {
    expect(errorOf(AutogradError, () => noGrad(async () => tick()))).toMatch(/use noGradAsync/)
    expect(errorOf(AutogradError, () => enableGrad(() => tick()))).toMatch(/use enableGradAsync/)
    expect(isGradEnabled()).toBe(true)
  })

  test('a refused promise that rejects later is no unhandled rejection', async () => {
    errorOf(AutogradError, () =>
      noGrad(async () => {
        await tick()
        throw new Error('later')
      }),
    )
    await tick()
    await tick()
  })
})

describe('noGradAsync and enableGradAsync', () => {
  test('hold across awaits, nest, and restore', async () => {
    const seen = await noGradAsync(async () => {
      const before = tracked()
      await tick()
      const inner = await enableGradAsync(async () => {
        await tick()
        return tracked()
      })
      await tick()
      return [before, inner, tracked(), noGrad(tracked), enableGrad(tracked)]
    })
    expect(seen).toEqual([false, true, false, false, true])
    expect(tracked()).toBe(true)
  })

  test('do not leak into tasks that run meanwhile', async () => {
    const seen: [string, boolean][] = []
    const quiet = noGradAsync(async () => {
      for (let i = 0; i < 5; i++) {
        seen.push(['quiet', tracked()])
        await tick()
      }
    })
    const loud = (async () => {
      for (let i = 0; i < 5; i++) {
        seen.push(['loud', tracked()])
        await tick()
      }
    })()
    expect(tracked()).toBe(true)
    await Promise.all([quiet, loud])
    expect(seen).toHaveLength(10)
    for (const [task, on] of seen) expect([task, on]).toEqual([task, task === 'loud'])
  })

  test('synchronous forms work inside other tasks meanwhile', async () => {
    const quiet = noGradAsync(() => tick())
    expect(noGrad(tracked)).toBe(false)
    expect(noGrad(() => enableGrad(tracked))).toBe(true)
    expect(tracked()).toBe(true)
    await quiet
  })

  test('backward inside runs as anywhere', async () => {
    const x = tensor([3], { requiresGrad: true })
    const y = x.square().sum()
    await noGradAsync(async () => {
      await tick()
      y.backward()
    })
    expect(x.grad?.item()).toBe(6)
  })

  test('restore after a rejection', async () => {
    await expect(
      noGradAsync(async () => {
        await tick()
        throw new Error('inside')
      }),
    ).rejects.toThrow('inside')
    expect(tracked()).toBe(true)
  })
})
