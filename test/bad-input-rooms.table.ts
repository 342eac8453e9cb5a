/**
 * What the functions, classes and methods of `adjoint/nn`, `/optim`, `/data`, `/train` and `/io` are
 * called with rightly. A name begins with that of the export; the test puts wrong values in the
 * place of each argument.
 */
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import * as data from '../src/data/index.js'
import { ones, type Tensor, tensor, zeros } from '../src/index.js'
import * as io from '../src/io/index.js'
import * as nn from '../src/nn/index.js'
import * as optim from '../src/optim/index.js'
import * as train from '../src/train/index.js'

export const folder = mkdtempSync(path.join(tmpdir(), 'adjoint-'))
export const file = (name: string) => path.join(folder, name)
io.saveSafetensors(file('tensors'), { a: ones([2]) })
export const kind = { kind: 'test', version: 1 }
io.saveState(file('state'), kind, { a: 1 })

const cyclic: unknown[] = []
cyclic[0] = cyclic

/** Values that nothing should mistake for what it wants; those that do fit are harmless. */
export const wrong: readonly [label: string, value: () => unknown][] = [
  ...[
    ...[undefined, null, 5, -1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 40],
    ...[path.join(folder, 'x'), true, {}, [], [1], [null], [{}]],
  ].map((value) => [JSON.stringify(value) ?? 'undefined', () => value] as const),
  ['a tensor', () => ones([2])],
  ['an integer tensor', () => zeros([2], { dtype: 'int64' })],
  ['a function', () => () => 3],
  ['a bigint', () => 1n],
  ['a symbol', () => Symbol('x')],
  ['an array that holds itself', () => cyclic],
  [
    'an array whose buffer was transferred',
    () => {
      const array = new Float32Array(4)
      structuredClone(array.buffer, { transfer: [array.buffer] })
      return array
    },
  ],
  [
    'a disposed tensor',
    () => {
      const t = ones([2])
      t.dispose()
      return t
    },
  ],
].map(([label, value]) => [label as string, value as () => unknown])

export interface Call {
  readonly name: string
  // biome-ignore lint/suspicious/noExplicitAny: wrong values are the point
  readonly run: (...values: any[]) => unknown
  readonly good: readonly (() => unknown)[]
}
export const calls: Call[] = []
export const call = (name: string, run: Call['run'], ...good: Call['good']) =>
  calls.push({ name, run, good })
// biome-ignore lint/suspicious/noExplicitAny: as above
export type Class = new (...values: any[]) => any
const construct = (name: string, C: Class, ...good: Call['good']) =>
  call(name, (...values) => new C(...values), ...good)

// ---------------------------------------------------------------- nn
export const none = () => ({})
export const square = () => ones([2, 2])
export const images = () => ones([2, 2, 4, 4])
export const classes = () => tensor([0n, 1n])
export const layers: Readonly<Record<string, unknown>> = { ...nn }
const layer = (name: string, good: Call['good'], ...inputs: Call['good']) => {
  const C = layers[name] as Class
  construct(name, C, ...good)
  call(`${name}.forward`, (...xs) => new C(...good.map((v) => v())).forward(...xs), ...inputs)
}
for (const name of ['Identity', 'ReLU', 'Sigmoid', 'SiLU', 'Tanh']) layer(name, [], square)
for (const name of ['ELU', 'GELU', 'LeakyReLU', 'Softplus']) layer(name, [none], square)
for (const name of ['Flatten', 'LogSoftmax', 'Softmax']) layer(name, [() => 1], square)
layer('Dropout', [() => 0.5], square)
layer('Conv2d', [() => 2, () => 2, () => 3, none], images)
layer('Embedding', [() => 3, () => 2, none], classes)
layer('Linear', [() => 2, () => 2, none], square)
layer('BatchNorm1d', [() => 2, none], square)
layer('BatchNorm2d', [() => 2, none], images)
for (const name of ['LayerNorm', 'RMSNorm']) layer(name, [() => 2, none], square)
for (const name of ['AvgPool2d', 'MaxPool2d']) layer(name, [() => 2, none], images)
layer('AdaptiveAvgPool2d', [() => 2], images)
for (const name of ['LSTM', 'GRU']) {
  layer(
    name,
    [() => 2, () => 3, none],
    () => ones([4, 1, 2]),
    () => undefined,
  )
}
for (const name of ['LSTMCell', 'GRUCell']) {
  layer(
    name,
    [() => 2, () => 3, none],
    () => ones([1, 2]),
    () => undefined,
  )
}
for (const name of ['BCEWithLogitsLoss', 'MSELoss', 'L1Loss']) layer(name, [none], square, square)
for (const name of ['CrossEntropyLoss', 'NLLLoss']) layer(name, [none], square, classes)
construct('Sequential', nn.Sequential, () => new nn.ReLU())
construct('ModuleList', nn.ModuleList, () => [new nn.ReLU()])
construct('Parameter', nn.Parameter, square, none)
export const module = () => new nn.Linear(2, 2)
call(
  'Module.to',
  (target) => module().to(target),
  () => 'float64',
)
call(
  'Module.apply',
  (f) => module().apply(f),
  () => () => undefined,
)
call(
  'Module.registerForwardHook',
  (f) => module().registerForwardHook(f),
  () => () => undefined,
)
call(
  'Module.registerBuffer',
  (...v) => module().registerBuffer(...(v as ['b', Tensor])),
  () => 'b',
  square,
)
call(
  'Module.loadStateDict',
  (...v) => module().loadStateDict(...(v as [nn.StateDict])),
  () => module().stateDict(),
  none,
)
for (const [name, f] of Object.entries(nn.init)) {
  if (name === 'calculateFans') call(`init.${name}`, f, () => [2, 2])
  else if (name === 'calculateGain') call(`init.${name}`, f, () => 'relu')
  else if (name === 'constant_') call(`init.${name}`, f, square, () => 0.5)
  else call(`init.${name}`, f as Call['run'], square)
}

// ---------------------------------------------------------------- optim
export const weights = () => [new nn.Parameter(ones([2]))]
export const lr = () => ({ lr: 0.1 })
for (const [name, C] of Object.entries({
  SGD: optim.SGD,
  Adam: optim.Adam,
  AdamW: optim.AdamW,
}) as [string, Class][]) {
  construct(name, C, weights, lr)
  call(
    `${name} of a group`,
    (group) => new C([group], lr()),
    () => ({ params: weights() }),
  )
  call(`${name} of a group's params`, (params) => new C([{ params }], lr()), weights)
  call(
    `${name}.loadStateDict`,
    (state) => new C(weights(), lr()).loadStateDict(state),
    () => new C(weights(), lr()).stateDict(),
  )
}
call('clipGradNorm_', optim.clipGradNorm_, weights, () => 1, none)
call('clipGradValue_', optim.clipGradValue_, weights, () => 1)
export const sgd = () => new optim.SGD(weights(), lr())
construct('GradScaler', optim.GradScaler, () => ({ initScale: 2 }))
const scaler = () => new optim.GradScaler()
call(
  'GradScaler.scale',
  (loss) => scaler().scale(loss),
  () => ones([2]),
)
call('GradScaler.unscale_', (optimizer) => scaler().unscale_(optimizer), sgd)
call(
  'GradScaler.update',
  (scale) => scaler().update(scale),
  () => 2,
)
call(
  'GradScaler.loadStateDict',
  (state) => scaler().loadStateDict(state),
  () => scaler().stateDict(),
)
const schedules: Readonly<Record<string, unknown>> = { ...optim }
for (const [name, options] of Object.entries({
  CosineAnnealingLR: { tMax: 3 },
  ExponentialLR: { gamma: 0.9 },
  LambdaLR: { lrLambda: () => 1 },
  LinearLR: { totalIters: 3 },
  MultiStepLR: { milestones: [1, 2] },
  OneCycleLR: { maxLr: 0.1, totalSteps: 5 },
  StepLR: { stepSize: 2 },
})) {
  const C = schedules[name] as Class
  construct(name, C, sgd, () => options)
  for (const [key, value] of Object.entries(options)) {
    call(
      `${name} with ${key}`,
      (v) => new C(sgd(), { ...options, [key]: v }),
      () => value,
    )
  }
  call(
    `${name}.loadStateDict`,
    (state) => new C(sgd(), options).loadStateDict(state),
    () => new C(sgd(), options).stateDict(),
  )
}

// ---------------------------------------------------------------- data
export const rows = () => new data.TensorDataset([ones([4, 2]), zeros([4], { dtype: 'int64' })])
export const loader = (options = {}) => new data.DataLoader(rows(), { batchSize: 2, ...options })
construct('TensorDataset', data.TensorDataset, () => [ones([4, 2])])
construct('Subset', data.Subset, rows, () => Uint32Array.of(0))
call('randomSplit', data.randomSplit, rows, () => [2, 2], none)
writeFileSync(file('idx'), Buffer.of(0, 0, 8, 1, 0, 0, 0, 1, 7))
call('readIdx', data.readIdx, () => file('idx'))
call(
  'drawDigits',
  data.drawDigits,
  () => 'test',
  () => ({ count: 10 }),
)
call(
  'syntheticDigits',
  data.syntheticDigits,
  () => 'test',
  () => ({ count: 10 }),
)
construct('DataLoader', data.DataLoader, rows, none)
for (const key of ['batchSize', 'shuffle', 'dropLast', 'seed', 'collate', 'transform']) {
  call(
    `DataLoader with ${key}`,
    (v) => [...loader({ [key]: v })],
    () => loader()[key as 'seed'],
  )
}
call(
  'DataLoader.loadState',
  (state) => loader().loadState(state),
  () => loader().state(),
)

// ---------------------------------------------------------------- io
call(
  'saveSafetensors',
  io.saveSafetensors,
  () => file('a'),
  () => ({ a: ones([2]) }),
  none,
)
call('loadSafetensors', io.loadSafetensors, () => file('tensors'), none)
call('loadSafetensorsMetadata', io.loadSafetensorsMetadata, () => file('tensors'))
call('readSafetensorsFile', io.readSafetensorsFile, () => file('tensors'))
construct('SafetensorsFile', io.SafetensorsFile, () => file('tensors'))
call(
  'writeSafetensorsFile',
  io.writeSafetensorsFile,
  () => file('b'),
  () => new Map(),
  () => new Map(),
)
call(
  'writeFileAtomic',
  io.writeFileAtomic,
  () => file('c'),
  () => () => undefined,
)
call(
  'saveState',
  io.saveState,
  () => file('d'),
  () => kind,
  () => ({ a: 1 }),
)
call(
  'loadState',
  io.loadState,
  () => file('state'),
  () => kind,
  none,
)

// ---------------------------------------------------------------- train
export const parts = () => {
  const model = module()
  return {
    model,
    optimizer: new optim.SGD(model.parameters(), lr()),
    step: train.classifierStep((x) => model.forward(x)),
  }
}
export const trainer = (changed = {}) => new train.Trainer({ ...parts(), ...changed })
export const quiet = { epochs: 1, progress: false }
construct('Trainer', train.Trainer, parts)
for (const key of ['model', 'optimizer', 'step', 'schedule', 'scheduleEvery']) {
  const good = () => parts()[key as 'model']
  call(`Trainer with ${key}`, (v) => trainer({ [key]: v }).fit(loader(), quiet), good)
}
call(
  'Trainer.fit',
  (from, options) => trainer().fit(from, options),
  loader,
  () => quiet,
)
for (const key of [
  'validation',
  'checkpoint',
  'resume',
  'earlyStop',
  'progress',
  'onBatchEnd',
  'onEpochEnd',
  'signal',
]) {
  call(
    `Trainer.fit with ${key}`,
    (v) => trainer().fit(loader(), { ...quiet, [key]: v === true ? 1 : v }),
    () => (key === 'progress' ? false : undefined),
  )
}
call('Trainer.evaluate', (batches) => trainer().evaluate(batches), loader)
call(
  'classifierStep',
  (forward) => trainer({ step: train.classifierStep(forward) }).evaluate(loader()),
  () => (x: Tensor) => x,
)
export const position = () => ({
  loader: loader().state(),
  tally: { loss: 0, correct: null, samples: 0 },
  history: [],
})
call('saveCheckpoint', train.saveCheckpoint, () => file('e'), parts, position)
train.saveCheckpoint(file('checkpoint'), parts(), position())
call('loadCheckpoint', train.loadCheckpoint, () => file('checkpoint'), parts)
