// The one file from which a run goes on to the same bits; docs/checkpoints.md describes it.

import { type Device, openDevices } from '../core/device.js'
import { checkMethods, checkOptions, describe, FileError } from '../core/errors.js'
import { type GeneratorState, getRandomState, setRandomState } from '../core/generator.js'
import type { DataLoaderState } from '../data/loader.js'
import { loadState, type State, saveState } from '../io/state.js'
import type { EpochRecord } from './history.js'
import type { TallyState } from './tally.js'

/** What has a state that a checkpoint keeps: modules, optimizers, schedules. */
export interface Stateful {
  stateDict(): unknown
  /** Takes back only what it gave. */
  loadStateDict(state: never): unknown
}

/** What a run consists of; `schedule` where it has one. */
export interface Checkpointed {
  model: Stateful
  optimizer: Stateful
  schedule?: Stateful
}

/** How far a run has come. */
export interface RunPosition {
  loader: DataLoaderState
  /** Sums over the epoch under way. */
  tally: TallyState
  /** One record for each epoch that is over. */
  history: EpochRecord[]
}

const KIND = { kind: 'adjoint checkpoint', version: 1 }

function checkParts(op: string, parts: Checkpointed): void {
  checkOptions(op, parts)
  const { model, optimizer, schedule } = parts
  const stateful = ['stateDict', 'loadStateDict']
  checkMethods(op, 'a model', model, stateful)
  checkMethods(op, 'an optimizer', optimizer, stateful)
  if (schedule !== undefined) checkMethods(op, 'a schedule', schedule, stateful)
}

/** The first GPU is plainly `cuda`. */
const nameOf = (d: Device): string => (d.index === 0 ? d.type : String(d))

/** Writes the file, whole or not at all. @throws FileError when it cannot be written */
export function saveCheckpoint(path: string, parts: Checkpointed, position: RunPosition): void {
  checkParts('saveCheckpoint', parts)
  checkOptions('saveCheckpoint', position)
  saveState(path, KIND, {
    model: parts.model.stateDict(),
    optimizer: parts.optimizer.stateDict(),
    schedule: parts.schedule?.stateDict() ?? null,
    random: Object.fromEntries(openDevices().map((d) => [nameOf(d), getRandomState(d)])),
    ...position,
  } as unknown as State)
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** What no part checks by itself: the position, and that the rest is there. */
function checkState(path: string, state: unknown): void {
  const wrong = (what: string, value: unknown) =>
    new FileError(`${path}: expected ${what}, got ${describe(value)}`)
  if (!isRecord(state)) throw wrong('the state of a run', state)
  const { random, tally, history } = state
  if (!isRecord(random)) throw wrong('random states by device', random)
  const isCount = (n: unknown) => Number.isSafeInteger(n) && (n as number) >= 0
  const isTally =
    isRecord(tally) &&
    typeof tally.loss === 'number' &&
    (tally.correct === null || typeof tally.correct === 'number') &&
    isCount(tally.samples)
  if (!isTally) throw wrong('the sums of an epoch', tally)
  const isHistory =
    Array.isArray(history) &&
    history.every((r) => isRecord(r) && isCount(r.epoch) && typeof r.loss === 'number')
  if (!isHistory) throw wrong('a record for each epoch', history)
}

/**
 * Brings all parts to the state in the file, and returns the position.
 * @throws FileError when the file is missing, broken, no checkpoint, or of another model,
 * optimizer or schedule
 */
export function loadCheckpoint(path: string, parts: Checkpointed): RunPosition {
  checkParts('loadCheckpoint', parts)
  const state = loadState(path, KIND) as unknown as Record<string, unknown> & RunPosition
  checkState(path, state)
  if ((state.schedule === null) !== (parts.schedule === undefined)) {
    const [wanted, got] = parts.schedule ? ['with', 'without'] : ['without', 'with']
    throw new FileError(`${path}: expected a run ${wanted} a schedule, got one ${got}`)
  }
  try {
    parts.model.loadStateDict(state.model as never)
    parts.optimizer.loadStateDict(state.optimizer as never)
    parts.schedule?.loadStateDict(state.schedule as never)
    // Of a device that this run does not use, as where it goes on without a GPU, there is nothing to set.
    const random = state.random as Record<string, GeneratorState>
    for (const d of openDevices()) if (random[nameOf(d)]) setRandomState(random[nameOf(d)], d)
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new FileError(`${path}: does not fit this run (${reason})`, { cause: error })
  }
  const { loader, tally, history } = state
  return { loader, tally, history }
}
