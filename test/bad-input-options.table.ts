/** As the table of the rooms: each option by itself, and what lies deeper in a state or a file. */

import * as data from '../src/data/index.js'
import { ones, type Tensor } from '../src/index.js'
import * as io from '../src/io/index.js'
import * as nn from '../src/nn/index.js'
import * as optim from '../src/optim/index.js'
import {
  type Call,
  type Class,
  call,
  classes,
  file,
  images,
  kind,
  layers,
  loader,
  lr,
  none,
  parts,
  position,
  quiet,
  rows,
  sgd,
  square,
  trainer,
  weights,
} from './bad-input-rooms.table.js'

/** Each of the options, which may all be left out. */
const options = (name: string, keys: string, run: (options: object) => unknown) => {
  for (const key of keys.split(' ')) {
    call(
      `${name} with ${key}`,
      (v) => run({ [key]: v }),
      () => undefined,
    )
  }
}

// ---------------------------------------------------------------- nn
const PLACE = 'dtype device'
const layerOptions = (
  name: string,
  keys: string,
  args: readonly number[],
  ...inputs: Call['good']
) =>
  options(name, keys, (o) =>
    new (layers[name] as Class)(...args, o).forward(...inputs.map((x) => x())),
  )
const losses = (name: string, keys: string, target: () => Tensor) =>
  layerOptions(name, keys, [], square, target)
layerOptions('Linear', `bias ${PLACE}`, [2, 2], square)
layerOptions('Conv2d', `stride padding dilation groups bias ${PLACE}`, [2, 2, 3], images)
layerOptions('Embedding', `paddingIdx ${PLACE}`, [3, 2], classes)
layerOptions('BatchNorm2d', `eps momentum affine trackRunningStats ${PLACE}`, [2], images)
layerOptions('LayerNorm', `eps elementwiseAffine bias ${PLACE}`, [2], square)
layerOptions('RMSNorm', `eps elementwiseAffine ${PLACE}`, [2], square)
layerOptions('MaxPool2d', 'stride padding dilation ceilMode', [2], images)
layerOptions('AvgPool2d', 'stride padding ceilMode countIncludePad divisorOverride', [2], images)
layerOptions('Dropout', 'generator', [0.5], square)
for (const name of ['LSTM', 'GRU']) {
  const keys = `numLayers bias batchFirst dropout bidirectional ${PLACE}`
  layerOptions(name, keys, [2, 3], () => ones([4, 1, 2]))
}
losses('CrossEntropyLoss', 'weight reduction ignoreIndex labelSmoothing', classes)
losses('NLLLoss', 'weight reduction ignoreIndex', classes)
losses('BCEWithLogitsLoss', 'weight posWeight reduction', square)
for (const name of ['kaimingUniform_', 'kaimingNormal_'] as const) {
  call(`init.${name} with options`, nn.init[name], square, none)
  options(`init.${name}`, 'a mode nonlinearity generator', (o) => nn.init[name](square(), o))
}
for (const name of ['xavierUniform_', 'xavierNormal_', 'orthogonal_'] as const) {
  call(`init.${name} with gain`, nn.init[name], square, () => 1, none)
}
for (const name of ['uniform_', 'normal_'] as const) {
  call(
    `init.${name} of two numbers`,
    nn.init[name],
    square,
    () => 0,
    () => 1,
    none,
  )
}
call(
  'init.truncNormal_ of four numbers',
  nn.init.truncNormal_,
  square,
  () => 0,
  () => 1,
  () => -2,
  () => 2,
  none,
)

// ---------------------------------------------------------------- optim
const stepWith = (C: Class) => (o: object) => {
  const [p] = weights()
  p.grad = ones([2])
  new C([p], { lr: 0.1, ...o }).step()
}
options('SGD', 'lr momentum dampening weightDecay nesterov maximize', stepWith(optim.SGD as Class))
options('Adam', 'lr betas eps weightDecay amsgrad maximize', stepWith(optim.Adam as Class))
options('AdamW', 'lr betas eps weightDecay amsgrad maximize', stepWith(optim.AdamW as Class))
const adamState = () => {
  const [p] = weights()
  p.grad = ones([2])
  const adam = new optim.Adam([p], lr())
  adam.step()
  return adam.stateDict()
}
const loadAdam = (state: object) => new optim.Adam(weights(), lr()).loadStateDict(state as never)
call(
  'Adam.loadStateDict of a state',
  (state) => loadAdam({ ...adamState(), state }),
  () => adamState().state,
)
call(
  "Adam.loadStateDict of a parameter's state",
  (state) => loadAdam({ ...adamState(), state: { 0: state } }),
  () => adamState().state[0],
)
call(
  'Adam.loadStateDict of a group',
  (group) => loadAdam({ ...adamState(), param_groups: [group] }),
  () => adamState().param_groups[0],
)
options('clipGradNorm_', 'normType errorIfNonfinite', (o) => optim.clipGradNorm_(weights(), 1, o))
options('OneCycleLR', 'pctStart annealStrategy divFactor finalDivFactor', (o) =>
  new optim.OneCycleLR(sgd(), { maxLr: 0.1, totalSteps: 5, ...o }).step(),
)

// ---------------------------------------------------------------- data
options('randomSplit', 'seed', (o) => data.randomSplit(rows(), [2, 2], o))
call(
  'randomSplit of a size',
  (size) => data.randomSplit(rows(), [size, 2]),
  () => 2,
)
options('drawDigits', 'seed', (o) => data.drawDigits('test', { count: 5, ...o }))

// ---------------------------------------------------------------- io
options('saveSafetensors', 'metadata', (o) => io.saveSafetensors(file('a'), { a: ones([2]) }, o))
options('loadSafetensors', 'device', (o) => io.loadSafetensors(file('tensors'), o))
call(
  'saveState of kind',
  (k) => io.saveState(file('d'), { kind: k, version: 1 }, null),
  () => 'k',
)
call(
  'loadState of version',
  (version) => io.loadState(file('state'), { ...kind, version }),
  () => 1,
)
call(
  'SafetensorsFile.read',
  (name) => {
    using opened = new io.SafetensorsFile(file('tensors'))
    return opened.read(name)
  },
  () => 'a',
)
for (const key of ['dtype', 'shape', 'bytes']) {
  const raw = { dtype: 'F32', shape: [1], bytes: new Uint8Array(4) } as const
  call(
    `writeSafetensorsFile with ${key}`,
    (v) => io.writeSafetensorsFile(file('b'), new Map([['a', { ...raw, [key]: v }]])),
    () => raw[key as 'dtype'],
  )
}

// ---------------------------------------------------------------- train
const fitWith = (o: object) => trainer().fit(loader(), { ...quiet, ...o })
options('Trainer.fit with a checkpoint', 'everyBatches everySeconds', (o) =>
  fitWith({ checkpoint: { path: file('f'), ...o } }),
)
options('Trainer.fit with earlyStop', 'monitor minDelta', (o) =>
  fitWith({ earlyStop: { patience: 1, ...o } }),
)
const checkpointed = () => {
  const { model, optimizer } = parts()
  const states = { model: model.stateDict(), optimizer: optimizer.stateDict(), schedule: null }
  return { ...states, random: {}, ...position() } as unknown as Record<string, io.State>
}
const resumeFrom = (state: io.State) => {
  io.saveState(file('g'), { kind: 'adjoint checkpoint', version: 1 }, state)
  return fitWith({ resume: file('g') })
}
call('loadCheckpoint of a state', resumeFrom, checkpointed)
for (const key of Object.keys(checkpointed())) {
  call(
    `loadCheckpoint of ${key}`,
    (v) => resumeFrom({ ...checkpointed(), [key]: v }),
    () => checkpointed()[key],
  )
}
