// Training steps in PyTorch: the same weights and the same batch give the same losses, then both
// are timed in turns.
import { spawnSync } from 'node:child_process'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { floorMs } from '../support/floor.mjs'
import { pageFaults, type Resident, timed } from '../support/measure.mjs'
import { compare, inTurns, type Side, type Turns, turnsOf } from '../support/pairs.mjs'
import {
  lossError,
  type Precision,
  type StepRow,
  stepRows,
  TrainingStep,
} from '../support/steps.mjs'
import { type Column, type Context, orNotMeasured, type PeerRow } from './context.mjs'
import { handOver } from './hand-over.mjs'
import { type Opened, PeerError, type Variant } from './torch.mjs'

const COMPARED_STEPS = 4
/** torch.compile calls a C++ compiler, which takes minutes for a large network. */
const COMPILE_LIMIT_MS = 900_000
const STEPS_FOR_MEMORY = 10

const tolerated = (theirs: number) => 4 * theirs + 2e-6

/** PyTorch as its users write it, at its best in eager mode, and compiled. */
export const STEP_COLUMNS = ['eager', 'best eager', 'compiled'] as const

export async function* stepsBesidePeers(context: Context): AsyncGenerator<PeerRow> {
  for (const precision of context.precisions) {
    for (const row of stepRows) {
      if (!context.filter.test(`step/${row.name}`)) continue
      try {
        yield* await besidePeers(context, row, precision)
      } catch (error) {
        // One wrong row is reported, and the others are still worth their time.
        console.error(error)
        process.exitCode = 1
      }
    }
  }
}

/** The step as it is, and captured: both beside the same turns of the peers. */
async function besidePeers(
  context: Context,
  row: StepRow,
  precision: Precision,
): Promise<PeerRow[]> {
  const name = `step/${row.name}`
  const step = new TrainingStep(row, precision)
  const files = handOver(context.folder, row, step)
  const losses = step.losses(COMPARED_STEPS)
  const captured = new TrainingStep(row, precision, undefined, true)
  const same = captured.losses(COMPARED_STEPS)
  if (same.some((loss, i) => loss !== losses[i])) {
    throw new Error(`${name}: expected the losses ${losses} of the eager step, captured ${same}`)
  }
  // A first run as it is, and one that records.
  for (let i = 0; i < 2; i++) captured.run()

  // One that has not computed yet; its parameters must be as many.
  const opened = async (variant: Variant, type: string = precision): Promise<Opened> => {
    const torch = await context.torch.get()
    const side = await torch.open({
      kind: 'step',
      arguments: { ...files, variant, precision: type },
    })
    const parameters = await side.ask<number>('parameters')
    if (parameters !== row.parameters) {
      throw new Error(`${name}: expected ${row.parameters} parameters, PyTorch has ${parameters}`)
    }
    return side
  }
  const lossesOf = (side: Opened, limit?: number) =>
    side.ask<number[]>('losses', { steps: COMPARED_STEPS }, limit)

  // AdamW divides small gradients by their own size and so multiplies rounding: PyTorch's result is
  // off its float64 too, in another way for each layout, and we may be off as far.
  const accuracy = await orNotMeasured(async () => {
    const lossesAlone = async (variant: Variant, type?: string) => {
      const side = await opened(variant, type)
      const values = await lossesOf(side)
      await side.close()
      return values
    }
    const reference = await lossesAlone({}, 'float64')
    const forms: Variant[] = step.batch.x.ndim === 4 ? [{}, { channels_last: true }] : [{}]
    let theirs = 0
    for (const form of forms) {
      theirs = Math.max(theirs, lossError(await lossesAlone(form), reference))
    }
    const own = lossError(losses, reference)
    if (!(own <= tolerated(theirs))) {
      throw new Error(`${name}: expected losses ${reference} as in PyTorch, got ${losses}`)
    }
    return { reference, theirs, own }
  })
  const open = async (variant: Variant, limit?: number): Promise<Opened> => {
    const side = await opened(variant)
    const its = await lossesOf(side, limit)
    if (
      'reference' in accuracy &&
      lossError(its, accuracy.reference) > tolerated(accuracy.theirs)
    ) {
      throw new PeerError(`other losses than PyTorch's own in float64: ${its}`)
    }
    return side
  }

  const notes: string[] = []
  const makers: Record<(typeof STEP_COLUMNS)[number], () => Promise<Opened>> = {
    eager: () => open({}),
    'best eager': async () => {
      const { side, note } = await fastestEager(step, open)
      notes.push(note)
      return side
    },
    compiled: () => open({ fused: true, compile: true }, COMPILE_LIMIT_MS),
  }
  const wanted = STEP_COLUMNS.filter((column) => context.columns.includes(column))
  const made = new Map<string, Opened | { not_measured: string }>()
  // A compiler that does not end takes its process along, so it comes first.
  for (const column of [...wanted].reverse()) {
    made.set(column, await orNotMeasured(makers[column]))
  }
  const peers: Record<string, Column> = {}
  const own = [step, captured]
  const sides: Side[] = own.map((each) => ({
    name: 'adjoint',
    timed: (count) => timed(() => each.run(), count),
  }))
  const held: Opened[] = []
  for (const column of wanted) {
    const side = made.get(column) as Opened | { not_measured: string }
    if ('not_measured' in side) {
      peers[column] = side
    } else {
      held.push(side)
      sides.push({ name: column, timed: (count) => side.timed(count) })
    }
  }

  const measured = await orNotMeasured(() => turnsOf(sides, context.pace))
  const failed = 'not_measured' in measured
  const turns = failed ? await turnsOf(sides.slice(0, own.length), context.pace) : measured
  if (failed) for (const { name: column } of sides.slice(own.length)) peers[column] = measured
  else for (const side of held) await side.close()

  const rows: PeerRow[] = []
  for (const [i, each] of own.entries()) {
    const [ours, ...theirs] = compare([turns[i], ...turns.slice(own.length)])
    const figures = theirs.map(({ name: column, ...rest }) => [column, rest] as const)
    const { ms_median, ms_best, spread } = ours
    rows.push({
      name: each === captured ? `${name} captured` : name,
      precision,
      ms_median,
      ms_best,
      spread,
      loss: losses[COMPARED_STEPS - 1],
      peers: { ...peers, ...Object.fromEntries(figures) },
      facts: {
        ...('own' in accuracy && {
          'loss error': accuracy.own,
          "PyTorch's error": accuracy.theirs,
        }),
        ...floorFacts(row, step, ms_median),
        ...coreFacts(turns[i].cores),
        'page faults': pageFaults(() => each.run(), 10),
        ...(await memory(context, row, precision, each === captured)),
      },
      notes,
    })
  }
  return rows
}

/** The floor and the fraction of it that was reached. */
function floorFacts(row: StepRow, step: TrainingStep, ms: number): Record<string, number> {
  const floor = floorMs(row, step)
  return floor === undefined ? {} : { 'floor, ms': floor, 'floor / time': floor / ms }
}

function coreFacts({ distance, apart }: Turns['cores']): Record<string, number> {
  return {
    ...(Number.isFinite(distance) && { 'core to core, ns': distance }),
    ...(apart > 0 && { 'rounds left out, cores apart': apart }),
  }
}

/** Of the settings that may help: fused AdamW alone, or with images laid out channels-last. */
async function fastestEager(step: TrainingStep, open: (variant: Variant) => Promise<Opened>) {
  const plain = await open({ fused: true })
  if (step.batch.x.ndim !== 4) return { side: plain, note: 'best eager: fused' }
  const channelsLast = await open({ fused: true, channels_last: true })
  const sides = [plain, channelsLast].map((side, i) => ({
    name: String(i),
    timed: (count: number) => side.timed(count),
  }))
  const [, other] = await inTurns(sides, { rounds: 3, turnMs: 100 })
  await (other.ratio < 1 ? plain : channelsLast).close()
  return other.ratio < 1
    ? { side: channelsLast, note: 'best eager: fused, channels-last' }
    : { side: plain, note: 'best eager: fused' }
}

/** Peak resident memory beyond what the import takes, each side in a process of its own. */
async function memory(
  context: Context,
  row: StepRow,
  precision: Precision,
  isCaptured: boolean,
): Promise<Record<string, number>> {
  const script = path.join(path.dirname(fileURLToPath(import.meta.url)), 'footprint.mts')
  const child = spawnSync(
    process.execPath,
    [
      ...['--import', 'tsx', script, row.name, precision, String(STEPS_FOR_MEMORY)],
      isCaptured ? 'captured' : 'eager',
    ],
    { encoding: 'utf8' },
  )
  if (child.status !== 0) throw new Error(`${row.name}: footprint: ${child.stderr}`)
  const ours = JSON.parse(child.stdout) as { imported: Resident; after: Resident }
  const mib = (before: Resident, after: Resident) => (after.peak - before.now) / 1024
  const facts = { 'MiB above import': mib(ours.imported, ours.after) }

  const theirs = await orNotMeasured(async () => {
    const torch = await context.torch.fresh()
    try {
      const before = await torch.ask<Resident>({ do: 'resident' })
      const files = handOver(context.folder, row, new TrainingStep(row))
      const opened = await torch.open({
        kind: 'step',
        arguments: { ...files, variant: {}, precision },
      })
      await opened.ask('timed', { count: STEPS_FOR_MEMORY - 1 })
      return mib(before, await torch.ask<Resident>({ do: 'resident' }))
    } finally {
      torch.stop()
    }
  })
  return typeof theirs === 'number' ? { ...facts, "PyTorch's MiB": theirs } : facts
}
