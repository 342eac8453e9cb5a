import { type ArgOpcode, numberOpcodes, opcodes, type ReduceOpcode } from '../bindings/opcodes.js'
import { apply } from '../core/apply.js'
import { autocastTo, withoutAutocast } from '../core/autocast.js'
import { category, checkDType, type DType, floatType } from '../core/dtype.js'
import { ArgumentError, checkOptions, DTypeError, describe, ShapeError } from '../core/errors.js'
import { defineOp, from, type Op, type Rule, type Sampler } from '../core/op.js'
import { checkAxes, checkAxis, numelOf, type Shape, showShape } from '../core/shape.js'
import { checkTensor, Tensor } from '../core/tensor.js'
import { cast } from './copy.js'
import { binary, computeBinary, unary, unaryOps } from './elementwise.js'
import { gather } from './indexing.js'
import { expand, reshape, squeeze } from './views.js'
import { where } from './where.js'

export interface ReduceOptions {
  /** Keeps the reduced axes with size 1; default false. */
  keepdim?: boolean
}

export interface SumOptions extends ReduceOptions {
  /** What to add in and return; default: the tensor's, int64 for integers and bool. */
  dtype?: DType
}

/** An axis, several, or (undefined, null) all. */
export type Axes = number | readonly number[] | null

interface ReduceAttrs {
  readonly axes: readonly number[]
  readonly keepdim: boolean
}

const codes = numberOpcodes(opcodes.reduce)
const argCodes = numberOpcodes(opcodes.arg)

const keptShape = (shape: Shape, axes: readonly number[]): Shape =>
  shape.map((size, axis) => (axes.includes(axis) ? 1 : size))
const droppedShape = (shape: Shape, axes: readonly number[]): Shape =>
  shape.filter((_, axis) => !axes.includes(axis))

function runReduce(name: ReduceOpcode, x: Tensor, dtype: DType, attrs: ReduceAttrs): Tensor {
  const kept = keptShape(x.shape, attrs.axes)
  const shape = attrs.keepdim ? kept : droppedShape(x.shape, attrs.axes)
  const y = Tensor.pending(x.device, dtype, shape)
  x.device.calls.begin('reduce').input(x).outputAs(y, kept).number(codes[name]).run()
  return y
}

/** A reduced tensor with its axes back, so that it broadcasts against the input. */
function withAxes(y: Tensor, input: Shape, attrs: ReduceAttrs): Tensor {
  return reshape(y, keptShape(input, attrs.axes))
}

const samples = (make: (s: Sampler) => Tensor) => (s: Sampler) => [
  { inputs: [make(s)], attrs: { axes: [0, 1, 2], keepdim: false } },
  { inputs: [make(s)], attrs: { axes: [1], keepdim: true } },
  { inputs: [make(s)], attrs: { axes: [0, 2], keepdim: false } },
]

function reduceOp(
  name: ReduceOpcode,
  dtypeOf: (x: DType) => DType,
  x: Rule<ReduceAttrs> | null,
  make: (s: Sampler) => Tensor,
): Op<ReduceAttrs> {
  return defineOp<ReduceAttrs>()({
    name,
    inputs: ['x'],
    run: ([input], attrs) => runReduce(name, input, dtypeOf(input.dtype), attrs),
    gradient: x === null ? null : { x },
    // as PyTorch's list for the CPU has it: of the reductions, products alone overflow in no time
    autocast: name === 'prod' ? 'float32' : name === 'sum' ? 'float32 on cuda' : undefined,
    samples: x === null ? null : samples(make),
  })
}

const normal = (s: Sampler) => s.normal([2, 3, 2])
const same = (d: DType) => d
const shapeOfX = (inputs: readonly ({ shape: Shape } | null)[]) => (inputs[0] as Tensor).shape

/** An extreme passes its gradient to the elements that attain it, in equal parts. */
const extreme = from<ReduceAttrs, 'x' | 'y'>(['x', 'y'], ({ dy, x, y, attrs }) => {
  const hit = cast(binary('eq', x, withAxes(y, x.shape, attrs)), dy.dtype)
  const ties = runSum(hit, { axes: attrs.axes, keepdim: true })
  return binary('mul', binary('div', withAxes(dy, x.shape, attrs), ties), hit)
})

const reduceOps = {
  // 1
  sum: reduceOp(
    'sum',
    (d) => (category(d) === 2 ? d : 'int64'),
    from([], ({ dy, attrs, inputs }) =>
      expand(withAxes(dy, shapeOfX(inputs), attrs), shapeOfX(inputs)),
    ),
    normal,
  ),
  // 1 / n
  mean: reduceOp(
    'mean',
    floatType,
    from([], ({ dy, attrs, inputs }) => {
      const shape = shapeOfX(inputs)
      const n = attrs.axes.reduce((count, axis) => count * shape[axis], 1)
      return expand(withAxes(binary('div', dy, n), shape, attrs), shape)
    }),
    normal,
  ),
  // y / x; where one factor is 0, the product of the others
  prod: reduceOp(
    'prod',
    (d) => (category(d) === 2 ? d : 'int64'),
    from(['x', 'y'], ({ dy, x, y, attrs }) => {
      const zero = binary('eq', x, 0)
      const zeros = runSum(cast(zero, dy.dtype), { axes: attrs.axes, keepdim: true })
      const nonzero = where(zero, 1, x)
      const others = apply(reduceOps.prod, [nonzero], { axes: attrs.axes, keepdim: true })
      const loneZero = binary('logicalAnd', zero, binary('eq', zeros, 1))
      const noZero = binary('eq', zeros, 0)
      const quotient = binary('div', withAxes(y, x.shape, attrs), nonzero)
      const slope = where(noZero, quotient, where(loneZero, others, 0))
      return binary('mul', withAxes(dy, x.shape, attrs), slope)
    }),
    (s) => s.awayFromZero([2, 3, 2]),
  ) as Op<ReduceAttrs>,
  amax: reduceOp('amax', same, extreme, (s) => s.distinct([2, 3, 2])),
  amin: reduceOp('amin', same, extreme, (s) => s.distinct([2, 3, 2])),
  any: reduceOp('any', () => 'bool', null, normal),
  all: reduceOp('all', () => 'bool', null, normal),
} satisfies Record<ReduceOpcode, Op<ReduceAttrs>>

function runSum(x: Tensor, attrs: ReduceAttrs): Tensor {
  return apply(reduceOps.sum, [x], attrs)
}

function reduce(name: ReduceOpcode, x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor {
  checkTensor(name, x)
  checkOptions(name, options)
  const checked = checkAxes(name, axes, x.ndim)
  return apply(reduceOps[name], [x], { axes: checked, keepdim: options.keepdim ?? false })
}

function inDType(name: string, x: Tensor, options: SumOptions): Tensor {
  checkTensor(name, x)
  checkOptions(name, options)
  return options.dtype === undefined ? x : cast(x, checkDType(name, options.dtype))
}

/** Sums over axes (default all). Integers and bool add up in int64. */
export function sum(x: Tensor, axes?: Axes, options: SumOptions = {}): Tensor {
  return reduce('sum', inDType('sum', x, options), axes, options)
}

/** Means over axes (default all). @throws DTypeError for integers: convert them first. */
export function mean(x: Tensor, axes?: Axes, options: SumOptions = {}): Tensor {
  const input = inDType('mean', x, options)
  if (category(input.dtype) !== 2) {
    throw new DTypeError(`mean: expected a floating dtype, got ${input.dtype}; pass { dtype }`)
  }
  return reduce('mean', input, axes, options)
}

/** Products over axes (default all). */
export function prod(x: Tensor, axes?: Axes, options: SumOptions = {}): Tensor {
  return reduce('prod', inDType('prod', x, options), axes, options)
}

function checkNotEmpty(name: string, x: Tensor, axes?: Axes): void {
  checkTensor(name, x)
  if (checkAxes(name, axes, x.ndim).some((axis) => x.shape[axis] === 0)) {
    throw new ShapeError(`${name}: expected axes that are not empty, got ${showShape(x.shape)}`)
  }
}

/** The largest elements over axes (default all); NaN wins. Ties share the gradient. */
export function amax(x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor {
  checkNotEmpty('amax', x, axes)
  return reduce('amax', x, axes, options)
}

/** The smallest elements over axes (default all); NaN wins. Ties share the gradient. */
export function amin(x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor {
  checkNotEmpty('amin', x, axes)
  return reduce('amin', x, axes, options)
}

/** Whether any element is not 0, over axes (default all). */
export function any(x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor {
  return reduce('any', x, axes, options)
}

/** Whether all elements are not 0, over axes (default all). */
export function all(x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor {
  return reduce('all', x, axes, options)
}

interface ArgAttrs {
  readonly axis: number
  readonly keepdim: boolean
}

function argOp(name: ArgOpcode): Op<ArgAttrs> {
  return defineOp<ArgAttrs>()({
    name,
    inputs: ['x'],
    run: ([x], { axis, keepdim }) => {
      const shape = keepdim ? keptShape(x.shape, [axis]) : droppedShape(x.shape, [axis])
      const y = Tensor.pending(x.device, 'int64', shape)
      const { calls } = x.device
      calls
        .begin('argReduce')
        .input(x)
        .outputAs(y, keptShape(x.shape, [axis]))
      calls.number(argCodes[name]).number(axis).run()
      return y
    },
    gradient: null,
    samples: null,
  })
}

const argOps = { argmax: argOp('argmax'), argmin: argOp('argmin') }

function argReduce(name: ArgOpcode, x: Tensor, axis?: number, options: ReduceOptions = {}): Tensor {
  checkTensor(name, x)
  checkOptions(name, options)
  const input = axis === undefined || x.ndim === 0 ? reshape(x, [x.numel]) : x
  const at = axis === undefined ? 0 : checkAxis(name, axis, x.ndim)
  checkNotEmpty(name, input, [at])
  const y = apply(argOps[name], [input], { axis: at, keepdim: options.keepdim ?? false })
  if (x.ndim === 0) return reshape(y, [])
  // With no axis given, all of them are kept.
  return axis === undefined && options.keepdim ? reshape(y, new Array(x.ndim).fill(1)) : y
}

/** The index (int64) of the first largest element along an axis, or of all in row-major order. */
export function argmax(x: Tensor, axis?: number, options: ReduceOptions = {}): Tensor {
  return argReduce('argmax', x, axis, options)
}

/** The index (int64) of the first smallest element along an axis, or of all. */
export function argmin(x: Tensor, axis?: number, options: ReduceOptions = {}): Tensor {
  return argReduce('argmin', x, axis, options)
}

/** Values and their indices along an axis. */
export interface ValuesAndIndices {
  readonly values: Tensor
  readonly indices: Tensor
}

function extremeAlong(
  name: ArgOpcode,
  x: Tensor,
  axis: number,
  options: ReduceOptions,
): ValuesAndIndices {
  checkOptions(name, options)
  const at = checkAxis(name, axis, checkTensor(name, x).ndim)
  const indices = argReduce(name, x, at, { keepdim: true })
  const values = gather(x, at, indices)
  if (options.keepdim) return { values, indices }
  return { values: squeeze(values, at), indices: squeeze(indices, at) }
}

export function max(x: Tensor): Tensor
export function max(x: Tensor, axis: number, options?: ReduceOptions): ValuesAndIndices
/** The largest element, or along an axis the largest ones with their indices. */
export function max(
  x: Tensor,
  axis?: number,
  options: ReduceOptions = {},
): Tensor | ValuesAndIndices {
  return axis === undefined ? amax(x) : extremeAlong('argmax', x, axis, options)
}

export function min(x: Tensor): Tensor
export function min(x: Tensor, axis: number, options?: ReduceOptions): ValuesAndIndices
/** The smallest element, or along an axis the smallest ones with their indices. */
export function min(
  x: Tensor,
  axis?: number,
  options: ReduceOptions = {},
): Tensor | ValuesAndIndices {
  return axis === undefined ? amin(x) : extremeAlong('argmin', x, axis, options)
}

export interface VarianceOptions extends ReduceOptions {
  /** Subtracted from the count in the divisor; default 1 (Bessel). */
  correction?: number
}

/** Variances over axes (default all): sum((x - mean)²) / max(0, n - correction). */
export function variance(x: Tensor, axes?: Axes, options: VarianceOptions = {}): Tensor {
  checkOptions('var', options)
  const reduced = checkAxes('var', axes, checkTensor('var', x).ndim)
  if (category(x.dtype) !== 2) {
    throw new DTypeError(`var: expected a floating dtype, got ${x.dtype}; convert it first`)
  }
  const { correction = 1 } = options
  if (typeof correction !== 'number') {
    throw new ArgumentError(`var: expected correction to be a number, got ${describe(correction)}`)
  }
  const n = numelOf(reduced.map((axis) => x.shape[axis]))
  // One op for autocast, not those that it is made of.
  return withoutAutocast(() => {
    const centered = binary('sub', x, mean(x, reduced, { keepdim: true }))
    const total = sum(unary('square', centered), reduced, { keepdim: options.keepdim })
    return binary('div', total, Math.max(0, n - correction))
  })
}

/** Standard deviations over axes (default all). */
export function std(x: Tensor, axes?: Axes, options: VarianceOptions = {}): Tensor {
  return root(variance(x, axes, options), 2)
}

/** The p-th root of sums of powers, whose gradient at 0 is taken as 0, as PyTorch does. */
const rootOp = defineOp<{ p: number }>()({
  name: 'root',
  inputs: ['x'],
  run: ([x], { p }) =>
    p === 2 ? unaryOps.sqrt.run([x], undefined, null) : computeBinary('pow', x, 1 / p),
  // y / (p x), 0 where y = 0
  gradient: {
    x: from(['x', 'y'], ({ dy, x, y, attrs: { p } }) => {
      const vanishes = binary('eq', y, 0)
      const slope = binary('div', y, binary('mul', where(vanishes, 1, x), p))
      return binary('mul', dy, slope)
    }),
  },
  samples: (s) => [
    { inputs: [s.uniform([2, 3], 0.3, 3)], attrs: { p: 2 } },
    { inputs: [s.uniform([3], 0.3, 3)], attrs: { p: 3 } },
  ],
})

function root(x: Tensor, p: number): Tensor {
  return apply(rootOp, [x], { p })
}

/** log(sum(exp(x))) over axes (default all), without overflow. */
export function logSumExp(x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor {
  checkOptions('logSumExp', options)
  const reduced = checkAxes('logSumExp', axes, checkTensor('logSumExp', x).ndim)
  const isEmpty = reduced.some((axis) => x.shape[axis] === 0)
  const peak = isEmpty ? 0 : amax(x.detach(), reduced, { keepdim: true })
  const shift = isEmpty ? 0 : where(unary('isfinite', peak as Tensor), peak, 0)
  const total = sum(unary('exp', binary('sub', x, shift)), reduced, { keepdim: true })
  const y = binary('add', unary('log', total), shift)
  return options.keepdim ? y : reshape(y, droppedShape(x.shape, reduced))
}

/** The Euclidean norm over axes (default all), or the p-norm; p = 0 counts what is not 0. */
export function norm(x: Tensor, p = 2, axes?: Axes, options: ReduceOptions = {}): Tensor {
  checkOptions('norm', options)
  if (category(checkTensor('norm', x).dtype) !== 2) {
    throw new DTypeError(`norm: expected a floating dtype, got ${x.dtype}; convert it first`)
  }
  if (typeof p !== 'number' || Number.isNaN(p)) {
    throw new ArgumentError(`norm: expected p to be a number, got ${describe(p)}`)
  }
  const isSumOfPowers = p !== 0 && Number.isFinite(p)
  if (isSumOfPowers && (x.dtype === 'float16' || x.dtype === 'bfloat16')) {
    // Powers and their sums leave the range of float16 where the norm does not.
    const y = norm(cast(x, 'float32'), p, axes, options)
    return autocastTo('float32 on cuda', [x])[0] === x ? cast(y, x.dtype) : y
  }
  if (p === 2) return root(sum(unary('square', x), axes, options), 2)
  const magnitude = unary('abs', x)
  if (p === Infinity) return amax(magnitude, axes, options)
  if (p === -Infinity) return amin(magnitude, axes, options)
  if (p === 0) return sum(cast(binary('ne', x, 0), x.dtype), axes, options)
  const total = sum(p === 1 ? magnitude : binary('pow', magnitude, p), axes, options)
  return p === 1 ? total : root(total, p)
}

/** Sums a gradient over the axes along which a value of `shape` was broadcast. */
export function sumTo(g: Tensor, shape: Shape): Tensor {
  const lead = g.ndim - shape.length
  const axes = g.shape
    .map((_, axis) => axis)
    .filter((axis) => {
      const own = axis - lead
      return own < 0 || (shape[own] === 1 && g.shape[axis] !== 1)
    })
  if (axes.length === 0) return reshape(g, shape)
  const keepdim = axes.length > lead
  const total = runSum(g, { axes, keepdim })
  // A sum over leading axes alone has its shape; a view of it could not be handed over as it is.
  return keepdim ? reshape(total, shape) : total
}
