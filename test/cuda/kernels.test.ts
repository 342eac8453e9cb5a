import { expect, test } from 'vitest'
import { addonOf } from '../../src/core/device.js'
import { device } from '../../src/index.js'
import { isRealCuda, testCuda } from '../support/cuda.js'

const cuda = testCuda()
const cpu = device('cpu')

test('is the device of this run', () => {
  expect(cuda.type).toBe('cuda')
  expect(addonOf('cuda').addon.backend).toBe('cuda')
  const { device: name } = cuda.native.deviceInfo()
  expect(name === 'emulated').toBe(!isRealCuda)
})

test('has every kernel of the CPU', () => {
  const missing = Object.keys(cpu.native.kernels).filter(
    (kernel) => !(kernel in cuda.native.kernels),
  )
  expect(missing).toEqual([])
})

test('has the same opcodes and dtypes', () => {
  const [onCuda, onCpu] = [addonOf('cuda').addon, addonOf('cpu').addon]
  expect(onCuda.opcodes).toEqual(onCpu.opcodes)
  expect(onCuda.dtypes).toEqual(onCpu.dtypes)
})
