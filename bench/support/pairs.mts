// Two or more sides in turns: ours, theirs, ours, theirs, … so that what the machine does in the
// meantime meets all of them alike. Ratios are taken turn by turn. Rounds in which the host had moved
// the cores apart are told from the others, and stand in for them only where there are no others.
import { setTimeout } from 'node:timers/promises'
import { coresNow } from './cores.mjs'
import { median, type Spread, spreadOf } from './measure.mjs'

/** What is timed: milliseconds of each of `count` runs. */
export interface Side {
  readonly name: string
  timed(count: number): number | Promise<number>
}

export interface Compared extends Spread {
  readonly name: string
  /** The median over the rounds of this side's time divided by the first side's of the round. */
  readonly ratio: number
}

export interface Pace {
  readonly rounds: number
  /** How long a turn takes, roughly. */
  readonly turnMs: number
}

/** What the turns of a side took. */
export interface Turns {
  readonly name: string
  readonly times: readonly number[]
  /** Of all sides: `coreDistance` in the rounds that count, and how many were left out as farther. */
  readonly cores: { readonly distance: number; readonly apart: number }
}

const MOST_RUNS = 10_000
/** V8 compiles a training step of a small network for about as long. */
const WARM_UP_MS = 1000
/** So many rounds may be left out for each that counts. */
const MOST_APART = 2
/** How long a measurement may wait, in all, for cores that are near each other, and for a moment. */
const PATIENCE_MS = 30_000
const MOMENT_MS = 500

/** Runs for long enough, and says how many runs make a turn. */
async function warmUp(side: Side, turnMs: number): Promise<number> {
  for (let count = 1, spent = 0; ; count = Math.min(MOST_RUNS, 2 * count)) {
    const once = await side.timed(count)
    spent += once * count
    if (spent >= WARM_UP_MS) return Math.min(MOST_RUNS, Math.max(1, Math.round(turnMs / once)))
  }
}

/** The first side is the one that the others are compared with. */
export async function inTurns(sides: readonly Side[], pace: Pace): Promise<Compared[]> {
  return compare(await turnsOf(sides, pace))
}

export async function turnsOf(sides: readonly Side[], pace: Pace): Promise<Turns[]> {
  const counts: number[] = []
  for (const side of sides) counts.push(await warmUp(side, pace.turnMs))
  const near: Round[] = []
  const apart: Round[] = []
  let patience = PATIENCE_MS
  while (near.length < pace.rounds && apart.length < MOST_APART * pace.rounds) {
    const times: number[] = []
    const places = [coresNow()]
    for (; !places[0].near && patience > 0; patience -= MOMENT_MS) {
      await setTimeout(MOMENT_MS)
      places[0] = coresNow()
    }
    for (const [i, side] of sides.entries()) {
      times.push(await side.timed(counts[i]))
      places.push(coresNow())
    }
    const distance = Math.max(...places.map((place) => place.distance))
    ;(places.every((place) => place.near) ? near : apart).push({ times, distance })
  }
  const rounds = near.length > 0 ? near : apart
  const cores = {
    distance: median(rounds.map((round) => round.distance)),
    apart: near.length > 0 ? apart.length : 0,
  }
  return sides.map(({ name }, i) => ({ name, times: rounds.map(({ times }) => times[i]), cores }))
}

interface Round {
  /** Of each side. */
  readonly times: readonly number[]
  /** The greatest between its turns. */
  readonly distance: number
}

export function compare(turns: readonly Turns[]): Compared[] {
  return turns.map(({ name, times }) => ({
    name,
    ...spreadOf(times),
    ratio: median(times.map((time, round) => time / turns[0].times[round])),
  }))
}
