// npm run bench:peers: the rows of `npm run bench` beside other libraries, in turns within one run.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { machine } from '../support/machine.mjs'
import { PRECISIONS } from '../support/steps.mjs'
import { type Context, type PeerRow, TorchSource } from './context.mjs'
import { inferenceBesidePeers } from './inference.mjs'
import { stepsWithNeighbour } from './neighbour.mjs'
import { opsBesidePeers } from './ops.mjs'
import { describeRow, markdown, type Report } from './report.mjs'
import { STEP_COLUMNS, stepsBesidePeers } from './steps.mjs'

// The CPU's figures, also on a machine with a GPU.
process.env.ADJOINT_DEVICE = 'cpu'

const HELP = `usage: npm run bench:peers -- [options]
Compares with what is installed: PyTorch (pip install torch; ADJOINT_PYTHON names the interpreter,
default python3), and for inference onnxruntime-node and @tensorflow/tfjs with
@tensorflow/tfjs-backend-wasm (npm install --no-save; or in the folder that ADJOINT_PEERS names).
  --filter REGEX  only rows whose name matches
  --json FILE     where the results go, and beside it a table with the ending .md; default
                  bench/results/peers-PROCESSOR.json for a run without filter, else nowhere
  --rounds N      turns of each side; default 9
  --turn MS       how long a turn takes; default 200
  --precision LIST  of training steps: ${PRECISIONS.join(',')} (default: all)
  --columns LIST  of PyTorch: ${STEP_COLUMNS.join(',')} (default: all)`

const { values } = parseArgs({
  options: {
    filter: { type: 'string', default: '' },
    json: { type: 'string' },
    rounds: { type: 'string', default: '9' },
    turn: { type: 'string', default: '200' },
    precision: { type: 'string', default: PRECISIONS.join(',') },
    columns: { type: 'string', default: STEP_COLUMNS.join(',') },
    help: { type: 'boolean', short: 'h' },
  },
})

const SECTIONS: ((context: Context) => AsyncGenerator<PeerRow>)[] = [
  stepsBesidePeers,
  opsBesidePeers,
  inferenceBesidePeers,
  stepsWithNeighbour,
]

function defaultFile(processor: string): string {
  const name = processor
    .toLowerCase()
    .replace(/\((r|tm)\)|processor|\bcpu\b/g, '')
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '')
  const folder = path.dirname(fileURLToPath(import.meta.url))
  return path.resolve(folder, '..', 'results', `peers-${name}.json`)
}

async function main(): Promise<void> {
  const facts = machine()
  const folder = mkdtempSync(path.join(tmpdir(), 'adjoint-peers-'))
  const torch = new TorchSource(facts.threads)
  const context: Context = {
    filter: new RegExp(values.filter),
    pace: { rounds: Number(values.rounds), turnMs: Number(values.turn) },
    precisions: PRECISIONS.filter((name) => values.precision.split(',').includes(name)),
    columns: values.columns.split(','),
    folder,
    torch,
  }
  const file = values.json ?? (values.filter === '' ? defaultFile(facts.processor) : undefined)
  const rows: PeerRow[] = []
  const report = (): Report => ({ machine: facts, torch: torch.facts, rows })
  try {
    console.log(`${facts.processor}, ${facts.threads} threads, node ${facts.node}`)
    for (const section of SECTIONS) {
      for await (const row of section(context)) {
        rows.push(row)
        console.log(describeRow(row))
        // After every row, so that a run that is interrupted leaves what it had.
        if (file) {
          writeFileSync(file, `${JSON.stringify(report(), null, 2)}\n`)
          writeFileSync(file.replace(/(\.json)?$/, '.md'), markdown(report()))
        }
      }
    }
  } finally {
    torch.stop()
    rmSync(folder, { recursive: true })
  }
}

if (values.help) console.log(HELP)
else await main()
