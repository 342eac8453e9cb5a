import { Calls } from '../bindings/calls.js'
import { nvidiaDriver } from '../bindings/driver.js'
import { findCollector } from '../bindings/gc.js'
import {
  type AddonName,
  type LoadedAddon,
  type LoadFailure,
  loadAddon,
} from '../bindings/locate.js'
import type { Native } from '../bindings/native.js'
import {
  AdjointError,
  ArgumentError,
  CaptureError,
  DeviceError,
  DisposedError,
  DTypeError,
  describe,
  IndexError,
  OutOfMemoryError,
  ShapeError,
} from './errors.js'
import { refuseWhileCapturing } from './recording.js'

export type DeviceType = 'cpu' | 'cuda'

/** A place where tensors live, with the addon that computes there. One object per device. */
export class Device {
  /** Values of this many native slots are kept outside of calls, for replay. */
  readonly calls: Calls

  constructor(
    readonly type: DeviceType,
    readonly index: number,
    readonly native: Native,
    readonly addonPath: string,
  ) {
    native.setErrors({
      argument: ArgumentError,
      dtype: DTypeError,
      shape: ShapeError,
      index: IndexError,
      disposed: DisposedError,
      outOfMemory: OutOfMemoryError,
      device: DeviceError,
      capture: CaptureError,
      internal: AdjointError,
    })
    native.setCollector(findCollector())
    this.calls = new Calls(
      native,
      (kernel) => new DeviceError(`${kernel}: expected a device that has it, got ${this}`),
      (kernel) => new DisposedError(`${kernel}: expected a live tensor, got a disposed one`),
    )
  }

  toString(): string {
    return this.type === 'cpu' ? 'cpu' : `${this.type}:${this.index}`
  }
}

/** What may name a device: `'cpu'`, `'cuda'`, `'cuda:1'` or a Device. */
export type DeviceLike = Device | string

const addons = new Map<DeviceType, LoadedAddon>()
const failures = new Map<DeviceType, LoadFailure[]>()
/** By their numbers. */
const devices: Readonly<Record<DeviceType, Device[]>> = { cpu: [], cuda: [] }
const openHooks: ((device: Device) => void)[] = []
let chosen: Device | null = null
/** Which GPU `'cuda'` names; null as long as the environment decides. */
let currentGpu: number | null = null

/** Loads the addon of a device type; keeps why it failed. */
function load(type: DeviceType, name: AddonName): LoadedAddon | null {
  const known = addons.get(type)
  if (known) return known
  if (failures.has(type)) return null
  refuseWhileCapturing('device', `the first use of ${type}`)
  const loaded = loadAddon(name)
  if (Array.isArray(loaded)) {
    failures.set(type, loaded)
    return null
  }
  addons.set(type, loaded)
  return loaded
}

function open(type: DeviceType, index: number): Device {
  const { addon, path } = addonOf(type)
  const count = addon.deviceCount()
  if (index >= count) {
    throw new DeviceError(
      `device: expected an index below ${count}, the number of GPUs, got '${type}:${index}'`,
    )
  }
  refuseWhileCapturing('device', `the first use of ${type}:${index}`)
  let native: Native
  try {
    // A copy: the object that native code made is of V8's slow kind, and every call reads from it.
    native = { ...addon.open(index) }
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new DeviceError(`device: expected to use ${type}:${index}, got ${reason}`, {
      cause: error,
    })
  }
  const device = new Device(type, index, native, path)
  devices[type][index] = device
  for (const hook of openHooks) hook(device)
  return device
}

/** The addons tried for a device type that did not load, each with its reason. */
export function loadFailures(type: DeviceType): readonly LoadFailure[] {
  return addons.get(type)?.failures ?? failures.get(type) ?? []
}

/** Devices in use so far. */
export function openDevices(): Device[] {
  return [...devices.cpu, ...devices.cuda].filter((device) => device !== undefined)
}

/** Runs `hook` for each device that is in use, and from now on for each at its first use. */
export function onDeviceOpen(hook: (device: Device) => void): void {
  openHooks.push(hook)
  for (const device of openDevices()) hook(device)
}

const buildCommand = (type: DeviceType) =>
  type === 'cpu' ? 'npx adjoint build' : 'npx adjoint build --cuda'

function notBuilt(type: DeviceType): DeviceError {
  const tried = loadFailures(type).map(({ path, reason }) => `  ${path}: ${reason}`)
  return new DeviceError(
    `device: expected the native addon of '${type}', got none that loads. Tried:\n` +
      `${tried.join('\n')}\nBuild it with:  ${buildCommand(type)}\n` +
      '(some package managers do not run the build at installation; it needs CMake or Python, ' +
      'and a C++17 compiler)',
  )
}

/** The addon of a device type. @throws DeviceError if none loads */
export function addonOf(type: DeviceType): LoadedAddon {
  const loaded = load(type, type === 'cpu' ? 'adjoint_cpu' : 'adjoint_cuda')
  if (!loaded) throw notBuilt(type)
  return loaded
}

/** The GPU that `'cuda'` names: the one set, else that of `ADJOINT_DEVICE=cuda:1`, else the first. */
export function currentGpuIndex(): number {
  return currentGpu ?? Number(/^cuda:(\d+)$/.exec(process.env.ADJOINT_DEVICE ?? '')?.[1] ?? 0)
}

/** From now on `'cuda'` names this one. */
export function setCurrentGpu({ index }: Device): void {
  currentGpu = index
}

/**
 * The device of a name. CUDA is looked for when it is first named, and a GPU is not touched before
 * it is. GPUs are numbered from 0, as `CUDA_VISIBLE_DEVICES` leaves them; `'cuda'` without a number
 * is the current one (`cuda.setDevice`).
 * @throws DeviceError if its addon does not load (the message lists every path tried and why), or
 *   if there is no device of that number
 */
export function device(name: DeviceLike): Device {
  if (name instanceof Device) return name
  const match = typeof name === 'string' && /^(?:cpu|(cuda))(?::(\d+))?$/.exec(name)
  if (!match || (!match[1] && Number(match[2] ?? 0) !== 0)) {
    throw new DeviceError(`device: expected 'cpu' or 'cuda', got ${describe(name)}`)
  }
  const type = match[1] ? 'cuda' : 'cpu'
  const index =
    type === 'cuda' && match[2] === undefined ? currentGpuIndex() : Number(match[2] ?? 0)
  return devices[type][index] ?? open(type, index)
}

/** For tests: makes `'cuda'` the build of native/cuda that runs on the host. */
export function useEmulatedCuda(): Device {
  if (!load('cuda', 'adjoint_emulated')) throw notBuilt('cuda')
  return device('cuda')
}

/** Why an error, or the addons behind it, kept CUDA from being used: one line. */
function reasonOf(error: DeviceError): string {
  const tried = loadFailures('cuda')
  if (addons.has('cuda') || tried.length === 0) return error.message
  const present = tried.find(({ reason }) => reason !== 'no such file')
  const reason = present
    ? `${present.path}: ${present.reason}`
    : `there is no adjoint_cuda.node; build it with: ${buildCommand('cuda')}`
  return reason.split('\n')[0]
}

/**
 * `ADJOINT_DEVICE`; without it CUDA where there is an NVIDIA driver, and the CPU where there is
 * none. What keeps CUDA from being used is said once, and the CPU takes over.
 */
function chooseDevice(): Device {
  const asked = process.env.ADJOINT_DEVICE
  if (asked && !/^(cpu|cuda(:\d+)?)$/.test(asked)) {
    throw new DeviceError(`ADJOINT_DEVICE: expected cpu or cuda, got ${describe(asked)}`)
  }
  if (asked === 'cpu' || (!asked && nvidiaDriver() === null)) return device('cpu')
  try {
    return device(asked || 'cuda')
  } catch (error) {
    if (!(error instanceof DeviceError)) throw error
    process.stderr.write(
      `adjoint: CUDA is not used, tensors go to the CPU: ${reasonOf(error)} ` +
        '(npx adjoint doctor says more)\n',
    )
    return device('cpu')
  }
}

/**
 * Where tensors go that are created without a device: the one set, else `ADJOINT_DEVICE`, else
 * `'cuda'` where a GPU can be used, else `'cpu'`.
 */
export function defaultDevice(): Device {
  chosen ??= chooseDevice()
  return chosen
}

/** Sets the device of tensors that are created without one. */
export function setDefaultDevice(name: DeviceLike): void {
  chosen = device(name)
}

/** The one device that all operands are on. */
export function commonDevice(op: string, a: Device, b: Device): Device {
  if (a === b) return a
  throw new DeviceError(`${op}: expected all tensors to be on the same device, got ${a} and ${b}`)
}
