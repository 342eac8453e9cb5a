// `cuda.…`: what one asks of the GPUs themselves, under torch.cuda's names. What takes a device is
// about the current one without it.

import {
  addonOf,
  currentGpuIndex,
  Device,
  type DeviceLike,
  device,
  openDevices,
  setCurrentGpu,
} from './device.js'
import { ArgumentError, DeviceError, describe } from './errors.js'

/** A GPU: `1`, `'cuda:1'`, its Device, or `'cuda'` for the current one. */
export type GpuLike = DeviceLike | number

function indexOf(op: string, gpu: GpuLike | undefined): number {
  if (gpu === undefined || gpu === 'cuda') return currentGpuIndex()
  if (gpu instanceof Device && gpu.type === 'cuda') return gpu.index
  const index = /^cuda:(\d+)$/.exec(String(gpu))?.[1] ?? gpu
  if ((typeof index === 'number' || typeof index === 'string') && /^\d+$/.test(String(index))) {
    return Number(index)
  }
  throw new DeviceError(`${op}: expected a GPU such as 1 or 'cuda:1', got ${describe(gpu)}`)
}

const find = (op: string, gpu: GpuLike | undefined): Device => device(`cuda:${indexOf(op, gpu)}`)

/** The GPU if anything has used it so far. */
function inUse(op: string, gpu: GpuLike | undefined): Device | undefined {
  const index = indexOf(op, gpu)
  return openDevices().find((d) => d.type === 'cuda' && d.index === index)
}

/** Whether tensors can live on a GPU: the first call looks for it. Never throws. */
export function isAvailable(): boolean {
  try {
    device('cuda')
    return true
  } catch (error) {
    if (error instanceof DeviceError) return false
    throw error
  }
}

/** How many GPUs the process sees; 0 where CUDA cannot be used. */
export function deviceCount(): number {
  try {
    return addonOf('cuda').addon.deviceCount()
  } catch (error) {
    if (error instanceof DeviceError) return 0
    throw error
  }
}

/**
 * Makes a GPU the current one, which `'cuda'` without a number names from now on. Tensors stay where
 * they are, and those that name no device go where `setDefaultDevice` says.
 * @throws DeviceError if there is no such GPU
 */
export function setDevice(gpu: GpuLike): void {
  setCurrentGpu(find('setDevice', gpu))
}

/** The number of the current GPU: at first 0, or the 1 of `ADJOINT_DEVICE=cuda:1`. */
export function currentDevice(): number {
  return currentGpuIndex()
}

/** The name of a GPU, such as `'NVIDIA H100 80GB HBM3'`. @throws DeviceError without one */
export function getDeviceName(gpu?: GpuLike): string {
  return find('getDeviceName', gpu).native.deviceInfo().device
}

/** A GPU's compute capability, such as `[9, 0]`. @throws DeviceError without one */
export function getDeviceCapability(gpu?: GpuLike): [major: number, minor: number] {
  const { computeCapability } = find('getDeviceCapability', gpu).native.deviceInfo()
  const [major, minor] = computeCapability.split('.')
  return [Number(major), Number(minor)]
}

/**
 * Waits until all work queued on a GPU is done. Reading a value waits for what it needs by itself;
 * this is for timing. @throws DeviceError without a GPU, or if its work failed
 */
export function synchronize(gpu?: GpuLike): void {
  find('synchronize', gpu).native.synchronize()
}

/** Bytes of a GPU's memory that tensors of the process hold now; 0 before its first use. */
export function memoryAllocated(gpu?: GpuLike): number {
  return inUse('memoryAllocated', gpu)?.native.memoryStats().processLiveBytes ?? 0
}

/** The most bytes that tensors of the process have held, since `resetPeakMemoryStats` if called. */
export function maxMemoryAllocated(gpu?: GpuLike): number {
  return inUse('maxMemoryAllocated', gpu)?.native.memoryStats().peakLiveBytes ?? 0
}

/** Bytes taken from a GPU: those of `memoryAllocated`, and blocks that are kept for reuse. */
export function memoryReserved(gpu?: GpuLike): number {
  return inUse('memoryReserved', gpu)?.native.memoryStats().reservedBytes ?? 0
}

/** Lets `maxMemoryAllocated` start anew from what is held now. */
export function resetPeakMemoryStats(gpu?: GpuLike): void {
  inUse('resetPeakMemoryStats', gpu)?.native.resetPeakMemory()
}

/** Gives memory of all GPUs that is kept for reuse back to the driver, for other processes. */
export function emptyCache(): void {
  for (const { type, native } of openDevices()) if (type === 'cuda') native.trimCache()
}

/**
 * The most that the process may take of a GPU's memory, as a part of it from 0 (exclusive) to 1;
 * `setMemoryCap` sets it in bytes.
 */
export function setPerProcessMemoryFraction(fraction: number, gpu?: GpuLike): void {
  if (!(typeof fraction === 'number' && fraction > 0 && fraction <= 1)) {
    throw new ArgumentError(
      `setPerProcessMemoryFraction: expected more than 0 and at most 1, got ${describe(fraction)}`,
    )
  }
  const { native } = find('setPerProcessMemoryFraction', gpu)
  native.setMemoryCap(Math.floor(fraction * Number(native.deviceInfo().memoryBytes)))
}
