import { Calls } from '../bindings/calls.js'
import { findCollector } from '../bindings/gc.js'
import { type AddonName, type LoadFailure, loadAddon } from '../bindings/locate.js'
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

/** What may name a device: `'cpu'`, `'cuda'`, `'cuda:0'` or a Device. */
export type DeviceLike = Device | string

const devices = new Map<DeviceType, Device>()
const failures = new Map<DeviceType, LoadFailure[]>()
let chosen: Device | null = null

/** Loads the addon of a device type; keeps why it failed. */
function open(type: DeviceType, addon: AddonName): Device | null {
  const known = devices.get(type)
  if (known) return known
  if (failures.has(type)) return null
  refuseWhileCapturing('device', `the first use of ${type}`)
  const loaded = loadAddon(addon)
  if (Array.isArray(loaded)) {
    failures.set(type, loaded)
    return null
  }
  const device = new Device(type, 0, loaded.native, loaded.path)
  devices.set(type, device)
  return device
}

/** The addons tried for a device type that did not load, each with its reason. */
export function loadFailures(type: DeviceType): readonly LoadFailure[] {
  return failures.get(type) ?? []
}

/** Devices in use so far. */
export function openDevices(): Device[] {
  return [...devices.values()]
}

function notBuilt(type: DeviceType): DeviceError {
  const tried = loadFailures(type).map(({ path, reason }) => `  ${path}: ${reason}`)
  const command = type === 'cpu' ? 'npx adjoint build' : 'npx adjoint build --cuda'
  return new DeviceError(
    `device: expected the native addon of '${type}', found none that loads. Tried:\n` +
      `${tried.join('\n')}\nBuild it with:  ${command}\n` +
      '(some package managers do not run the build at installation; it needs CMake or Python, ' +
      'and a C++17 compiler)',
  )
}

/**
 * The device of a name.
 * @throws DeviceError if its addon does not load; the message lists every path tried and why.
 */
export function device(name: DeviceLike): Device {
  if (name instanceof Device) return name
  const match = /^(cpu|cuda)(?::(\d+))?$/.exec(String(name))
  if (!match || Number(match[2] ?? 0) !== 0) {
    throw new DeviceError(`device: expected 'cpu' or 'cuda', got ${describe(name)}`)
  }
  const type = match[1] as DeviceType
  const found = open(type, type === 'cpu' ? 'adjoint_cpu' : 'adjoint_cuda')
  if (!found) throw notBuilt(type)
  return found
}

/** For tests: makes `'cuda'` the build of native/cuda that runs on the host. */
export function useEmulatedCuda(): Device {
  const found = open('cuda', 'adjoint_emulated')
  if (!found) throw notBuilt('cuda')
  return found
}

/** Where new tensors go: the one set, else `ADJOINT_DEVICE`, else the CPU. */
export function defaultDevice(): Device {
  if (chosen === null) chosen = device(process.env.ADJOINT_DEVICE || 'cpu')
  return chosen
}

/** Sets the device of tensors that are created without one. */
export function setDefaultDevice(name: DeviceLike): void {
  chosen = device(name)
}

/** The one device that all operands are on. */
export function commonDevice(op: string, a: Device, b: Device): Device {
  if (a !== b) throw new DeviceError(`${op}: expected tensors on one device, got ${a} and ${b}`)
  return a
}
