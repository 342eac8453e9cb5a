// npm run bench:scaling -- [--out file] [--json file]
// What a training step costs as work grows: time and memory per element over batch, width, depth
// and length of the sequence, as a picture. Each point is measured in a process of its own.
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { randint, randn, type Tensor } from 'adjoint'
import * as nn from 'adjoint/nn'
import { AdamW } from 'adjoint/optim'
import { Gpt } from '../examples/support/gpt.mjs'
import { mlpWithDropout } from '../examples/support/networks.mjs'
import { machine } from './support/machine.mjs'
import { countFor, resident, spreadOf, timed } from './support/measure.mjs'
import { formatTime } from './support/suite.mjs'

// The CPU's figures, also on a machine with a GPU.
process.env.ADJOINT_DEVICE = 'cpu'

const HELP = `usage: npm run bench:scaling -- [options]
  --out FILE   the picture; default docs/scaling.svg
  --json FILE  also write the figures there`

const TURNS = 9
const TURN_MS = 40
const VOCABULARY = 65
/** What the lengths of sequences share. */
const TOKENS = 4096

interface Work {
  readonly network: nn.Layer
  readonly x: Tensor
  /** How many of the sweep's elements a step handles. */
  readonly elements: number
}

interface Sweep {
  readonly title: string
  /** Of what time and memory are given. */
  readonly element: string
  readonly sizes: readonly number[]
  readonly work: (size: number) => Work
}

const text = (sequences: number, length: number) => randint(0, VOCABULARY, [sequences, length])
const powers = (first: number, last: number) =>
  Array.from({ length: Math.log2(last / first) + 1 }, (_, i) => first * 2 ** i)

const sweeps: Readonly<Record<string, Sweep>> = {
  batch: {
    title: 'Batch: MLP 784-256-128-10',
    element: 'sample',
    sizes: powers(1, 4096),
    work: (size) => ({
      network: mlpWithDropout(0.5),
      x: randn([size, 1, 28, 28]),
      elements: size,
    }),
  },
  width: {
    title: 'Width: four linear layers, batch 64',
    element: 'parameter',
    sizes: powers(16, 2048),
    work: (size) => ({
      network: new nn.Sequential(
        ...Array.from({ length: 3 }, () => [new nn.Linear(size, size), new nn.ReLU()]).flat(),
        new nn.Linear(size, size),
      ),
      x: randn([64, size]),
      elements: 4 * size * (size + 1),
    }),
  },
  depth: {
    title: 'Depth: blocks of a GPT of width 64, 8 x 64 tokens',
    element: 'block',
    sizes: powers(1, 64),
    work: (size) => ({
      network: new Gpt({ vocabulary: VOCABULARY, context: 64, layers: size, heads: 4, width: 64 }),
      x: text(8, 64),
      elements: size,
    }),
  },
  length: {
    title: `Sequence length: GPT 2 x 128, ${TOKENS} tokens in all`,
    element: 'token',
    sizes: powers(16, 4096),
    work: (size) => ({
      network: new Gpt({ vocabulary: VOCABULARY, context: size, layers: 2, heads: 4, width: 128 }),
      x: text(TOKENS / size, size),
      elements: TOKENS,
    }),
  },
}

interface Point {
  readonly size: number
  /** Of a step. */
  readonly ms: number
  readonly spread: number
  /** Resident at most, above what was there after the imports. */
  readonly bytes: number
  readonly elements: number
}

function measure(name: string, size: number): Point {
  const imported = resident()
  const { network, x, elements } = sweeps[name].work(size)
  const optimizer = new AdamW(network.parameters(), { lr: 1e-3 })
  const logits = network.forward(x)
  const y = randint(0, logits.shape[1], [logits.shape[0]])
  const step = () => {
    optimizer.zeroGrad()
    const loss = nn.functional.crossEntropy(network.forward(x), y)
    loss.backward()
    optimizer.step()
    return loss
  }
  const count = countFor(step, TURN_MS)
  const times = Array.from({ length: TURNS }, () => timed(step, count))
  const last = step().item()
  if (!Number.isFinite(last))
    throw new Error(`${name} ${size}: expected a finite loss, got ${last}`)
  const { ms_median: ms, spread } = spreadOf(times)
  return { size, ms, spread, bytes: 1024 * (resident().peak - imported.now), elements }
}

/** In a fresh process, so that nothing is there but this point. */
function measured(name: string, size: number): Point {
  const child = spawnSync(
    process.execPath,
    ['--import', 'tsx', fileURLToPath(import.meta.url), '--point', `${name}:${size}`],
    { encoding: 'utf8' },
  )
  if (child.status !== 0) throw new Error(`${name} ${size}: ${child.stderr}`)
  return JSON.parse(child.stdout) as Point
}

const formatBytes = (bytes: number) =>
  bytes < 1024
    ? `${bytes.toFixed(0)} B`
    : bytes < 1024 ** 2
      ? `${(bytes / 1024).toFixed(1)} KiB`
      : `${(bytes / 1024 ** 2).toFixed(1)} MiB`

async function main(out: string, json: string | undefined): Promise<void> {
  const facts = machine()
  console.log(`${facts.processor}, ${facts.threads} threads, node ${facts.node}`)
  const rows: Record<string, Point[]> = {}
  for (const [name, { sizes, element }] of Object.entries(sweeps)) {
    rows[name] = []
    for (const size of sizes) {
      const point = measured(name, size)
      rows[name].push(point)
      console.log(
        `  ${name} ${size}`.padEnd(16) +
          formatTime(point.ms).padStart(12) +
          ` ±${(100 * point.spread).toFixed(0)} %`.padEnd(8) +
          `per ${element}: ${formatTime(point.ms / point.elements)}, ` +
          formatBytes(point.bytes / point.elements),
      )
    }
  }
  const { panelsSvg } = await import('./support/panels.mjs')
  const panels = Object.entries(sweeps).flatMap(([name, { title, element }]) => [
    {
      title,
      x: name,
      y: `ns per ${element}`,
      points: rows[name].map((p) => [p.size, (1e6 * p.ms) / p.elements] as const),
    },
    {
      title: '',
      x: name,
      y: `bytes per ${element}`,
      points: rows[name].map((p) => [p.size, p.bytes / p.elements] as const),
    },
  ])
  const title = `A training step, ${facts.processor}, ${facts.threads} threads, ${facts.simd}`
  writeFileSync(out, panelsSvg(title, panels))
  if (json) writeFileSync(json, `${JSON.stringify({ machine: facts, rows }, null, 2)}\n`)
  console.log(`picture: ${out}`)
}

const { values } = parseArgs({
  options: {
    out: { type: 'string', default: 'docs/scaling.svg' },
    json: { type: 'string' },
    point: { type: 'string' },
    help: { type: 'boolean', short: 'h' },
  },
})
if (values.help) {
  console.log(HELP)
} else if (values.point) {
  const [name, size] = values.point.split(':')
  console.log(JSON.stringify(measure(name, Number(size))))
} else {
  await main(values.out, values.json)
}
