/**
 * What every public function is called with, rightly and wrongly. A row says for each argument
 * what kind it is and gives a good value; the wrong ones follow from the kind.
 */
import * as adjoint from '../src/index.js'
import { type Tensor, tensor } from '../src/index.js'

/** A wrong value, by a name for the report. */
type Wrong = readonly [label: string, value: () => unknown]

const disposed: Wrong = [
  'a disposed tensor',
  () => {
    const t = tensor([1, 2])
    t.dispose()
    return t
  },
]
const show = (v: unknown) =>
  JSON.stringify(v, (_, item) => (typeof item === 'bigint' ? `${item}n` : item)) ?? String(v)
const plain = (...list: unknown[]): Wrong[] =>
  list.map((v) => [typeof v === 'number' ? String(v) : show(v), () => v] as Wrong)

const notNumbers = plain('1', {}, true, [1])
const notSizes = plain(-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, '3', {}, null)
const shapes = plain(
  ...[undefined, null, 5, '2', {}, [-1], [1.5], [Number.NaN], ['2'], [null], [[2]], [2 ** 53]],
  ...[[2 ** 31, 2 ** 31], [2 ** 40], [1, 1, 1, 1, 1, 1, 1, 1, 1]],
)

/** The wrong values of each kind of argument. */
const kinds = {
  tensor: [...plain(undefined, null, 5, 'x', {}, [1, 2], true), disposed],
  tensors: [
    ...plain(undefined, null, 5, 'x', {}, [], [1], [null]),
    ['a list with a disposed tensor', () => [disposed[1]()]] as Wrong,
  ],
  /** A tensor or a number. */
  operand: [...plain(undefined, null, 'x', {}, [1], 2n ** 63n), disposed],
  /** The tensor whose method is called. */
  self: [disposed],
  precision: plain(undefined, null, 2, 'low', {}),
  boolean: plain(undefined, null, 1, 'true', {}),
  lowDType: plain(undefined, null, 5, 'half', 'int8', {}),
  /** Positions to index by. */
  spec: plain(0.5, Number.NaN, 'x', {}, [0.5]),
  bound: [...plain('x', {}, [1], true), disposed],
  /** Of parts: larger than the axis will do. */
  part: notSizes,
  /** What `to` takes. */
  target: plain(undefined, null, 5, 'float', 'tpu', { dtype: 'x' }, { device: 'x' }),
  hostArray: [
    ...plain(undefined, null, [0, 0], {}),
    ['of another length', () => new Float32Array(3)] as Wrong,
    ['of another kind', () => new Float64Array(2)] as Wrong,
  ],
  /** A gradient, which may be left out. */
  gradient: [...plain(5, 'x', {}), ['another shape', () => tensor([1, 2, 3])] as Wrong, disposed],
  /** A tensor that may be left out. */
  optional: [...plain(5, 'x', {}, [1]), disposed],
  shape: shapes,
  /** Of as many elements as the tensor has, or like it. */
  newShape: [...shapes.filter(([label]) => label !== '[-1]'), ...plain([-1, -1], [7])],
  size: [...notSizes, ...plain(2 ** 53, 2 ** 45)],
  axis: plain(9, -9, 0.5, Number.NaN, 'x', {}, null),
  axes: plain(9, [9], [0, 0], [0.5], 'x', {}, ['x']),
  index: plain(0.5, Number.NaN, 'x', {}, [0]),
  number: plain(...['1', {}, [1], null, Number.NaN]),
  options: plain(null, 5, 'x', true),
  dtype: plain(undefined, null, 5, 'float', 'complex64', {}),
  device: plain(null, 5, 'tpu', 'cuda:7', {}),
  function: plain(undefined, null, 5, {}),
  state: plain(undefined, null, 5, {}, { seed: 1, offset: 2 }, { seed: 1n }),
  seed: plain(undefined, null, 1.5, Number.NaN, '1', {}),
  bytes: plain(undefined, null, -1, Number.NaN, Number.POSITIVE_INFINITY, '1'),
  threads: plain(undefined, null, 0, -1, 1.5, Number.NaN, 1e9, '1'),
  values: [
    ...plain(undefined, null, 'x', {}, ['1'], [[1], [1, 2]], [[1], 2], [1, null], 2n ** 64n),
    ['a Uint16Array', () => new Uint16Array(2)],
    ['a DataView', () => new DataView(new ArrayBuffer(8))],
    [
      'an array whose buffer was transferred',
      () => {
        const array = new Float32Array(4)
        structuredClone(array.buffer, { transfer: [array.buffer] })
        return array
      },
    ],
    [
      'an array that holds itself',
      () => {
        const array: unknown[] = []
        array[0] = array
        return array
      },
    ],
  ] as Wrong[],
  scalar: plain(undefined, null, 'x', {}, 2n ** 64n, [1]),
  gather: [
    ...plain(undefined, 5, {}),
    ['an index beyond', () => tensor([[5n]])] as Wrong,
    ['a negative index', () => tensor([[-1n]])] as Wrong,
    ['a float index', () => tensor([[0]])] as Wrong,
    ['an index of other axes', () => tensor([0n])] as Wrong,
    disposed,
  ],
  positions: [
    ...plain(undefined, 5, {}),
    ['an index beyond', () => tensor([5n])] as Wrong,
    ['a negative index', () => tensor([-1n])] as Wrong,
    ['a float index', () => tensor([0])] as Wrong,
    ['an index of two axes', () => tensor([[0n]])] as Wrong,
    disposed,
  ],
  tokens: [
    ...plain(undefined, 5, {}),
    ['a row beyond', () => tensor([5n])] as Wrong,
    ['a negative row', () => tensor([-1n])] as Wrong,
    ['rows as floats', () => tensor([0, 1])] as Wrong,
    disposed,
  ],
  classes: [
    ...plain(undefined, 5, {}),
    ['a class beyond', () => tensor([0n, 9n])] as Wrong,
    ['a negative class', () => tensor([0n, -1n])] as Wrong,
    ['classes as floats', () => tensor([0, 1])] as Wrong,
    ['too few', () => tensor([0n])] as Wrong,
    disposed,
  ],
  mask: [
    ...plain(undefined, 5, {}, true),
    ['floats', () => tensor([1, 0])] as Wrong,
    ['of another size', () => tensor([true, false, true])] as Wrong,
    disposed,
  ],
  /** The sizes of the last axes. */
  row: plain(undefined, null, 3, '2', {}, [], [3], [2, 2, 2], [null], ['2']),
  pair: plain(0, -1, 1.5, Number.NaN, 'x', {}, [1], [1, 2, 3], 2 ** 40),
  probability: plain(...notNumbers.map(([, v]) => v()), -0.1, 1.1, Number.NaN),
  /** Of another shape than the first argument can meet. */
  sameShape: [
    ...plain(undefined, null, 'x', {}),
    ['another shape', () => tensor([1, 2, 3])] as Wrong,
    disposed,
  ],
  /** Not checked: any value will do. */
  any: [],
} satisfies Record<string, readonly Wrong[]>

export type Kind = keyof typeof kinds

/** A kind and a good value for each argument. */
type Argument = readonly [kind: Kind, good: () => unknown]

const vector = () => tensor([0.5, 0.25])
const matrix = () =>
  tensor([
    [1, 2],
    [3, 4],
  ])
const ints = () => tensor([1n, 2n])
const leaf = () => tensor([1, 2], { requiresGrad: true })
const image = () => adjoint.ones([1, 1, 3, 3])
const T: Argument = ['tensor', vector]
const M: Argument = ['tensor', matrix]
const I: Argument = ['tensor', ints]
const O: Argument = ['options', () => ({})]
const value = (kind: Kind, v: unknown): Argument => [kind, () => v]
const axis = value('axis', 0)

const unary = Object.fromEntries(
  (
    'abs acos acosh asin asinh atan atanh ceil cos cosh erf erfc exp exp2 expm1 floor frac isfinite ' +
    'isinf isnan log log10 log1p log2 logicalNot neg reciprocal relu round rsqrt sigmoid sign silu ' +
    'sin sinh sqrt square tan tanh trunc clone contiguous t flatten unbind'
  )
    .split(' ')
    .map((name) => [name, [T]]),
)
const binary = Object.fromEntries(
  (
    'add atan2 div eq floorDivide fmod ge gt hypot le logicalAnd logicalOr logicalXor lt maximum ' +
    'minimum mul ne pow remainder sub'
  )
    .split(' ')
    .map((name) => [
      name,
      [
        ['operand', vector],
        ['operand', vector],
      ] as Argument[],
    ]),
)
const bits = Object.fromEntries(
  'bitwiseAnd bitwiseOr bitwiseXor shiftLeft shiftRight'.split(' ').map((name) => [
    name,
    [
      ['operand', ints],
      ['operand', ints],
    ] as Argument[],
  ]),
)
const reductions = Object.fromEntries(
  'sum mean prod amax amin any all variance std logSumExp'
    .split(' ')
    .map((name) => [name, [M, value('axes', [0]), O]]),
)

/** Every function of `adjoint`, by name. */
export const table: Record<string, readonly Argument[]> = {
  ...unary,
  ...binary,
  ...bits,
  ...reductions,
  bitwiseNot: [I],
  gelu: [T, O],
  elu: [T, O],
  leakyRelu: [T, O],
  softplus: [T, O],
  clamp: [T, ['bound', vector], ['bound', vector]],
  isclose: [T, T, O],
  where: [
    ['mask', () => tensor([true, false])],
    ['operand', vector],
    ['operand', vector],
  ],
  argmax: [M, axis, O],
  argmin: [M, axis, O],
  max: [M, axis, O],
  min: [M, axis, O],
  norm: [M, value('number', 2), value('axes', 0), O],
  softmax: [M, axis],
  logSoftmax: [M, axis],
  matmul: [M, ['sameShape', vector]],
  linear: [M, M, ['optional', vector], O],
  feedForward: [M, M, ['optional', vector], M, ['optional', vector], O],
  cast: [T, value('dtype', 'int8')],
  reshape: [M, value('newShape', [4])],
  view: [M, value('newShape', [4])],
  unsqueeze: [T, axis],
  squeeze: [T, axis],
  permute: [M, value('axes', [1, 0])],
  transpose: [M, axis, axis],
  expand: [T, ['newShape', () => [3, 2]]],
  slice: [M, axis, value('index', 0), value('index', 1), value('index', 1)],
  select: [M, axis, value('index', 0)],
  narrow: [M, axis, value('index', 0), value('size', 1)],
  split: [M, value('part', 1), axis],
  chunk: [M, value('part', 1), axis],
  index: [M, value('spec', 0)],
  cat: [['tensors', () => [matrix(), matrix()]], axis],
  stack: [['tensors', () => [matrix(), matrix()]], axis],
  gather: [M, axis, ['gather', () => tensor([[0n, 1n]])]],
  scatterAdd: [M, axis, ['gather', () => tensor([[0n, 1n]])], ['tensor', () => tensor([[1, 2]])]],
  indexSelect: [M, axis, ['positions', ints0]],
  batchNorm: [
    ['tensor', image],
    value('any', null),
    value('any', null),
    ['options', () => ({ training: true })],
  ],
  layerNorm: [M, value('row', 2), O],
  rmsNorm: [M, value('row', 2), O],
  conv2d: [
    ['tensor', image],
    ['tensor', () => adjoint.ones([1, 1, 2, 2])],
    ['optional', () => tensor([1])],
    O,
  ],
  maxPool2d: [['tensor', image], value('pair', 2), O],
  avgPool2d: [['tensor', image], value('pair', 2), O],
  adaptiveAvgPool2d: [['tensor', image], value('pair', 2)],
  dropout: [T, value('probability', 0.5), O],
  scaledDotProductAttention: [M, M, M, O],
  embedding: [['tokens', () => tensor([[0n, 1n]])], M, O],
  crossEntropy: [M, ['classes', ints0], O],
  nllLoss: [M, ['classes', ints0], O],
  mseLoss: [T, ['sameShape', vector], O],
  l1Loss: [T, ['sameShape', vector], O],
  binaryCrossEntropyWithLogits: [T, ['sameShape', vector], O],

  tensor: [['values', () => [1, 2]], O],
  full: [value('shape', [2]), value('scalar', 1), O],
  zeros: [value('shape', [2]), O],
  ones: [value('shape', [2]), O],
  empty: [value('shape', [2]), O],
  zerosLike: [T, O],
  onesLike: [T, O],
  emptyLike: [T, O],
  fullLike: [T, value('scalar', 1), O],
  arange: [value('number', 0), value('number', 3), value('number', 1), O],
  linspace: [value('number', 0), value('number', 1), value('size', 3), O],
  eye: [value('size', 2), value('size', 2), O],
  rand: [value('shape', [2]), O],
  randn: [value('shape', [2]), O],
  uniform: [value('shape', [2]), value('number', 0), value('number', 1), O],
  normal: [value('shape', [2]), value('number', 0), value('number', 1), O],
  randint: [value('number', 0), value('number', 3), value('shape', [2]), O],
  bernoulli: [value('shape', [2]), value('probability', 0.5), O],
  randperm: [value('size', 3), O],

  grad: [['tensor', () => shared.mul(2).sum()], ['tensors', () => [shared]], O],
  cudaKernel: [['options', kernelSpec]],
  customFunction: [['function', spec]],
  setFloat32MatmulPrecision: [value('precision', 'highest')],
  getFloat32MatmulPrecision: [],
  useDeterministicAlgorithms: [value('boolean', false)],
  areDeterministicAlgorithmsEnabled: [],
  autocast: [value('lowDType', 'bfloat16'), ['function', () => () => 1]],
  autocastAsync: [value('lowDType', 'bfloat16'), ['function', () => async () => 1]],
  noGrad: [['function', () => () => 1]],
  enableGrad: [['function', () => () => 1]],
  noGradAsync: [['function', () => async () => 1]],
  enableGradAsync: [['function', () => async () => 1]],
  isGradEnabled: [],
  tidy: [['function', () => () => 1]],
  capture: [['function', () => () => 1], O],
  profile: [['function', () => () => 1]],
  profileAsync: [['function', () => async () => 1]],
  keep: [T],
  promoteTypes: [value('dtype', 'int8'), value('dtype', 'uint8')],
  device: [value('device', 'cpu')],
  defaultDevice: [],
  setDefaultDevice: [value('device', 'cpu')],
  synchronize: [value('device', 'cpu')],
  probeRates: [value('device', 'cpu')],
  memoryStats: [value('device', 'cpu')],
  collectGarbage: [value('device', 'cpu')],
  emptyCache: [value('device', 'cpu')],
  setMemoryCap: [value('bytes', 0), value('device', 'cpu')],
  getNumThreads: [],
  setNumThreads: [['threads', () => adjoint.getNumThreads()]],
  manualSeed: [value('seed', 1), value('device', 'cpu')],
  getRandomState: [value('device', 'cpu')],
  setRandomState: [['state', () => adjoint.getRandomState()], value('device', 'cpu')],
  liveTensors: [],
}

const self: Argument = ['self', vector]
const selfInt: Argument = ['self', ints]
const result: Argument = ['self', () => leaf().mul(2)]

/** Every method of Tensor that is no function of its own, by name. */
export const methodTable: Record<string, readonly Argument[]> = {
  ...Object.fromEntries(
    (
      'abs_ acos_ acosh_ asin_ asinh_ atan_ atanh_ ceil_ cos_ cosh_ erf_ erfc_ exp_ exp2_ expm1_ ' +
      'floor_ log_ log10_ log1p_ log2_ neg_ reciprocal_ relu_ round_ rsqrt_ sigmoid_ sign_ sin_ ' +
      'sinh_ sqrt_ square_ tan_ tanh_ trunc_ zero_ float double half bfloat16 long int bool detach ' +
      'data dataSync toArray requiresGrad_ checkLive isPinned'
    )
      .split(' ')
      .map((name) => [name, [self]]),
  ),
  ...Object.fromEntries(
    'add_ sub_ mul_ div_ floorDivide_ remainder_ fmod_ pow_ maximum_ minimum_'
      .split(' ')
      .map((name) => [name, [self, ['operand', vector]] as Argument[]]),
  ),
  ...Object.fromEntries(
    'bitwiseAnd_ bitwiseOr_ bitwiseXor_'
      .split(' ')
      .map((name) => [name, [selfInt, ['operand', ints]] as Argument[]]),
  ),
  bitwiseNot_: [selfInt],
  fill_: [self, value('scalar', 1)],
  copy_: [self, ['sameShape', vector]],
  to: [self, value('target', 'int8')],
  copyTo: [self, ['hostArray', () => new Float32Array(2)]],
  item: [['self', () => tensor([1])]],
  itemBigInt: [['self', () => tensor([1n])]],
  var: [['self', matrix], value('axes', [0]), O],
  backward: [result, ['gradient', vector], O],
  retainGrad: [result],
  registerHook: [result, ['function', () => () => null]],
  alias: [self, value('any', [2]), value('any', [1]), value('any', 0)],
  pinMemory: [['self', () => vector().to('cpu')]],
  copyToDevice: [self, value('device', 'cpu')],
}

function ints0(): Tensor {
  return tensor([0n, 1n])
}

function kernelSpec(): unknown {
  const outputs = (x: Tensor) => [x]
  return { source: 'x', name: 'f', inputs: ['float32'], outputs, grid: 1, block: 1 }
}

function spec(): unknown {
  return { forward: (_: unknown, x: Tensor) => x.mul(2), backward: (_: unknown, dy: Tensor) => dy }
}

const shared = leaf()

/** What stands before the name of a method. */
const METHOD = 'Tensor.'

/** The functions and methods of both tables. */
export const names = [
  ...Object.keys(table),
  ...Object.keys(methodTable).map((name) => METHOD + name),
]

export interface Attempt {
  readonly name: string
  readonly label: string
  readonly run: () => unknown
}

const functions = new Map(Object.entries(adjoint) as [string, (...args: unknown[]) => unknown][])

/** The good call of a row, and all wrong ones: one argument wrong at a time. */
export function attemptsOf(name: string): { good: Attempt; wrong: Attempt[] } {
  const method = name.startsWith(METHOD) ? name.slice(METHOD.length) : null
  const row = method === null ? table[name] : methodTable[method]
  const f = (...args: unknown[]): unknown => {
    if (method === null) return functions.get(name)?.(...args)
    const [x, ...rest] = args as [Record<string, (...rest: unknown[]) => unknown>]
    return x[method](...rest)
  }
  const call = (replaced: number, wrong: () => unknown) => () =>
    f(...row.map(([, good], i) => (i === replaced ? wrong() : good())))
  const wrong = row.flatMap(([kind], i) =>
    (kinds[kind] as readonly Wrong[]).map(([label, bad]) => ({
      name,
      label: `argument ${i}: ${label}`,
      run: call(i, bad),
    })),
  )
  return { good: { name, label: 'good', run: call(-1, () => null) }, wrong }
}
