// npm run bench:host: what the CUDA backend costs on the host, from JavaScript to the launch, beside
// PyTorch's dispatch. No GPU is needed or used: the CUDA runtime is replaced by one that drops what
// is launched, so what the driver takes for a launch is on neither side. Times are of the processor,
// of all threads of the process, so that neighbours on the machine count less.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { cuda } from 'adjoint'
import { orNotMeasured, TorchSource } from '../peers/context.mjs'
import { handOver } from '../peers/hand-over.mjs'
import type { Opened, TorchDevice, Workload } from '../peers/torch.mjs'
import { inTurns, type Pace, type Side } from '../support/pairs.mjs'
import { lossError, TrainingStep } from '../support/steps.mjs'
import { expectClose } from '../support/suite.mjs'
import { callsOf, nothingRuns, openEmulated } from './null-runtime.mjs'
import { type HostRow, markdown } from './report.mjs'
import { addRows, adds, REPEAT, stepRows } from './rows.mjs'

const HELP = `usage: npm run bench:host -- [options]
Needs CMake and a C++ compiler, no GPU; PyTorch for the comparison (ADJOINT_PYTHON names the
interpreter).
  --filter REGEX  only rows whose name matches
  --json FILE     where the results go, and beside it a table with the ending .md
  --rounds N      turns of each side; default 9
  --turn MS       how long a turn takes; default 100`

const { values } = parseArgs({
  options: {
    filter: { type: 'string', default: '' },
    json: { type: 'string' },
    rounds: { type: 'string', default: '9' },
    turn: { type: 'string', default: '100' },
    help: { type: 'boolean', short: 'h' },
  },
})

const COMPARED_STEPS = 4
/** Past the steps that allocate, and past a captured step's recording and the making of its graph. */
const WARM = 10
/** Steps until V8 has compiled all of a step for good. */
const COMPILED = 5000
const PEERS = ['cpu', 'meta'] as const satisfies readonly TorchDevice[]
type Peer = (typeof PEERS)[number]

/** One row, its results already checked: the sides of ours, and what PyTorch runs. */
interface Prepared {
  readonly name: string
  readonly run: () => unknown
  readonly captured?: () => unknown
  /** Operations of one run of either side. */
  readonly operations: number
  readonly workload: (peer: Peer) => Workload
}

async function prepareSteps(
  filter: RegExp,
  folder: string,
  torch: TorchSource,
): Promise<(() => Promise<Prepared>)[]> {
  return stepRows
    .filter(({ name }) => filter.test(name))
    .map((row) => async () => {
      const [step, captured] = [false, true].map(
        (isCaptured) => new TrainingStep(row, 'float32', undefined, isCaptured),
      )
      const files = handOver(folder, row, step)
      // PyTorch's best on a CPU, which meta refuses: there its default on a GPU.
      const form = { cpu: { fused: true }, meta: { foreach: true } }
      const workload = (peer: Peer, precision = 'float32'): Workload => ({
        kind: 'step',
        arguments: { ...files, precision, variant: { ...form[peer], clips: row.clips } },
      })
      const [losses, same] = [step.losses(COMPARED_STEPS), captured.losses(COMPARED_STEPS)]
      expectClose(`${row.name}, captured: losses`, same, losses, 0)
      await orNotMeasured(async () => {
        const lossesOf = async (precision: string) => {
          const side = await (await torch.get()).open(workload('cpu', precision))
          const its = await side.ask<number[]>('losses', { steps: COMPARED_STEPS })
          await side.close()
          return its
        }
        const exact = await lossesOf('float64')
        const most = 4 * lossError(await lossesOf('float32'), exact) + 2e-6
        if (!(lossError(losses, exact) <= most)) {
          throw new Error(`${row.name}: expected losses ${exact} as in PyTorch, got ${losses}`)
        }
      })
      return {
        name: row.name,
        run: () => step.run(),
        captured: () => captured.run(),
        operations: 1,
        workload,
      }
    })
}

function prepareAdds(filter: RegExp): (() => Promise<Prepared>)[] {
  return addRows
    .filter(({ name }) => filter.test(name))
    .map((row) => async () => {
      const run = adds(row)
      expectClose(row.name, run().dataSync(), [6, 8, 10, 12], 0)
      const workload: Workload = {
        kind: 'add',
        arguments: { gradient: row.gradient, repeat: REPEAT },
      }
      return { name: row.name, run, operations: REPEAT, workload: () => workload }
    })
}

async function main(): Promise<void> {
  const device = openEmulated()
  const pace: Pace = { rounds: Number(values.rounds), turnMs: Number(values.turn) }
  const filter = new RegExp(values.filter)
  const folder = mkdtempSync(path.join(os.tmpdir(), 'adjoint-host-'))
  const torch = { cpu: new TorchSource(1), meta: new TorchSource(1, 'meta') }
  const rows: HostRow[] = []

  const onHost = (name: string, run: () => unknown): Side => ({
    name,
    timed: (count) => {
      run()
      const start = process.cpuUsage()
      for (let i = 0; i < count; i++) run()
      const { user, system } = process.cpuUsage(start)
      cuda.synchronize()
      return (user + system) / 1000 / count
    },
  })
  const inPyTorch = (name: string, opened: Opened): Side => ({
    name,
    timed: async (count) => {
      return (1000 * (await opened.ask<number>('timed', { count, clock: 'cpu' }))) / count
    },
  })

  async function measure(prepared: Prepared): Promise<HostRow> {
    const { name, run, captured, operations, workload } = prepared
    for (let i = 0; i < WARM; i++) {
      run()
      captured?.()
    }
    const counts = callsOf(device, run)
    const sides = [onHost('adjoint', run)]
    if (captured) sides.push(onHost('captured', captured))
    const operators: Partial<Record<TorchDevice, number>> = {}
    const missing: Partial<Record<TorchDevice, string>> = {}
    const opened: Opened[] = []
    for (const peer of PEERS) {
      const side = await orNotMeasured(async () => {
        const opened = await (await torch[peer].get()).open(workload(peer))
        operators[peer] = await opened.ask<number>('operators')
        return opened
      })
      if ('not_measured' in side) {
        missing[peer] = side.not_measured
        continue
      }
      opened.push(side)
      sides.push(inPyTorch(peer, side))
    }
    const compared = await nothingRuns(device, () => {
      for (let i = 0; i * operations < COMPILED; i++) run()
      cuda.synchronize()
      return inTurns(sides, pace)
    })
    for (const side of opened) await side.close()
    const launches = counts.kernels + counts.libraryCalls
    return {
      name,
      nativeCalls: counts.nativeCalls / operations,
      launches: launches / operations,
      operators: Object.fromEntries(
        Object.entries(operators).map(([peer, count]) => [peer, count / operations]),
      ),
      sides: Object.fromEntries(
        compared.map(({ name, ms_median, ms_best, ...side }) => [
          name,
          { ...side, ms_median: ms_median / operations, ms_best: ms_best / operations },
        ]),
      ),
      missing,
    }
  }

  try {
    const steps = await prepareSteps(filter, folder, torch.cpu)
    for (const prepare of [...prepareAdds(filter), ...steps]) {
      rows.push(await measure(await prepare()))
      const report = {
        processor: os.cpus()[0]?.model.trim() ?? 'unknown',
        node: process.version,
        torch: (torch.cpu.facts ?? torch.meta.facts)?.version ?? null,
        rows,
      }
      console.log(
        markdown({ ...report, rows: rows.slice(-1) })
          .trimEnd()
          .split('\n')
          .at(-1),
      )
      if (!values.json) continue
      // After every row, so that a run that is interrupted leaves what it had.
      writeFileSync(values.json, `${JSON.stringify(report, null, 2)}\n`)
      writeFileSync(values.json.replace(/(\.json)?$/, '.md'), markdown(report))
    }
  } finally {
    for (const source of Object.values(torch)) source.stop()
    rmSync(folder, { recursive: true })
  }
}

if (values.help) console.log(HELP)
else await main()
