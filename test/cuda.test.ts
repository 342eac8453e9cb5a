import { describe, expect, test } from 'vitest'
import { ArgumentError, cuda, full, OutOfMemoryError, setMemoryCap } from '../src/index.js'
import { isRealCuda, testCuda } from './support/cuda.js'

const gpu = testCuda()

describe('cuda', () => {
  test('describes the device', () => {
    expect(cuda.isAvailable()).toBe(true)
    expect(cuda.deviceCount()).toBeGreaterThanOrEqual(1)
    expect(cuda.getDeviceName() === 'emulated').toBe(!isRealCuda)
    expect(cuda.getDeviceCapability()).toEqual(
      gpu.native.deviceInfo().computeCapability.split('.').map(Number),
    )
    cuda.synchronize()
  })

  test('counts memory', () => {
    const before = cuda.memoryAllocated()
    const x = full([1_000_000], 1, { device: gpu })
    expect(cuda.memoryAllocated() - before).toBe(4_000_000)
    const y = x.add(1)
    y.dispose()
    expect(cuda.memoryAllocated() - before).toBe(4_000_000)
    expect(cuda.maxMemoryAllocated() - before).toBeGreaterThanOrEqual(8_000_000)
    cuda.resetPeakMemoryStats()
    expect(cuda.maxMemoryAllocated()).toBe(cuda.memoryAllocated())
    const reserved = cuda.memoryReserved()
    expect(reserved).toBeGreaterThanOrEqual(8_000_000)
    x.dispose()
    cuda.emptyCache()
    expect(cuda.memoryReserved()).toBeLessThan(reserved)
  })

  test('caps memory at a part of the device', () => {
    const bytes = Number(gpu.native.deviceInfo().memoryBytes)
    cuda.setPerProcessMemoryFraction(64e6 / bytes)
    try {
      expect(() => full([20_000_000], 1, { device: gpu })).toThrow(OutOfMemoryError)
      full([1_000_000], 1, { device: gpu }).dispose()
    } finally {
      setMemoryCap(0, gpu)
    }
  })

  test.each([0, -1, 1.5, Number.NaN, '1', null])('refuses a part of %s', (part) => {
    expect(() => cuda.setPerProcessMemoryFraction(part as number)).toThrow(ArgumentError)
  })
})
