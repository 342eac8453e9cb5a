import { ArgumentError, describe, IndexError, ShapeError } from './errors.js'

export type Shape = readonly number[]

/** Most axes of a tensor (`kMaxDims` of `native/shared/view.h`). */
export const MAX_DIMS = 8

export function showShape(shape: Shape): string {
  return `[${shape.join(', ')}]`
}

export function numelOf(shape: Shape): number {
  let n = 1
  for (let i = 0; i < shape.length; i++) n *= shape[i]
  return n
}

export function sameShape(a: Shape, b: Shape): boolean {
  if (a === b) return true
  if (a.length !== b.length) return false
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false
  return true
}

/** A shape and its row-major strides, in elements. */
export interface Layout {
  readonly shape: Shape
  readonly strides: Shape
  /** The strides of images with their channels last, once they were asked for. */
  channelsLast: Shape | null
}

/** Those asked for last, each at a place that its sizes choose. */
const RECENT = 64
const recent = new Array<Layout>(RECENT).fill({
  shape: [-1],
  strides: [1],
  channelsLast: null,
})

/**
 * The row-major layout of a shape. Tensors of one shape share its arrays, so that the collector finds
 * one object where it would find five.
 */
export function rowMajor(shape: Shape): Layout {
  let hash = shape.length
  for (let i = 0; i < shape.length; i++) hash = (Math.imul(hash, 31) + shape[i]) | 0
  const place = hash & (RECENT - 1)
  const known = recent[place]
  if (sameShape(known.shape, shape)) return known
  const strides = new Array<number>(shape.length)
  let next = 1
  for (let i = shape.length - 1; i >= 0; i--) {
    strides[i] = next
    next *= Math.max(shape[i], 1)
  }
  recent[place] = { shape: [...shape], strides, channelsLast: null }
  return recent[place]
}

/** Row-major strides, in elements. */
export function contiguousStrides(shape: Shape): Shape {
  return rowMajor(shape).strides
}

/**
 * Strides of images [N, C, H, W] whose channels are innermost in memory: in the order N, H, W, C.
 * Row-major where that is the same: one channel, one pixel, or no element.
 */
export function channelsLastStrides(shape: Shape): Shape {
  const layout = rowMajor(shape)
  const [n, c, h, w] = shape
  const isSame = c === 1 || h * w === 1 || n * c * h * w === 0
  layout.channelsLast ??= isSame ? layout.strides : [h * w * c, 1, w * c, c]
  return layout.channelsLast
}

/** Whether images lie so, without gaps; false where it is the same as row-major. */
export function isChannelsLast(shape: Shape, strides: Shape): boolean {
  if (shape.length !== 4 || strides[1] !== 1) return false
  const expected = channelsLastStrides(shape)
  if (expected[1] !== 1 || expected[3] === 1) return false
  return strides.every((stride, axis) => stride === expected[axis] || shape[axis] === 1)
}

export function isContiguous(shape: Shape, strides: Shape): boolean {
  let expected = 1
  for (let i = shape.length - 1; i >= 0; i--) {
    const size = shape[i]
    if (size === 0) return true
    if (size === 1) continue
    if (strides[i] !== expected) return false
    expected *= size
  }
  return true
}

/** Checks a shape given by a user and returns a copy of it. */
export function checkShape(op: string, shape: unknown): number[] {
  if (!Array.isArray(shape)) {
    throw new ShapeError(`${op}: expected a shape as an array of sizes, got ${describe(shape)}`)
  }
  if (shape.length > MAX_DIMS) {
    throw new ShapeError(`${op}: expected at most ${MAX_DIMS} axes, got ${shape.length}`)
  }
  let n = 1
  const checked = shape.map((size: unknown) => {
    if (!Number.isSafeInteger(size) || (size as number) < 0) {
      throw new ShapeError(
        `${op}: expected sizes that are whole numbers of 0 or more, got ${describe(shape)}`,
      )
    }
    n *= Math.max(size as number, 1)
    return size as number
  })
  if (n > Number.MAX_SAFE_INTEGER) {
    throw new ShapeError(`${op}: expected at most 2^53 elements, got ${describe(shape)}`)
  }
  return checked
}

/** An axis from -ndim to ndim - 1, made non-negative. */
export function checkAxis(op: string, axis: unknown, ndim: number): number {
  const range = Math.max(ndim, 1)
  if (!Number.isInteger(axis) || (axis as number) < -range || (axis as number) >= range) {
    throw new IndexError(
      `${op}: expected an axis from ${-range} to ${range - 1}, got ${describe(axis)}`,
    )
  }
  const a = axis as number
  return a < 0 ? a + range : a
}

/** Axes given as one, several or none (all of them); sorted, each once. */
export function checkAxes(
  op: string,
  axes: number | readonly number[] | null | undefined,
  ndim: number,
): number[] {
  if (axes === undefined || axes === null) return Array.from({ length: ndim }, (_, i) => i)
  const list = typeof axes === 'number' ? [axes] : axes
  if (!Array.isArray(list)) {
    throw new ArgumentError(`${op}: expected an axis or a list of axes, got ${describe(axes)}`)
  }
  const checked = list.map((axis) => checkAxis(op, axis, ndim)).filter((axis) => axis < ndim)
  if (new Set(checked).size !== checked.length) {
    throw new ArgumentError(`${op}: expected each axis once, got ${describe(axes)}`)
  }
  return checked.sort((a, b) => a - b)
}

/** The shape that both are broadcast to: aligned at the right, sizes equal or 1. */
export function broadcastShapes(op: string, a: Shape, b: Shape): Shape {
  if (b.length === 0 || sameShape(a, b)) return a
  if (a.length === 0) return b
  const ndim = Math.max(a.length, b.length)
  const out = new Array<number>(ndim)
  for (let i = 1; i <= ndim; i++) {
    const x = i <= a.length ? a[a.length - i] : 1
    const y = i <= b.length ? b[b.length - i] : 1
    if (x !== y && x !== 1 && y !== 1) {
      throw new ShapeError(
        `${op}: expected shapes that broadcast, got ${showShape(a)} and ${showShape(b)}`,
      )
    }
    out[ndim - i] = x === 1 ? y : x
  }
  return out
}
