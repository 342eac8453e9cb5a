import { isFloating } from '../core/dtype.js'
import {
  ArgumentError,
  checkNumber,
  checkOptions,
  DTypeError,
  describe,
  ShapeError,
} from '../core/errors.js'
import type { Generator } from '../core/generator.js'
import { noGrad } from '../core/grad-mode.js'
import { checkShape, numelOf, type Shape, showShape } from '../core/shape.js'
import { checkTensor, type Tensor } from '../core/tensor.js'
import { eye, normal, type RandomOptions, tensor, uniform, where } from '../ops/index.js'

// Every function here overwrites a tensor in place, without recording it, and returns the tensor.

export interface InitOptions {
  /** Default: the device's own, which `manualSeed` seeds. */
  generator?: Generator
}

function overwrite(t: Tensor, make: () => Tensor): Tensor {
  return noGrad(() => {
    const values = make()
    t.copy_(values)
    values.dispose()
    return t
  })
}

function checkFloating(op: string, t: Tensor): void {
  if (!isFloating(checkTensor(op, t).dtype)) {
    throw new DTypeError(`${op}: expected a floating tensor, got ${t.dtype}`)
  }
}

function like(t: Tensor, options: InitOptions): RandomOptions {
  checkOptions('init', options)
  return { dtype: t.dtype, device: t.device, generator: options.generator }
}

/** Uniform numbers in [low, high). */
export function uniform_(t: Tensor, low = 0, high = 1, options: InitOptions = {}): Tensor {
  checkFloating('uniform_', t)
  return overwrite(t, () => uniform(t.shape, low, high, like(t, options)))
}

/** Normal numbers. */
export function normal_(t: Tensor, mean = 0, std = 1, options: InitOptions = {}): Tensor {
  checkFloating('normal_', t)
  return overwrite(t, () => normal(t.shape, mean, std, like(t, options)))
}

export function constant_(t: Tensor, value: number): Tensor {
  return noGrad(() => checkTensor('constant_', t).fill_(value))
}

export function zeros_(t: Tensor): Tensor {
  return constant_(t, 0)
}

export function ones_(t: Tensor): Tensor {
  return constant_(t, 1)
}

// Beyond this many deviations from the mean hardly any number would be accepted.
const FARTHEST = 4

/**
 * Normal numbers of a mean and a deviation in [low, high]. Where that is wide, normal numbers are
 * drawn again until they lie there. Where it is narrower than a deviation hardly any would, so
 * uniform numbers are drawn, and kept with probability exp((n² - z²) / 2): z is a number's distance
 * from the mean in deviations, n that of the nearest one.
 */
export function truncNormal_(
  t: Tensor,
  mean = 0,
  std = 1,
  low = -2,
  high = 2,
  options: InitOptions = {},
): Tensor {
  checkFloating('truncNormal_', t)
  checkNumber('truncNormal_', 'mean', mean)
  checkNumber('truncNormal_', 'std', std)
  const far = FARTHEST * std
  const isRange = typeof low === 'number' && typeof high === 'number' && low < high
  if (!(std > 0 && isRange && low < mean + far && high > mean - far)) {
    throw new ArgumentError(
      `truncNormal_: expected std > 0 and low < high within ${FARTHEST} deviations of the mean, ` +
        `got mean ${mean}, std ${std} and ${describe([low, high])}`,
    )
  }
  const place = like(t, options)
  const isNarrow = high - low < std
  const nearest = Math.max(low - mean, mean - high, 0) / std
  const draw = () =>
    isNarrow ? uniform(t.shape, low, high, place) : normal(t.shape, mean, std, place)
  const refused = (values: Tensor): Tensor => {
    if (!isNarrow) return values.lt(low).logicalOr(values.gt(high))
    const kept = values
      .sub(mean)
      .div(std)
      .square()
      .neg()
      .add(nearest ** 2)
      .div(2)
      .exp()
    return uniform(t.shape, 0, 1, place).gt(kept)
  }
  return overwrite(t, () => {
    let values = draw()
    let again = refused(values)
    while (again.any().item() !== 0) {
      values = where(again, draw(), values)
      again = again.logicalAnd(refused(values))
    }
    return values
  })
}

/** Which layers' outputs or gradients keep their variance. */
export type FanMode = 'fanIn' | 'fanOut'

export type Nonlinearity = 'linear' | 'sigmoid' | 'tanh' | 'relu' | 'leakyRelu' | 'selu'

/** The factor by which a nonlinearity's weights are scaled; `slope` is that of leakyRelu. */
export function calculateGain(nonlinearity: Nonlinearity, slope = 0.01): number {
  checkNumber('calculateGain', 'slope', slope)
  switch (nonlinearity) {
    case 'linear':
    case 'sigmoid':
      return 1
    case 'tanh':
      return 5 / 3
    case 'relu':
      return Math.SQRT2
    case 'leakyRelu':
      return Math.sqrt(2 / (1 + slope ** 2))
    case 'selu':
      return 3 / 4
    default:
      throw new ArgumentError(
        `calculateGain: expected a known nonlinearity, got ${describe(nonlinearity)}`,
      )
  }
}

/** How many numbers an output is made of, and an input goes to: weights [out, in, ..]. */
export function calculateFans(shape: Shape): { fanIn: number; fanOut: number } {
  checkShape('init', shape)
  if (shape.length < 2) {
    throw new ShapeError(`init: expected weights of two axes or more, got ${showShape(shape)}`)
  }
  const field = numelOf(shape.slice(2))
  return { fanIn: shape[1] * field, fanOut: shape[0] * field }
}

export interface KaimingOptions extends InitOptions {
  /** Slope of leakyRelu below 0; default 0. */
  a?: number
  /** Default 'fanIn', which keeps the variance of outputs. */
  mode?: FanMode
  /** Default 'leakyRelu'. */
  nonlinearity?: Nonlinearity
}

// std = gain / √fan (He et al. 2015)
function kaimingStd(t: Tensor, options: KaimingOptions): number {
  checkOptions('init', options)
  const { a = 0, mode = 'fanIn', nonlinearity = 'leakyRelu' } = options
  if (mode !== 'fanIn' && mode !== 'fanOut') {
    throw new ArgumentError(`init: expected mode 'fanIn' or 'fanOut', got ${describe(mode)}`)
  }
  const fan = calculateFans(checkTensor('init', t).shape)[mode]
  return fan === 0 ? 0 : calculateGain(nonlinearity, a) / Math.sqrt(fan)
}

/** Uniform in ±gain √(3 / fan). */
export function kaimingUniform_(t: Tensor, options: KaimingOptions = {}): Tensor {
  const bound = Math.sqrt(3) * kaimingStd(t, options)
  return uniform_(t, -bound, bound, options)
}

/** Normal of deviation gain / √fan. */
export function kaimingNormal_(t: Tensor, options: KaimingOptions = {}): Tensor {
  return normal_(t, 0, kaimingStd(t, options), options)
}

// std = gain √(2 / (fanIn + fanOut)) (Glorot & Bengio 2010)
function xavierStd(t: Tensor, gain: number): number {
  checkNumber('init', 'gain', gain)
  const { fanIn, fanOut } = calculateFans(checkTensor('init', t).shape)
  return gain * Math.sqrt(2 / Math.max(fanIn + fanOut, 1))
}

/** Uniform in ±gain √(6 / (fanIn + fanOut)). */
export function xavierUniform_(t: Tensor, gain = 1, options: InitOptions = {}): Tensor {
  const bound = Math.sqrt(3) * xavierStd(t, gain)
  return uniform_(t, -bound, bound, options)
}

/** Normal of deviation gain √(2 / (fanIn + fanOut)). */
export function xavierNormal_(t: Tensor, gain = 1, options: InitOptions = {}): Tensor {
  return normal_(t, 0, xavierStd(t, gain), options)
}

/** Ones on the diagonal of a matrix, zeros elsewhere. */
export function eye_(t: Tensor): Tensor {
  if (checkTensor('eye_', t).ndim !== 2)
    throw new ShapeError(`eye_: expected a matrix, got ${showShape(t.shape)}`)
  return overwrite(t, () => eye(t.shape[0], t.shape[1], { dtype: t.dtype, device: t.device }))
}

/**
 * Rows (or, where there are more rows than columns, columns) of length `gain` at right angles; axes
 * after the first are taken together (Saxe et al. 2014).
 */
export function orthogonal_(t: Tensor, gain = 1, options: InitOptions = {}): Tensor {
  checkFloating('orthogonal_', t)
  if (t.ndim < 2) {
    throw new ShapeError(`orthogonal_: expected two axes or more, got ${showShape(t.shape)}`)
  }
  const rows = t.shape[0]
  const columns = numelOf(t.shape.slice(1))
  const [count, length] = [Math.min(rows, columns), Math.max(rows, columns)]
  return overwrite(t, () => {
    const drawn = normal([count, length], 0, 1, { ...like(t, options), dtype: 'float64' })
    const vectors = orthonormalised(drawn.dataSync() as Float64Array, count, length)
    const matrix = tensor(vectors, { shape: [count, length], device: t.device }).mul(gain)
    return (rows > columns ? matrix.t() : matrix).reshape(t.shape)
  })
}

/** Gram-Schmidt, twice, which is enough for full precision; `v` has `count` rows. */
function orthonormalised(v: Float64Array, count: number, length: number): Float64Array {
  const row = (i: number) => v.subarray(i * length, (i + 1) * length)
  for (let i = 0; i < count; i++) {
    const a = row(i)
    for (let pass = 0; pass < 2; pass++) {
      for (let j = 0; j < i; j++) {
        const b = row(j)
        let dot = 0
        for (let k = 0; k < length; k++) dot += a[k] * b[k]
        for (let k = 0; k < length; k++) a[k] -= dot * b[k]
      }
    }
    let square = 0
    for (let k = 0; k < length; k++) square += a[k] * a[k]
    const norm = Math.sqrt(square)
    for (let k = 0; k < length; k++) a[k] /= norm
  }
  return v
}
