import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterAll, afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { emulatedCuda } from './support/emulated.js'

const machine = vi.hoisted(() => ({ driver: null as string | null }))
vi.mock('../src/bindings/driver.js', () => ({ nvidiaDriver: () => machine.driver }))

// Where users have adjoint_cuda.node, these tests have a copy of the emulated backend, or nothing.
const folder = mkdtempSync(path.join(os.tmpdir(), 'adjoint-devices-'))
const withCuda = path.join(folder, 'with')
const withoutCuda = path.join(folder, 'without')
mkdirSync(withCuda)
mkdirSync(withoutCuda)
const { addonPath } = emulatedCudaInItsPlace()
copyFileSync(addonPath, path.join(withCuda, 'adjoint_cuda.node'))
afterAll(() => rmSync(folder, { recursive: true }))

/** Built, but without a context: a device that failed once is to be tried here. */
function emulatedCudaInItsPlace(): { addonPath: string } {
  process.env.ADJOINT_EMULATION_ERROR = 'not yet'
  expect(() => emulatedCuda()).toThrow(/not yet/)
  return { addonPath: path.join(process.env.ADJOINT_ADDON_DIR ?? '', 'adjoint_emulated.node') }
}

const written: string[] = []

beforeEach(() => {
  vi.resetModules()
  machine.driver = null
  written.length = 0
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
    written.push(String(text))
    return true
  })
  vi.stubEnv('ADJOINT_DEVICE', '')
  vi.stubEnv('ADJOINT_ADDON_DIR', withCuda)
  delete process.env.ADJOINT_EMULATION_ERROR
  delete process.env.ADJOINT_EMULATION_DEVICES
})
afterEach(() => {
  vi.restoreAllMocks()
  vi.unstubAllEnvs()
})

/** The library as a new process finds it. */
const fresh = () => import('../src/index.js')
const DRIVER = 'NVRM version: NVIDIA UNIX x86_64 Kernel Module'

describe('a driver whose device fails', () => {
  // First in this file: a process keeps a device that has once been opened.
  beforeEach(() => {
    machine.driver = DRIVER
    process.env.ADJOINT_EMULATION_ERROR = 'no CUDA-capable device is detected'
  })

  test('the CPU takes over, and one line says why, once', async () => {
    const { defaultDevice, tensor } = await fresh()
    expect(defaultDevice().type).toBe('cpu')
    expect(tensor([1]).add(1).item()).toBe(2)
    expect(written).toHaveLength(1)
    expect(written[0]).toMatch(/^adjoint: CUDA is not used.*no CUDA-capable device.*\n$/)
  })

  test('asking for it by name is an error with the reason', async () => {
    const { cuda, DeviceError, device } = await fresh()
    expect(() => device('cuda')).toThrow(DeviceError)
    expect(() => device('cuda')).toThrow(/no CUDA-capable device is detected/)
    expect(cuda.isAvailable()).toBe(false)
    expect(cuda.deviceCount()).toBe(0)
    expect(written).toEqual([])
  })
})

describe('without ADJOINT_DEVICE', () => {
  test('no driver: the CPU, in silence, whatever addon lies there', async () => {
    const { defaultDevice } = await fresh()
    expect(defaultDevice().type).toBe('cpu')
    expect(written).toEqual([])
  })

  test('a driver and the addon: the GPU', async () => {
    machine.driver = DRIVER
    const { defaultDevice, tensor } = await fresh()
    expect(String(defaultDevice())).toBe('cuda:0')
    expect(String(tensor([1]).add(1).device)).toBe('cuda:0')
    expect(written).toEqual([])
  })

  test('a driver and no addon: one line names the command', async () => {
    machine.driver = DRIVER
    vi.stubEnv('ADJOINT_ADDON_DIR', withoutCuda)
    const { defaultDevice } = await fresh()
    expect(defaultDevice().type).toBe('cpu')
    expect(defaultDevice().type).toBe('cpu')
    expect(written).toHaveLength(1)
    // Where the tree has the addon built, it is found after all, and the line says why it failed.
    const isBuilt = existsSync(path.resolve('build/Release/adjoint_cuda.node'))
    expect(written[0]).toMatch(
      isBuilt ? /CUDA is not used/ : /no adjoint_cuda\.node.*npx adjoint build --cuda/,
    )
  })
})

describe('ADJOINT_DEVICE', () => {
  const choose = async (name: string) => {
    vi.stubEnv('ADJOINT_DEVICE', name)
    return (await fresh()).defaultDevice()
  }

  test('cpu: the CPU, where there is a GPU too', async () => {
    machine.driver = DRIVER
    expect((await choose('cpu')).type).toBe('cpu')
    expect(written).toEqual([])
  })

  test('cuda: the GPU', async () => {
    expect(String(await choose('cuda'))).toBe('cuda:0')
    expect(written).toEqual([])
  })

  test('cuda where it cannot be had: a line, and the CPU', async () => {
    vi.stubEnv('ADJOINT_ADDON_DIR', withoutCuda)
    expect((await choose('cuda')).type).toBe('cpu')
    expect(written).toHaveLength(1)
  })

  test('cuda:1 on a machine with one: a line, and the CPU', async () => {
    expect((await choose('cuda:1')).type).toBe('cpu')
    expect(written.join()).toMatch(/index below 1/)
  })

  test('cuda:1 on a machine with two: that one, which is also what cuda names', async () => {
    process.env.ADJOINT_EMULATION_DEVICES = '2'
    expect(String(await choose('cuda:1'))).toBe('cuda:1')
    const { cuda, device, tensor } = await fresh()
    expect(String(device('cuda'))).toBe('cuda:1')
    expect(cuda.currentDevice()).toBe(1)
    expect(cuda.deviceCount()).toBe(2)
    expect(String(tensor([1]).add(1).device)).toBe('cuda:1')
    expect(String(tensor([1]).to('cuda').device)).toBe('cuda:1')
    expect(String(tensor([1]).to('cuda:0').device)).toBe('cuda:0')
    expect(written).toEqual([])
  })

  test('something else is an error that names the variable', async () => {
    await expect(choose('gpu')).rejects.toThrow('ADJOINT_DEVICE: expected cpu or cuda, got "gpu"')
  })
})

describe('device', () => {
  test('is the first of each type without a number', async () => {
    const { device } = await fresh()
    expect(device('cpu:0')).toBe(device('cpu'))
    expect(device('cuda:0')).toBe(device('cuda'))
    expect(device(device('cuda'))).toBe(device('cuda'))
  })

  test('says which index it expected', async () => {
    const { device, DeviceError } = await fresh()
    expect(() => device('cuda:3')).toThrow(DeviceError)
    expect(() => device('cuda:3')).toThrow(
      "device: expected an index below 1, the number of GPUs, got 'cuda:3'",
    )
    expect(() => device('cpu:1')).toThrow(/expected 'cpu' or 'cuda', got "cpu:1"/)
    expect(() => device('cuda:x')).toThrow(DeviceError)
  })

  test('is not touched before it is named', async () => {
    process.env.ADJOINT_EMULATION_DEVICES = '3'
    const { cuda, device } = await fresh()
    const { openDevices } = await import('../src/core/device.js')
    expect(cuda.deviceCount()).toBe(3)
    expect(openDevices()).toEqual([])
    expect(device('cuda:2')).not.toBe(device('cuda:1'))
    expect(openDevices().map(String)).toEqual(['cuda:1', 'cuda:2'])
  })

  test('a setting of the process reaches one that is opened later', async () => {
    const { device, setFloat32MatmulPrecision } = await fresh()
    const { native } = device('cpu')
    const set = vi.spyOn(native, 'setFloat32Products')
    setFloat32MatmulPrecision('high')
    expect(set).toHaveBeenCalledWith(1)
    device('cuda')
    setFloat32MatmulPrecision('highest')
    expect(set).toHaveBeenLastCalledWith(0)
  })
})

describe('cuda, before anything has used a GPU', () => {
  test('figures are 0, and what there is to free is nothing', async () => {
    vi.stubEnv('ADJOINT_ADDON_DIR', withoutCuda)
    const { cuda, DeviceError } = await fresh()
    expect(cuda.memoryAllocated()).toBe(0)
    expect(cuda.maxMemoryAllocated()).toBe(0)
    expect(cuda.memoryReserved()).toBe(0)
    cuda.resetPeakMemoryStats()
    cuda.emptyCache()
    expect(cuda.isAvailable()).toBe(false)
    expect(cuda.deviceCount()).toBe(0)
    expect(() => cuda.synchronize()).toThrow(DeviceError)
    expect(() => cuda.getDeviceName()).toThrow(DeviceError)
    expect(() => cuda.getDeviceCapability()).toThrow(DeviceError)
    expect(() => cuda.setPerProcessMemoryFraction(0.5)).toThrow(DeviceError)
  })
})
