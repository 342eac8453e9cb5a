// npm run bench -- [--filter regex] [--time ms] [--json file]
// Times the suites of this folder. Ratios hold within one run; absolute times belong to the machine.
import { readdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import { machine } from './support/machine.mjs'
import { resident } from './support/measure.mjs'
import { formatTime, type Measured, runSuite, type Suite } from './support/suite.mjs'

// The CPU's figures, also on a machine with a GPU.
process.env.ADJOINT_DEVICE = 'cpu'

const HELP = `usage: npm run bench -- [options]
  --filter REGEX  only rows whose name matches: suite/row, or suite/row precision
  --time MS       how long a row is timed; default 500
  --json FILE     also write the results there`

const { values } = parseArgs({
  options: {
    filter: { type: 'string', default: '' },
    time: { type: 'string', default: '500' },
    json: { type: 'string' },
    help: { type: 'boolean', short: 'h' },
  },
})

const label = ({ name, precision }: Measured) =>
  precision === 'float32' ? name : `${name} ${precision}`

async function main(): Promise<void> {
  const filter = new RegExp(values.filter)
  const facts = machine()
  console.log(`${facts.processor}, ${facts.threads} threads, node ${facts.node}`)
  const rows: Measured[] = []
  const folder = path.dirname(fileURLToPath(import.meta.url))
  for (const file of readdirSync(folder).sort()) {
    if (!file.endsWith('.bench.mts')) continue
    const { suite } = (await import(pathToFileURL(path.join(folder, file)).href)) as {
      suite: Suite
    }
    for (const row of runSuite(suite, filter, Number(values.time))) {
      rows.push(row)
      console.log(
        `  ${label(row).padEnd(52)}${formatTime(row.ms_median).padStart(12)}` +
          ` ±${`${(100 * row.spread).toFixed(0)} %`.padEnd(6)}` +
          `${row.ratio.toFixed(2).padStart(9)}x` +
          (row.gflops === undefined ? '' : `  ${row.gflops.toFixed(1)} GFLOP/s`) +
          (row.floor_ms === undefined
            ? ''
            : `  floor ${formatTime(row.floor_ms)}, ${(row.floor_ms / row.ms_median).toFixed(2)} reached`) +
          (row.page_faults === undefined ? '' : `  ${row.page_faults.toFixed(1)} page faults`),
      )
    }
  }
  console.log(`peak resident memory of the run: ${(resident().peak / 1024).toFixed(0)} MiB`)
  if (values.json) {
    writeFileSync(values.json, `${JSON.stringify({ machine: facts, rows }, null, 2)}\n`)
  }
}

if (values.help) console.log(HELP)
else await main()
