import {
  type Device,
  type DeviceLike,
  defaultDevice,
  device as findDevice,
  onDeviceOpen,
  openDevices,
} from './device.js'
import { ArgumentError, checkOptions, describe } from './errors.js'

/** Where a stream of random numbers stands: enough to go on from there. */
export interface GeneratorState {
  readonly seed: bigint
  readonly offset: bigint
}

function checkState(op: string, state: GeneratorState): GeneratorState {
  checkOptions(op, state)
  if (typeof state.seed !== 'bigint' || typeof state.offset !== 'bigint') {
    throw new ArgumentError(
      `${op}: expected a seed and an offset as bigints, got ${describe([state.seed, state.offset])}`,
    )
  }
  return state
}

function checkSeed(seed: number | bigint): bigint {
  if (typeof seed === 'bigint') return BigInt.asUintN(64, seed)
  if (!Number.isSafeInteger(seed)) {
    throw new ArgumentError(
      `manualSeed: expected a whole number or a bigint, got ${describe(seed)}`,
    )
  }
  return BigInt.asUintN(64, BigInt(seed))
}

/**
 * A stream of random numbers on one device: Philox4x32-10 (Salmon et al. 2011), the same on every
 * backend and at any number of threads.
 */
export class Generator {
  /** @internal */ readonly id: number
  readonly device: Device

  /** @param options.seed default 0; @param options.device default: the default device */
  constructor(options: { seed?: number | bigint; device?: DeviceLike } = {}) {
    checkOptions('Generator', options)
    this.device = options.device === undefined ? defaultDevice() : findDevice(options.device)
    this.id = this.device.native.createGenerator(checkSeed(options.seed ?? 0))
  }

  /** Starts the stream anew. */
  manualSeed(seed: number | bigint): this {
    this.setState({ seed: checkSeed(seed), offset: 0n })
    return this
  }

  getState(): GeneratorState {
    const [seed, offset] = this.device.native.getGenerator(this.id)
    return { seed, offset }
  }

  setState(state: GeneratorState): void {
    const { seed, offset } = checkState('setState', state)
    this.device.native.setGenerator(this.id, seed, offset)
  }
}

const DEFAULT_GENERATOR = 0

/** What devices that are first used from now on start with. */
let seedOfAll = 0n

/** Seeds the default generators of all devices, as torch.manual_seed; or that of one device. */
export function manualSeed(seed: number | bigint, device?: DeviceLike): void {
  const checked = checkSeed(seed)
  const targets = device === undefined ? openDevices() : [findDevice(device)]
  for (const { native } of targets) native.setGenerator(DEFAULT_GENERATOR, checked, 0n)
  if (device === undefined) seedOfAll = checked
}

onDeviceOpen(({ native }) => {
  if (seedOfAll !== 0n) native.setGenerator(DEFAULT_GENERATOR, seedOfAll, 0n)
})

/** Where the default generator of a device stands. */
export function getRandomState(device?: DeviceLike): GeneratorState {
  const target = device === undefined ? defaultDevice() : findDevice(device)
  const [seed, offset] = target.native.getGenerator(DEFAULT_GENERATOR)
  return { seed, offset }
}

export function setRandomState(state: GeneratorState, device?: DeviceLike): void {
  const target = device === undefined ? defaultDevice() : findDevice(device)
  const { seed, offset } = checkState('setRandomState', state)
  target.native.setGenerator(DEFAULT_GENERATOR, seed, offset)
}

/** @internal */
export function generatorId(generator: Generator | undefined, device: Device): number {
  if (generator === undefined) return DEFAULT_GENERATOR
  if (!(generator instanceof Generator)) {
    throw new ArgumentError(`random: expected a generator, got ${describe(generator)}`)
  }
  if (generator.device !== device) {
    throw new ArgumentError(
      `random: expected a generator on ${device}, got one on ${generator.device}`,
    )
  }
  return generator.id
}
