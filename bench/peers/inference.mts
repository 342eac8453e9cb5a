// Forward passes in evaluation mode beside PyTorch, onnxruntime-node and TensorFlow.js with its
// WebAssembly backend, where they are installed.
import { getNumThreads, noGrad, type Tensor } from 'adjoint'
import type * as nn from 'adjoint/nn'
import { timed } from '../support/measure.mjs'
import { inTurns, type Side } from '../support/pairs.mjs'
import { stepRows, TrainingStep } from '../support/steps.mjs'
import { expectClose } from '../support/suite.mjs'
import { type Column, type Context, orNotMeasured, type PeerRow } from './context.mjs'
import { handOver } from './hand-over.mjs'
import { installed } from './installed.mjs'
import { onnxModel } from './onnx.mjs'
import { tensorflowModel } from './tensorflow.mjs'
import type { Opened } from './torch.mjs'

/** Networks that are a chain of layers, which every library can be told. */
const ROWS = ['mlp', 'cnn', 'lenet-bn']

/** A library's network: its logits, and the time that it takes. */
interface Peer {
  readonly logits: () => Promise<ArrayLike<number>>
  readonly timed: Side['timed']
  readonly close: () => Promise<void>
}

async function timedAsync(run: () => Promise<unknown>, count: number): Promise<number> {
  await run()
  const start = performance.now()
  for (let i = 0; i < count; i++) await run()
  return (performance.now() - start) / count
}

interface OnnxRuntime {
  readonly InferenceSession: {
    create(model: Buffer, options: object): Promise<OnnxSession>
  }
  readonly Tensor: new (dtype: 'float32', data: Float32Array, dims: readonly number[]) => OnnxTensor
}
interface OnnxTensor {
  readonly data: Float32Array
}
interface OnnxSession {
  run(feeds: { x: OnnxTensor }): Promise<{ y: OnnxTensor }>
  release(): Promise<void>
}

async function onnxRuntime(layers: nn.Sequential, x: Tensor, y: Tensor): Promise<Peer> {
  const { module: ort } = installed<OnnxRuntime>('onnxruntime-node')
  const session = await ort.InferenceSession.create(onnxModel(layers, x.shape, y.shape), {
    intraOpNumThreads: getNumThreads(),
    // Its threads would spin while the others compute.
    extra: { session: { intra_op: { allow_spinning: '0' } } },
  })
  const input = new ort.Tensor('float32', x.dataSync() as Float32Array, x.shape)
  const run = async () => (await session.run({ x: input })).y.data
  return {
    logits: run,
    timed: (count) => timedAsync(run, count),
    close: () => session.release(),
  }
}

async function tensorflow(layers: nn.Sequential, x: Tensor): Promise<Peer> {
  const run = await tensorflowModel(layers, x)
  return {
    logits: async () => run(),
    timed: (count) => timed(run, count),
    close: async () => undefined,
  }
}

async function pyTorch(context: Context, files: ReturnType<typeof handOver>): Promise<Peer> {
  const torch = await context.torch.get()
  const opened: Opened = await torch.open({ kind: 'forward', arguments: files })
  return {
    logits: () => opened.ask<number[]>('values'),
    timed: (count) => opened.timed(count),
    close: () => opened.close(),
  }
}

export async function* inferenceBesidePeers(context: Context): AsyncGenerator<PeerRow> {
  for (const row of stepRows) {
    const name = `inference/${row.name}`
    if (!ROWS.includes(row.name) || !context.filter.test(name)) continue
    const step = new TrainingStep(row)
    step.losses(3) // batch norm's averages are of something then
    const network = step.network.eval() as nn.Sequential
    const { x } = step.batch
    const y = noGrad(() => network.forward(x))
    const expected = Array.from(y.dataSync() as Float32Array)

    const peers: Record<string, Column> = {}
    const sides: Side[] = [
      {
        name: 'adjoint',
        timed: (count) => timed(() => noGrad(() => network.forward(x).dispose()), count),
      },
    ]
    const open: Peer[] = []
    const makers: Record<string, () => Promise<Peer>> = {
      eager: () => pyTorch(context, handOver(context.folder, row, step)),
      'onnxruntime-node': () => onnxRuntime(network, x, y),
      'tfjs, WebAssembly': () => tensorflow(network, x),
    }
    for (const [library, make] of Object.entries(makers)) {
      const peer = await orNotMeasured(make)
      if ('not_measured' in peer) {
        peers[library] = peer
        continue
      }
      expectClose(`${name} in ${library}`, await peer.logits(), expected, 1e-4)
      open.push(peer)
      sides.push({ name: library, timed: peer.timed })
    }
    const [ours, ...theirs] = await inTurns(sides, context.pace)
    for (const peer of open) await peer.close()
    for (const { name: library, ...figures } of theirs) peers[library] = figures
    const { ms_median, ms_best, spread } = ours
    yield { name, precision: 'float32', ms_median, ms_best, spread, peers, facts: {}, notes: [] }
  }
}
