import { describe, expect, test } from 'vitest'
import { apply, applyAll } from '../../src/core/apply.js'
import { isFloating } from '../../src/core/dtype.js'
import { applyInPlace } from '../../src/core/in-place.js'
import { registry, type Value } from '../../src/core/op.js'
import {
  type Device,
  device,
  type FloatDType,
  grad,
  manualSeed,
  type Tensor,
} from '../../src/index.js'
import { expectWithin } from '../support/accuracy.js'
import { testCuda } from '../support/cuda.js'
import { strided } from '../support/gradcheck.js'
import { type AnyOp, type Case, casesOf, fitsInPlace, needsDense } from '../support/op-cases.js'
import { loadAllOps } from '../support/rooms.js'

await loadAllOps()

const cpu = device('cpu')
const cuda = testCuda()
const dtypes: readonly FloatDType[] = ['float64', 'float32', 'bfloat16', 'float16']

/** How far from the exact result, in roundings of the dtype: half types compute in float32. */
const roundings: Record<FloatDType, number> = {
  float64: 8,
  float32: 8,
  bfloat16: 2,
  float16: 2,
}

/** The same for gradients, whose sums may cancel. */
const gradientRoundings: Record<FloatDType, number> = {
  float64: 128,
  float32: 128,
  bfloat16: 16,
  float16: 16,
}

/** What kernels keep in the dtype that they compute in: float32 for half types. */
const kept = new Set(['mean', 'rstd', 'lse', 'rate', 'gates', 'cells'])

/** Of these, what depends on values that were rounded to the dtype on the way, as h at each step. */
const rounded = new Set(['gates', 'cells'])

/** The inputs of a case in a dtype. */
function inputsIn(c: Case, dtype: FloatDType): (Value | null)[] {
  return c.sample.inputs.map((x, i) => {
    if (typeof x !== 'object' || x === null || !isFloating(x.dtype)) return x
    const wide = dtype === 'float64' ? 'float64' : 'float32'
    return x.to(kept.has(c.op.inputs[i]) ? wide : dtype)
  })
}

const map = (inputs: readonly (Value | null)[], f: (x: Tensor) => Tensor) =>
  inputs.map((x) => (typeof x === 'object' && x !== null ? f(x) : x))

/** What a backend leaves for its own backward pass, as it likes: the gradients tell if it is right. */
const ownAffairs = new Set(['kept'])

/** Ops whose random numbers depend on the dtype: they are compared in it. */
const random = new Set(['dropout', 'dropoutBackward'])

const exactly =
  ({ op }: Case) =>
  (x: Tensor) =>
    isFloating(x.dtype) && !random.has(op.name) ? x.to('float64') : x

function run({ op, sample }: Case, inputs: readonly (Value | null)[], at: Device): Tensor[] {
  manualSeed(1, at)
  const attrs = op.name === 'toDevice' ? { device: at } : sample.attrs
  return op.outputs.length === 1 && op.differentiable === 1
    ? [apply(op, inputs, attrs)]
    : applyAll(op, inputs, attrs)
}

/** The gradients of the sum of squares of an op's outputs, as far as the tape has any. */
function gradients(c: Case, inputs: readonly (Value | null)[], at: Device): (Tensor | null)[] {
  const leaves = c.places.map((place) => (inputs[place] as Tensor).detach().requiresGrad_())
  const all = [...inputs]
  c.places.forEach((place, i) => {
    all[place] = leaves[i]
  })
  const outputs = run(c, all, at).filter((y) => y.requiresGrad)
  if (outputs.length === 0) return []
  return grad(outputs, leaves, { gradOutputs: outputs.map((y) => y.detach()), allowUnused: true })
}

/** The same elements with odd strides, on the device. */
function stridedThere(x: Tensor): Tensor {
  const { dense, view } = strided(x.to('float64'))
  return view(dense.to(x.dtype).to(cuda))
}

/** The same elements on the device, images with the channels innermost in memory. */
function channelsLastThere(x: Tensor): Tensor {
  const there = x.to(cuda)
  if (x.ndim !== 4) return there
  return there.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

function compare(c: Case, dtype: FloatDType, there: (x: Tensor) => Tensor, what: string): Tensor[] {
  const inputs = inputsIn(c, dtype)
  const want = run(c, map(inputs, exactly(c)), cpu)
  const got = run(c, map(inputs, there), cuda)
  expect(got.length).toBe(want.length)
  got.forEach((y, i) => {
    expect(y.device).toBe(cuda)
    const name = c.op.outputs[i] ?? String(i)
    if (ownAffairs.has(name)) return
    expectWithin(
      y,
      want[i],
      roundings[y.dtype as FloatDType],
      `${what} ${name}`,
      rounded.has(name) ? dtype : 'float64',
    )
  })
  return got
}

function compareGradients(
  c: Case,
  dtype: FloatDType,
  there: (x: Tensor) => Tensor,
  what: string,
): void {
  const inputs = inputsIn(c, dtype)
  const want = gradients(c, map(inputs, exactly(c)), cpu)
  const got = gradients(c, map(inputs, there), cuda)
  expect(got.length).toBe(want.length)
  got.forEach((g, i) => {
    expect(g === null).toBe(want[i] === null)
    if (g === null) return
    expect(g.device).toBe(cuda)
    expectWithin(g, want[i] as Tensor, gradientRoundings[dtype], `${what} gradient ${i}`, dtype)
  })
}

const inPlaceTwin = (c: Case, dtype: FloatDType): Tensor => {
  const [first, ...rest] = map(inputsIn(c, dtype), (x) => x.to(cuda))
  const y = (first as Tensor).clone()
  applyInPlace(c.op, [y, ...rest], c.sample.attrs)
  return y
}

const hasImages = ({ sample }: Case) =>
  sample.inputs.some((x) => typeof x === 'object' && x?.ndim === 4)

const sampled = [...registry.values()].filter((op) => op.samples !== null)

describe.each(sampled.map((op) => [op.name, op] as const))('%s', (_name, op: AnyOp) => {
  test.each(dtypes)('%s', (dtype) => {
    const rowMajorThere = (x: Tensor) => x.to(cuda)
    for (const [i, c] of casesOf(op).entries()) {
      const what = `sample ${i}`
      const [y] = compare(c, dtype, rowMajorThere, what)
      if (!needsDense(c)) compare(c, dtype, stridedThere, `${what}, strided,`)
      if (op.gradient !== null) compareGradients(c, dtype, rowMajorThere, what)
      if (hasImages(c) && !needsDense(c)) {
        compare(c, dtype, channelsLastThere, `${what}, channels last,`)
        if (op.gradient !== null) {
          compareGradients(c, dtype, channelsLastThere, `${what}, channels last,`)
        }
      }
      if (op.inPlace && fitsInPlace(c)) {
        expect(inPlaceTwin(c, dtype).dataSync(), `${what} in place`).toEqual(y.dataSync())
      }
    }
  })
})
