// npm run bench:gpu: single ops and training steps on the GPU beside PyTorch on the same card, in
// turns within one run, results compared before anything is timed.
import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { cuda, setDefaultDevice } from 'adjoint'
import { TorchSource } from '../peers/context.mjs'
import { opsOnGpu } from './ops.mjs'
import { type GpuRow, markdown } from './report.mjs'
import { stepsOnGpu } from './steps.mjs'

const HELP = `usage: npm run bench:gpu -- [options]
Needs an NVIDIA GPU; PyTorch with CUDA for the comparison (ADJOINT_PYTHON names the interpreter).
  --filter REGEX  only rows whose name matches
  --json FILE     where the results go, and beside it a table with the ending .md
  --rounds N      turns of each side; default 7
  --turn MS       how long a turn takes; default 50`

const { values } = parseArgs({
  options: {
    filter: { type: 'string', default: '' },
    json: { type: 'string' },
    rounds: { type: 'string', default: '7' },
    turn: { type: 'string', default: '50' },
    help: { type: 'boolean', short: 'h' },
  },
})

async function main(): Promise<void> {
  setDefaultDevice('cuda')
  const torch = new TorchSource(1, 'cuda')
  const filter = new RegExp(values.filter)
  const pace = { rounds: Number(values.rounds), turnMs: Number(values.turn) }
  const rows: GpuRow[] = []
  try {
    for (const section of [opsOnGpu, stepsOnGpu]) {
      for await (const row of section({ filter, pace, torch })) {
        rows.push(row)
        const report = { card: cuda.getDeviceName(), torch: torch.facts, rows }
        console.log(
          markdown({ ...report, rows: [row] })
            .split('\n')
            .at(-2),
        )
        // After every row, so that a run that is interrupted leaves what it had.
        if (!values.json) continue
        writeFileSync(values.json, `${JSON.stringify(report, null, 2)}\n`)
        writeFileSync(values.json.replace(/(\.json)?$/, '.md'), markdown(report))
      }
    }
  } finally {
    torch.stop()
  }
  const wrong = rows.filter((row) => row.error !== undefined)
  for (const row of wrong) console.error(`${row.name}: ${row.error}`)
  if (wrong.length > 0) process.exitCode = 1
}

if (values.help) console.log(HELP)
else await main()
