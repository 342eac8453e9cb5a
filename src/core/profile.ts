import { writeFileSync } from 'node:fs'
import { isDeferring } from '../bindings/unwatched.js'
import { type Device, defaultDevice, onDeviceOpen, openDevices } from './device.js'
import { ArgumentError, checkFunction, checkPath, FileError } from './errors.js'
import { type ProfiledCall, ProfileReport } from './profile-report.js'
import { recording, refuseWhileCapturing } from './recording.js'

/** What `profile` found out; see `docs/profiling.md`. */
export class Profile<T> extends ProfileReport {
  constructor(
    /** What the function returned. */
    readonly result: T,
    calls: readonly ProfiledCall[],
    wallMs: number,
  ) {
    super(calls, wallMs)
  }

  /**
   * Writes all calls as a file that chrome://tracing and https://ui.perfetto.dev open.
   * @throws FileError when it cannot be written
   */
  writeChromeTrace(path: string): void {
    checkPath('writeChromeTrace', path)
    try {
      writeFileSync(path, JSON.stringify(this.chromeTrace()))
    } catch (error) {
      throw new FileError(`${path}: expected a file that can be written, got ${error}`, {
        cause: error,
      })
    }
  }
}

/** Calls on one device while a profile is under way. */
class Observer {
  private readonly calls: Omit<ProfiledCall, 'startMs' | 'durationMs'>[] = []
  private readonly restore: () => void
  private firstMark = 0

  /** From now on calls of the addon go through this object. */
  constructor(private readonly device: Device) {
    const { native, calls } = device
    native.takeMarks()
    const { run, replay, fromHost, fromDevice, toHost, toHostAsync, overwrite } = native
    this.restore = () => {
      Object.assign(native, { run, replay, fromHost, fromDevice, toHost, toHostAsync, overwrite })
    }
    native.run = (length, ...owners) =>
      this.observe(calls.label, () => run.call(native, length, ...owners))
    native.replay = (...rest) => this.observe('replay', () => replay.apply(native, rest))
    native.fromHost = (...rest) => this.observe('fromHost', () => fromHost.apply(native, rest))
    native.fromDevice = (...rest) =>
      this.observe('fromDevice', () => fromDevice.apply(native, rest))
    native.toHost = (...rest) => this.observe('toHost', () => toHost.apply(native, rest))
    native.toHostAsync = (...rest) => this.observe('toHost', () => toHostAsync.apply(native, rest))
    native.overwrite = (...rest) => this.observe('overwrite', () => overwrite.apply(native, rest))
  }

  private observe<T>(name: string, body: () => T): T {
    // A mark is no part of a step that is being recorded.
    if (recording() !== null) return body()
    const { native } = this.device
    const bytesBefore = native.mark()
    const hostStartMs = performance.now()
    if (this.calls.length === 0) this.firstMark = hostStartMs
    try {
      return body()
    } finally {
      const hostMs = performance.now() - hostStartMs
      const bytes = native.mark()
      const device = String(this.device)
      const isBackward = isDeferring()
      this.calls.push({ name, device, isBackward, hostStartMs, hostMs, bytesBefore, bytes })
    }
  }

  /** Ends it; waits for the device. */
  finish(): ProfiledCall[] {
    this.restore()
    const marks = this.device.native.takeMarks()
    return this.calls.map((call, i) => ({
      ...call,
      startMs: this.firstMark + marks[2 * i],
      durationMs: marks[2 * i + 1] - marks[2 * i],
    }))
  }
}

/** Of the profile under way, one for each device. */
let observers: Observer[] | null = null
onDeviceOpen((device) => observers?.push(new Observer(device)))

/** A profile from now on until `end`. */
class Session {
  private readonly observers: Observer[]
  private readonly startMs: number

  constructor(name: string, body: unknown) {
    checkFunction(name, body)
    refuseWhileCapturing(name, 'a profile')
    if (observers !== null) {
      throw new ArgumentError(`${name}: expected no other profile under way, got one inside one`)
    }
    defaultDevice()
    for (const { native } of openDevices()) native.synchronize()
    this.observers = openDevices().map((device) => new Observer(device))
    observers = this.observers
    this.startMs = performance.now()
  }

  end(): { calls: ProfiledCall[]; wallMs: number } {
    observers = null
    const calls = this.observers.flatMap((observer) => observer.finish())
    return { calls, wallMs: performance.now() - this.startMs }
  }
}

/**
 * Runs `body` once and measures its native calls: on the CPU by the clock, on a GPU by events in
 * the order of its work, which is waited for at the end. Each kernel's time and memory come as a
 * table and as a Chrome trace. Calls of other threads are not seen. Without a profile nothing is
 * measured, and nothing costs more.
 * @example console.log(profile(() => train(batch)).table())
 * @throws ArgumentError inside another profile, or if `body` returns a promise: use `profileAsync`
 */
export function profile<T>(body: () => T): Profile<T> {
  const session = new Session('profile', body)
  let result: T
  let measured: ReturnType<Session['end']>
  try {
    result = body()
  } finally {
    measured = session.end()
  }
  if (result instanceof Promise) {
    result.catch(() => undefined)
    throw new ArgumentError(
      'profile: expected a synchronous function, got one that returns a promise; use profileAsync',
    )
  }
  return new Profile(result, measured.calls, measured.wallMs)
}

/** `profile` for an async function; calls of other tasks meanwhile are measured too. */
export async function profileAsync<T>(body: () => Promise<T>): Promise<Profile<T>> {
  const session = new Session('profileAsync', body)
  let result: T
  let measured: ReturnType<Session['end']>
  try {
    result = await body()
  } finally {
    measured = session.end()
  }
  return new Profile(result, measured.calls, measured.wallMs)
}
