// Two or more sides in turns: ours, theirs, ours, theirs, … so that what the machine does in the
// meantime meets all of them alike. Ratios are taken turn by turn.
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
}

const MOST_RUNS = 10_000

/**
 * How many runs make a turn, found by running for about as long as one: V8 compiles code as it runs,
 * so the first runs would say too few.
 */
async function warmUp(side: Side, turnMs: number): Promise<number> {
  for (let count = 1; ; count *= 2) {
    const once = await side.timed(count)
    if (once * count >= turnMs / 2 || count >= MOST_RUNS) {
      return Math.min(MOST_RUNS, Math.max(1, Math.round(turnMs / once)))
    }
  }
}

/** The first side is the one that the others are compared with. */
export async function inTurns(sides: readonly Side[], pace: Pace): Promise<Compared[]> {
  return compare(await turnsOf(sides, pace))
}

export async function turnsOf(sides: readonly Side[], pace: Pace): Promise<Turns[]> {
  const counts: number[] = []
  for (const side of sides) counts.push(await warmUp(side, pace.turnMs))
  const times: number[][] = sides.map(() => [])
  for (let round = 0; round < pace.rounds; round++) {
    for (const [i, side] of sides.entries()) times[i].push(await side.timed(counts[i]))
  }
  return sides.map(({ name }, i) => ({ name, times: times[i] }))
}

export function compare(turns: readonly Turns[]): Compared[] {
  return turns.map(({ name, times }) => ({
    name,
    ...spreadOf(times),
    ratio: median(times.map((time, round) => time / turns[0].times[round])),
  }))
}
