import { ArgumentError, describe, ShapeError } from '../core/errors.js'
import { showShape } from '../core/shape.js'
import { checkTensor, type Tensor } from '../core/tensor.js'
import { reshape } from './views.js'

/** One number for both spatial axes, or one for each. */
export type Pair = number | readonly [h: number, w: number]

/** Height and width. */
export type HW = readonly [h: number, w: number]

const LARGEST = 2 ** 31 - 1

/** A pair of whole numbers of `least` or more; `fallback` where none is given. */
export function checkPair(
  op: string,
  name: string,
  value: unknown,
  least: number,
  fallback?: Pair,
): HW {
  if (value === undefined && fallback !== undefined) return checkPair(op, name, fallback, least)
  const pair: unknown = typeof value === 'number' ? [value, value] : value
  const fits = (v: unknown) => Number.isInteger(v) && Number(v) >= least && Number(v) <= LARGEST
  if (!Array.isArray(pair) || pair.length !== 2 || !pair.every(fits)) {
    throw new ArgumentError(
      `${op}: expected ${name} as a whole number from ${least} to 2^31 - 1, or two of them, got ` +
        describe(value),
    )
  }
  return [pair[0], pair[1]]
}

/** How many positions a dilated window has along an axis of `size`; 0 or less where it has none. */
export function windowCount(
  size: number,
  window: number,
  stride: number,
  padding: number,
  dilation: number,
): number {
  return Math.floor((size + 2 * padding - dilation * (window - 1) - 1) / stride) + 1
}

/** x [N, C, H, W]; a single image [C, H, W] gets its batch axis. */
export function toBatch(op: string, x: Tensor): Tensor {
  if (checkTensor(op, x).ndim === 4) return x
  if (x.ndim !== 3) {
    throw new ShapeError(
      `${op}: expected x of shape [N, C, H, W] or [C, H, W], got ${showShape(x.shape)}`,
    )
  }
  return reshape(x, [1, ...x.shape])
}

/** A result for a batch, without the batch axis where x had none. */
export function fromBatch(y: Tensor, x: Tensor): Tensor {
  return x.ndim === 4 ? y : reshape(y, y.shape.slice(1))
}
