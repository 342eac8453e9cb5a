// npm run bench -- [--filter text] [--time ms] [--json file]
// Times the suites of this folder. Ratios hold within one run; absolute times belong to the machine.
import { readdirSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import { device, getNumThreads } from 'adjoint'
import { formatTime, type Measured, runSuite, type Suite } from './support/suite.mjs'

const { values } = parseArgs({
  options: {
    filter: { type: 'string', default: '' },
    time: { type: 'string', default: '500' },
    json: { type: 'string' },
    help: { type: 'boolean', short: 'h' },
  },
})
if (values.help) {
  console.log('usage: npm run bench -- [--filter text] [--time ms] [--json file]')
  process.exit(0)
}

const folder = path.dirname(fileURLToPath(import.meta.url))
const machine = {
  processor: os.cpus()[0]?.model.trim(),
  threads: getNumThreads(),
  node: process.version,
  ...device('cpu').native.deviceInfo(),
}
console.log(`${machine.processor}, ${machine.threads} threads, node ${machine.node}`)

const results: Measured[] = []
for (const file of readdirSync(folder).sort()) {
  if (!file.endsWith('.bench.mts') || !file.includes(values.filter)) continue
  const { suite } = (await import(pathToFileURL(path.join(folder, file)).href)) as { suite: Suite }
  console.log(`\n${suite.name}`)
  for (const row of runSuite(suite, Number(values.time))) {
    results.push(row)
    const rate = row.gflops === undefined ? '' : `  ${row.gflops.toFixed(1)} GFLOP/s`
    console.log(
      `  ${row.name.padEnd(44)}${formatTime(row.ns).padStart(12)}` +
        `${`${row.ratio.toFixed(2)}x`.padStart(10)}${rate}`,
    )
  }
}
if (values.json) writeFileSync(values.json, `${JSON.stringify({ machine, results }, null, 2)}\n`)
