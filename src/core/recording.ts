import type { Device } from './device.js'
import { CaptureError } from './errors.js'
import type { GradSlot } from './tape.js'

/** Takes part in a captured step with values that change from one replay to the next. */
export interface Participant {
  /** Before a replay: the values of native slots, by `put`. Throws where a replay would go wrong. */
  prepare(put: (slot: number, value: number) => void): void
  /** After a replay that failed: as if `prepare` had not been called. */
  undo(): void
}

/**
 * What a step first does with a gradient that is kept: reads it, adds to it, starts it where there
 * was none, or replaces it.
 */
export type GradUse = 'read' | 'added' | 'started' | 'replaced'

/** A step while it is recorded. */
export interface Recording {
  readonly device: Device
  readonly participants: Participant[]
  /** To be called before the gradient in the slot changes. */
  touch(slot: GradSlot, use: GradUse): void
}

let current: Recording | null = null

/** The step that is being recorded, if any. Plain state: a step is synchronous. */
export function recording(): Recording | null {
  return current
}

export function setRecording(recording: Recording | null): void {
  current = recording
}

/** Throws in a step that is being recorded: a replay could not repeat what `op` is about to do. */
export function refuseWhileCapturing(op: string, what: string): void {
  if (current === null) return
  throw new CaptureError(`${op}: expected work that a captured step can repeat, got ${what}`)
}
