import * as autograd from '../core/autograd.js'
import type { BackwardOptions } from '../core/backward.js'
import { type DeviceLike, device as findDevice } from '../core/device.js'
import { type DType, dtypeCodes } from '../core/dtype.js'
import { setEngineOps } from '../core/engine-ops.js'
import { ArgumentError, describe } from '../core/errors.js'
import type { TensorHook } from '../core/tape.js'
import { Tensor } from '../core/tensor.js'
import {
  binaryFunctions,
  binaryTwins,
  clamp,
  frac,
  isclose,
  unaryFunctions,
  unaryTwins,
} from './arithmetic.js'
import { putSlice, takeSlice, viewOfBase } from './as-strided.js'
import * as copies from './copy.js'
import { ones, zeros } from './creation.js'
import * as indexing from './indexing.js'
import { matmul } from './matmul.js'
import * as reductions from './reduce.js'
import { logSoftmax, softmax } from './softmax.js'
import * as splits from './split.js'
import * as views from './views.js'

/**
 * To a dtype, a device, or both; itself where nothing changes. Gradients flow back. A copy to a GPU
 * never waits for it, and what is changed afterwards does not reach it, with `nonBlocking`
 * (PyTorch's) or without.
 */
function to(
  x: Tensor,
  target: DType | DeviceLike | { dtype?: DType; device?: DeviceLike; nonBlocking?: boolean },
): Tensor {
  if (typeof target === 'string') {
    return target in dtypeCodes
      ? copies.cast(x, target as DType)
      : copies.toDevice(x, findDevice(target))
  }
  if (typeof target !== 'object' || target === null) {
    throw new ArgumentError(`to: expected a dtype or a device, got ${describe(target)}`)
  }
  if ('native' in target) return copies.toDevice(x, target)
  const moved = target.device === undefined ? x : copies.toDevice(x, findDevice(target.device))
  return target.dtype === undefined ? moved : copies.cast(moved, target.dtype)
}

/**
 * Functions that are methods too: `f(x, …)` is `x.f(…)`. The one table by which ops reach the
 * Tensor class, which knows nothing of them.
 */
const methods = {
  ...unaryFunctions,
  ...unaryTwins,
  ...binaryFunctions,
  ...binaryTwins,
  clamp,
  frac,
  isclose,
  reshape: views.reshape,
  view: views.view,
  flatten: views.flatten,
  unsqueeze: views.unsqueeze,
  squeeze: views.squeeze,
  permute: views.permute,
  transpose: views.transpose,
  t: views.t,
  expand: views.expand,
  slice: views.slice,
  select: views.select,
  narrow: views.narrow,
  split: splits.split,
  chunk: splits.chunk,
  unbind: splits.unbind,
  sum: reductions.sum,
  mean: reductions.mean,
  prod: reductions.prod,
  amax: reductions.amax,
  amin: reductions.amin,
  any: reductions.any,
  all: reductions.all,
  argmax: reductions.argmax,
  argmin: reductions.argmin,
  var: reductions.variance,
  std: reductions.std,
  norm: reductions.norm,
  logSumExp: reductions.logSumExp,
  softmax,
  logSoftmax,
  matmul,
  gather: indexing.gather,
  scatterAdd: indexing.scatterAdd,
  indexSelect: indexing.indexSelect,
  index: indexing.index,
  clone: copies.clone,
  contiguous: copies.contiguous,
  pinMemory: copies.pinMemory,
  copy_: copies.copyInPlace,
  fill_: copies.fillInPlace,
  zero_: (x: Tensor) => copies.fillInPlace(x, 0),
  to,
  float: (x: Tensor) => copies.cast(x, 'float32'),
  double: (x: Tensor) => copies.cast(x, 'float64'),
  half: (x: Tensor) => copies.cast(x, 'float16'),
  bfloat16: (x: Tensor) => copies.cast(x, 'bfloat16'),
  long: (x: Tensor) => copies.cast(x, 'int64'),
  int: (x: Tensor) => copies.cast(x, 'int32'),
  bool: (x: Tensor) => copies.cast(x, 'bool'),
  detach: autograd.detach,
  requiresGrad_: autograd.requiresGrad_,
  retainGrad: autograd.retainGrad,
  registerHook: (x: Tensor, hook: TensorHook) => autograd.registerHook(x, hook),
  backward: (x: Tensor, gradient?: Tensor | null, options?: BackwardOptions) =>
    autograd.backward(x, gradient, options),
}

type Method<F> = F extends (x: Tensor, ...rest: infer R) => infer Y ? (...rest: R) => Y : never
type Methods = { [Name in keyof typeof methods]: Method<(typeof methods)[Name]> }

declare module '../core/tensor.js' {
  interface Tensor extends Methods {
    /** The largest element, or along an axis the largest ones with their indices. */
    max(): Tensor
    max(axis: number, options?: reductions.ReduceOptions): reductions.ValuesAndIndices
    /** The smallest element, or along an axis the smallest ones with their indices. */
    min(): Tensor
    min(axis: number, options?: reductions.ReduceOptions): reductions.ValuesAndIndices
  }
}

function attach(name: string, f: (x: Tensor, ...rest: never[]) => unknown): void {
  const call = f as (...values: unknown[]) => unknown
  // Fixed parameters: cheaper on the hot path than a rest array.
  const method =
    f === (indexing.index as unknown)
      ? function (this: Tensor, ...rest: unknown[]) {
          return call(this, ...rest)
        }
      : function (this: Tensor, a: unknown, b: unknown, c: unknown, d: unknown) {
          return call(this, a, b, c, d)
        }
  Object.defineProperty(Tensor.prototype, name, {
    value: method,
    writable: true,
    configurable: true,
  })
}

for (const [name, f] of Object.entries(methods)) attach(name, f as never)
attach('max', reductions.max as never)
attach('min', reductions.min as never)

setEngineOps({
  add: (a, b) => a.add(b),
  addInPlace: (a, b) => void a.add_(b),
  sumTo: reductions.sumTo,
  cast: copies.cast,
  clone: copies.clone,
  ones: (like) => ones(like.shape, { dtype: like.dtype, device: like.device }),
  zeros: (like) => zeros(like.shape, { dtype: like.dtype, device: like.device }),
  asStrided: viewOfBase,
  takeSlice,
  putSlice,
})
