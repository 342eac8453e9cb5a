import type { DType } from './dtype.js'
import type { Shape } from './shape.js'
import type { ValueInfo } from './tape.js'
import type { Tensor } from './tensor.js'

/** A flat description of a view relative to its base, in elements of the storage. */
export interface Geometry {
  readonly shape: Shape
  readonly strides: Shape
  readonly offset: number
}

export function geometryOf(t: Tensor): Geometry {
  return { shape: t.shape, strides: t.strides, offset: t.offset }
}

/**
 * The functions of `ops` that the engine needs; `core` does not import `ops`, they are handed in
 * when it loads.
 */
export interface EngineOps {
  add(a: Tensor, b: Tensor): Tensor
  addInPlace(a: Tensor, b: Tensor): void
  /** Sums a gradient to the shape that was broadcast. */
  sumTo(g: Tensor, shape: Shape): Tensor
  cast(t: Tensor, dtype: DType): Tensor
  clone(t: Tensor): Tensor
  ones(like: ValueInfo): Tensor
  zeros(like: ValueInfo): Tensor
  /** A view of a base, by geometry; its gradient scatters into the base's. */
  asStrided(base: Tensor, view: Geometry): Tensor
  /** The part of a gradient of the base that belongs to the view. */
  takeSlice(g: Tensor, base: Geometry, view: Geometry): Tensor
  /** `g` with the part that belongs to the view replaced. */
  putSlice(g: Tensor, part: Tensor, base: Geometry, view: Geometry): Tensor
}

export let engineOps: EngineOps
export function setEngineOps(ops: EngineOps): void {
  engineOps = ops
}
