// `cuda.…`: what one asks of the GPU itself, under torch.cuda's names.

import { type Device, device, devicesSeen, openDevices } from './device.js'
import { ArgumentError, DeviceError, describe } from './errors.js'

/** The GPU if anything has used it so far. */
const inUse = (): Device | undefined => openDevices().find(({ type }) => type === 'cuda')

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

/** How many GPUs the process sees; 0 where CUDA cannot be used. It computes on the first. */
export function deviceCount(): number {
  return isAvailable() ? devicesSeen(device('cuda')) : 0
}

/** The name of the GPU, such as `'NVIDIA H100 80GB HBM3'`. @throws DeviceError without one */
export function getDeviceName(): string {
  return device('cuda').native.deviceInfo().device
}

/** The GPU's compute capability, such as `[9, 0]`. @throws DeviceError without one */
export function getDeviceCapability(): [major: number, minor: number] {
  const [major, minor] = device('cuda').native.deviceInfo().computeCapability.split('.')
  return [Number(major), Number(minor)]
}

/**
 * Waits until all work queued on the GPU is done. Reading a value waits for what it needs by
 * itself; this is for timing. @throws DeviceError without a GPU, or if its work failed
 */
export function synchronize(): void {
  device('cuda').native.synchronize()
}

/** Bytes of GPU memory that tensors of the process hold now; 0 before its first use. */
export function memoryAllocated(): number {
  return inUse()?.native.memoryStats().processLiveBytes ?? 0
}

/** The most bytes that tensors of the process have held, since `resetPeakMemoryStats` if called. */
export function maxMemoryAllocated(): number {
  return inUse()?.native.memoryStats().peakLiveBytes ?? 0
}

/** Bytes taken from the GPU: those of `memoryAllocated`, and blocks that are kept for reuse. */
export function memoryReserved(): number {
  return inUse()?.native.memoryStats().reservedBytes ?? 0
}

/** Lets `maxMemoryAllocated` start anew from what is held now. */
export function resetPeakMemoryStats(): void {
  inUse()?.native.resetPeakMemory()
}

/** Gives memory that is kept for reuse back to the driver, for other processes. */
export function emptyCache(): void {
  inUse()?.native.trimCache()
}

/**
 * The most that the process may take of the GPU's memory, as a part of it from 0 (exclusive) to 1;
 * `setMemoryCap` sets it in bytes.
 */
export function setPerProcessMemoryFraction(fraction: number): void {
  if (!(typeof fraction === 'number' && fraction > 0 && fraction <= 1)) {
    throw new ArgumentError(
      `setPerProcessMemoryFraction: expected more than 0 and at most 1, got ${describe(fraction)}`,
    )
  }
  const { native } = device('cuda')
  native.setMemoryCap(Math.floor(fraction * Number(native.deviceInfo().memoryBytes)))
}
