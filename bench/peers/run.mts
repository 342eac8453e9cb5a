// npm run bench:peers: the rows of `npm run bench` beside other libraries, in turns within one run.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { machine } from '../support/machine.mjs'
import { type Context, type PeerRow, TorchSource } from './context.mjs'
import { opsBesidePeers } from './ops.mjs'
import { describeRow, markdown, type Report } from './report.mjs'
import { STEP_COLUMNS, stepsBesidePeers } from './steps.mjs'

const HELP = `usage: npm run bench:peers -- [options]
Compares with what is installed: PyTorch (ADJOINT_PYTHON names the interpreter; default python3).
  --filter REGEX  only rows whose name matches
  --json FILE     writes the results there, and a table with the ending .md beside it
  --rounds N      turns of each side; default 9
  --turn MS       how long a turn takes; default 200
  --columns LIST  of PyTorch: ${STEP_COLUMNS.join(',')} (default: all)`

const { values } = parseArgs({
  options: {
    filter: { type: 'string', default: '' },
    json: { type: 'string' },
    rounds: { type: 'string', default: '9' },
    turn: { type: 'string', default: '200' },
    columns: { type: 'string', default: STEP_COLUMNS.join(',') },
    help: { type: 'boolean', short: 'h' },
  },
})

const SECTIONS: ((context: Context) => AsyncGenerator<PeerRow>)[] = [
  stepsBesidePeers,
  opsBesidePeers,
]

async function main(): Promise<void> {
  const facts = machine()
  const folder = mkdtempSync(path.join(tmpdir(), 'adjoint-peers-'))
  const torch = new TorchSource(facts.threads)
  const context: Context = {
    filter: new RegExp(values.filter),
    pace: { rounds: Number(values.rounds), turnMs: Number(values.turn) },
    columns: values.columns.split(','),
    folder,
    torch,
  }
  const rows: PeerRow[] = []
  const report = (): Report => ({ machine: facts, torch: torch.facts, rows })
  try {
    console.log(`${facts.processor}, ${facts.threads} threads, node ${facts.node}`)
    for (const section of SECTIONS) {
      for await (const row of section(context)) {
        rows.push(row)
        console.log(describeRow(row))
        // After every row, so that a run that is interrupted leaves what it had.
        if (values.json) {
          writeFileSync(values.json, `${JSON.stringify(report(), null, 2)}\n`)
          writeFileSync(values.json.replace(/(\.json)?$/, '.md'), markdown(report()))
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
