// Small ops, elementwise ops on large tensors and matrix products beside PyTorch's.
import path from 'node:path'
import { capture, gelu, linspace, noGrad, randn, type Tensor, tensor } from 'adjoint'
import { saveSafetensors } from 'adjoint/io'
import { chain, chainInputs } from '../support/chain.mjs'
import { machineRates } from '../support/floor.mjs'
import { timed } from '../support/measure.mjs'
import { inTurns, type Side } from '../support/pairs.mjs'
import { expectClose } from '../support/suite.mjs'
import { type Context, orNotMeasured, type PeerRow } from './context.mjs'
import type { Opened, Workload } from './torch.mjs'

interface Ours {
  /** What is timed; its result is what PyTorch's is compared with. */
  readonly run: () => Tensor
  /** What the same is in PyTorch. */
  readonly workload: Workload
  /** Of how many operations a run consists; times are for one. Default 1. */
  readonly operations?: number
  readonly facts?: (ms: number) => Record<string, number>
}

/** A row, made when it is wanted. */
interface Candidate {
  readonly name: string
  readonly make: () => Ours
}

type Facts = Record<string, number>

/** Products say how far off float64 both are; of other results the sums must agree. */
async function checked(name: string, ours: Ours, opened: Opened): Promise<Facts> {
  if (ours.workload.kind === 'product') {
    const [error, theirs] = await opened.ask<[number, number]>('errors')
    if (!(error <= 1e-5)) throw new Error(`${name}: off float64 by ${error} of the sum of |a| |b|`)
    return { error, "PyTorch's error": theirs }
  }
  const sum = ours.run().detach().double().sum().item()
  expectClose(`${name}: sum`, [sum], [await opened.ask<number>('sum')], 1e-5)
  return {}
}

async function besidePyTorch(context: Context, name: string, ours: Ours): Promise<PeerRow> {
  const { operations = 1 } = ours
  const own: Side = {
    name: 'adjoint',
    timed: (count) => timed(() => void ours.run(), count) / operations,
  }
  const peer = await orNotMeasured(async () => {
    const opened = await (await context.torch.get()).open(ours.workload)
    const accuracy = await checked(name, ours, opened)
    const theirs: Side = {
      name: 'eager',
      timed: async (count) => (await opened.timed(count)) / operations,
    }
    const compared = await inTurns([own, theirs], context.pace)
    await opened.close()
    return { compared, accuracy }
  })
  const measured = 'compared' in peer
  const [{ ms_median, ms_best, spread }, theirs] = measured
    ? peer.compared
    : await inTurns([own], context.pace)
  return {
    name,
    precision: 'float32',
    ms_median,
    ms_best,
    spread,
    peers: { eager: measured ? theirs : peer },
    facts: { ...ours.facts?.(ms_median), ...(measured && peer.accuracy) },
    notes: [],
  }
}

const REPEAT = 100

/** Captured, and past the calls that are not replays. */
function replayed(run: () => Tensor): () => Tensor {
  const step = capture(run)
  while (!step.isRecorded) step()
  return step
}

const small: readonly Candidate[] = [
  ...[false, true].map((gradient) => ({
    name: `small/add of 4 elements${gradient ? ', with gradient' : ''}`,
    make: (): Ours => {
      const a = tensor([1, 2, 3, 4], { requiresGrad: gradient })
      const b = tensor([5, 6, 7, 8])
      return {
        run: () => {
          for (let i = 1; i < REPEAT; i++) a.add(b)
          return a.add(b)
        },
        workload: { kind: 'add', arguments: { gradient, repeat: REPEAT } },
        operations: REPEAT,
      }
    },
  })),
  ...[4, 64 * 128].flatMap((size) =>
    [false, true].map((isCaptured) => ({
      name: `small/20 ops on ${size} elements, forward and backward${isCaptured ? ', captured' : ''}`,
      make: (): Ours => {
        const inputs = chainInputs(size)
        const run = () => chain(inputs)
        return {
          run: isCaptured ? replayed(run) : run,
          workload: { kind: 'chain', arguments: { size } },
        }
      },
    })),
  ),
]

const LARGE = 1 << 24

/** Elementwise ops into recycled memory, beside the rate of a copy; how many tensors move. */
const elementwise = (
  [
    ['add', 3, (x, y) => x.add(y)],
    ['mul', 3, (x, y) => x.mul(y)],
    ['relu', 2, (x) => x.relu()],
    ['exp', 2, (x) => x.exp()],
    ['tanh', 2, (x) => x.tanh()],
    ['gelu', 2, (x) => gelu(x)],
  ] satisfies [string, number, (x: Tensor, y: Tensor) => Tensor][]
).map(
  ([op, tensors, compute]): Candidate => ({
    name: `elementwise/${op} of 16M elements`,
    make: () => {
      const x = linspace(-4, 4, LARGE)
      const y = linspace(1, 2, LARGE)
      let result: Tensor | null = null
      return {
        run: () => {
          result?.dispose()
          result = noGrad(() => compute(x, y))
          return result
        },
        workload: { kind: 'elementwise', arguments: { op, size: LARGE } },
        facts: (ms) => {
          const rate = (4 * tensors * LARGE) / (ms / 1e3)
          return { 'GB/s': rate / 1e9, 'of a copy': rate / machineRates().copyBytes }
        },
      }
    },
  }),
)

interface Product {
  /** [m, k, n] */
  readonly shape: readonly [number, number, number]
  /** Which of the factors lies transposed in memory. */
  readonly layout: 'NN' | 'NT' | 'TN'
}

const squares = [64, 96, 128, 256, 512, 1024, 2048].map(
  (n): Product => ({ shape: [n, n, n], layout: 'NN' }),
)

/** Of the layers of the networks, x [m, k] and weights [n, k]: forward, and the two gradients. */
const layers = [
  [64, 784, 256],
  [64, 256, 128],
  [64, 128, 10],
  [64, 21632, 128],
  [64, 3136, 128],
  [2048, 128, 384],
  [2048, 128, 512],
  [2048, 512, 128],
  [2048, 384, 1536],
  [2048, 1536, 384],
  [2048, 384, 65],
].flatMap(([m, k, n]): Product[] => [
  { shape: [m, k, n], layout: 'NT' }, // y = x w^T
  { shape: [m, n, k], layout: 'NN' }, // dx = dy w
  { shape: [n, m, k], layout: 'TN' }, // dw = dy^T x
])

function product({ shape: [m, k, n], layout }: Product, folder: string): Ours {
  const a = layout === 'TN' ? randn([k, m]) : randn([m, k])
  const b = layout === 'NT' ? randn([n, k]) : randn([k, n])
  const left = layout === 'TN' ? a.t() : a
  const right = layout === 'NT' ? b.t() : b
  let result = noGrad(() => left.matmul(right))
  const file = path.join(folder, `${layout}-${m}-${k}-${n}.safetensors`)
  saveSafetensors(file, { a, b, y: result })
  return {
    run: () => {
      result.dispose()
      result = noGrad(() => left.matmul(right))
      return result
    },
    workload: { kind: 'product', arguments: { file, layout } },
    facts: (ms) => {
      const rate = (2 * m * k * n) / (ms / 1e3)
      return { 'GFLOP/s': rate / 1e9, 'of the probe': rate / machineRates().flops }
    },
  }
}

export async function* opsBesidePeers(context: Context): AsyncGenerator<PeerRow> {
  const products = [...squares, ...layers].map(
    (row): Candidate => ({
      name: `product/${row.shape.join(' x ')} ${row.layout}`,
      make: () => product(row, context.folder),
    }),
  )
  for (const { name, make } of [...small, ...elementwise, ...products]) {
    if (context.filter.test(name)) yield await besidePyTorch(context, name, make())
  }
}
