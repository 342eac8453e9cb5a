import path from 'node:path'
import { describe, expect, test } from 'vitest'
import { arange, DisposedError, device, full, tensor } from '../src/index.js'
import { isRealCuda, testCuda } from './support/cuda.js'
import { root, runScript } from './support/run.js'
import { startWorker } from './support/worker.js'

const cuda = testCuda()
const cpu = device('cpu')

/** Values that take the device a while: some tenths of a second of emulation, some hundredths. */
function slowValues(steps = 60) {
  const x = full([isRealCuda ? 100_000_000 : 200_000], 0, { device: cuda })
  for (let i = 0; i < steps; i++) x.add_(1)
  return x.slice(0, 0, 200_000).clone()
}

describe('await x.data()', () => {
  test.each([cpu, cuda])('gives the elements on %s, of views and half types too', async (at) => {
    const x = arange(0, 12, 1, { device: at }).float().reshape([3, 4])
    expect(await x.data()).toEqual(Float32Array.from({ length: 12 }, (_, i) => i))
    expect(await x.t().select(0, 1).data()).toEqual(new Float32Array([1, 5, 9]))
    expect(await x.bfloat16().slice(0, 2, 3).data()).toEqual(new Float32Array([8, 9, 10, 11]))
    expect(await x.gt(10).data()).toEqual(Uint8Array.from({ length: 12 }, (_, i) => +(i > 10)))
    expect(await tensor([2n ** 60n], { device: at }).data()).toEqual(new BigInt64Array([2n ** 60n]))
    expect(await full([0, 3], 1, { device: at }).data()).toEqual(new Float32Array(0))
  })

  test('lets other JavaScript run while the device computes', async () => {
    const values = slowValues().data()
    let turns = 0
    let isWaiting = true
    const count = () => {
      turns++
      if (isWaiting) setImmediate(count)
    }
    setImmediate(count)
    expect((await values)[199_999]).toBe(60)
    isWaiting = false
    expect(turns).toBeGreaterThan(20)
  })

  test('gives the values of the moment of the call', async () => {
    const x = full([1000], 1, { device: cuda })
    const before = x.data()
    x.fill_(2)
    const after = x.data()
    x.dispose()
    full([1000], 3, { device: cuda })
    expect(await before).toEqual(new Float32Array(1000).fill(1))
    expect(await after).toEqual(new Float32Array(1000).fill(2))
  })

  test('many at once', async () => {
    const all = Array.from({ length: 50 }, (_, i) => full([i * 100], i, { device: cuda }).data())
    const values = await Promise.all(all)
    values.forEach((each, i) => {
      expect(each).toEqual(new Float32Array(i * 100).fill(i))
    })
  })

  test('of a disposed tensor is refused', async () => {
    const x = full([3], 1, { device: cuda })
    x.dispose()
    await expect(x.data()).rejects.toThrow(DisposedError)
  })
})

describe('values that are still awaited', () => {
  test('when a worker ends', async () => {
    const worker = startWorker(path.join(root, 'test/async-data.script.ts'))
    await new Promise((resolve) => worker.once('message', resolve))
    expect(await worker.terminate()).toBe(1)
    expect((await slowValues(1).data())[0]).toBe(1)
  })

  test('when the process ends', () => {
    const done = runScript('test/async-data.script.ts', ['exit'])
    expect(done).toMatchObject({ status: 0, signal: null, stderr: '' })
  })
})
