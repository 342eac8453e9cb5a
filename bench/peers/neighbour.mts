// How much a step slows down while another process keeps a core busy, here and in PyTorch as it is
// shipped and with threads that wait without spinning.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { median, spreadOf, timed } from '../support/measure.mjs'
import { stepRows, TrainingStep } from '../support/steps.mjs'
import { type Context, orNotMeasured, type PeerRow } from './context.mjs'
import { handOver } from './hand-over.mjs'

/** Networks whose steps are short enough for what waking a thread costs to show. */
const ROWS = ['mlp-tiny', 'mlp', 'cnn']

const PASSIVE = { OMP_WAIT_POLICY: 'passive', GOMP_SPINCOUNT: '0' }

async function withNeighbour<T>(measure: () => Promise<T>): Promise<T> {
  const neighbour: ChildProcess = spawn(
    process.execPath,
    ['-e', "process.stdout.write('.'); for (;;) {}"],
    { stdio: ['ignore', 'pipe', 'ignore'] },
  )
  try {
    if (neighbour.stdout) await once(neighbour.stdout, 'data')
    return await measure()
  } finally {
    neighbour.kill('SIGKILL')
    await once(neighbour, 'exit')
  }
}

interface SlowDown {
  /** Milliseconds with the neighbour. */
  readonly times: readonly number[]
  readonly ratio: number
}

/** A turn alone and a turn with the neighbour, round by round. */
async function slowDown(
  { pace }: Context,
  side: (count: number) => number | Promise<number>,
): Promise<SlowDown> {
  const single = Math.min(await side(1), await side(1))
  const count = Math.max(1, Math.round(pace.turnMs / single))
  const times: number[] = []
  const ratios: number[] = []
  for (let round = 0; round < pace.rounds; round++) {
    const alone = await side(count)
    const busy = await withNeighbour(async () => side(count))
    times.push(busy)
    ratios.push(busy / alone)
  }
  return { times, ratio: median(ratios) }
}

/** The time is ours with the neighbour; the facts are how many times longer that is than without. */
export async function* stepsWithNeighbour(context: Context): AsyncGenerator<PeerRow> {
  for (const row of stepRows) {
    const name = `neighbour/${row.name}`
    if (!ROWS.includes(row.name) || !context.filter.test(name)) continue
    const step = new TrainingStep(row)
    const own = await slowDown(context, (count) => timed(() => void step.run(), count))
    const facts: Record<string, number> = { 'slow-down': own.ratio }
    const notes: string[] = []
    for (const [column, environment] of [
      ["PyTorch's", {}],
      ["PyTorch's, passive waiting", PASSIVE],
    ] as const) {
      const theirs = await orNotMeasured(async () => {
        const torch = await context.torch.fresh(environment)
        try {
          const files = handOver(context.folder, row, step)
          const opened = await torch.open({
            kind: 'step',
            arguments: { ...files, variant: {}, precision: 'float32' },
          })
          return await slowDown(context, (count) => opened.timed(count))
        } finally {
          torch.stop()
        }
      })
      if ('ratio' in theirs) facts[column] = theirs.ratio
      else notes.push(`${column}: not measured: ${theirs.not_measured}`)
    }
    yield { name, precision: 'float32', ...spreadOf(own.times), peers: {}, facts, notes }
  }
}
