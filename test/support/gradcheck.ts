import type { Shape } from '../../src/core/shape.js'
import { grad, type Tensor, tensor } from '../../src/index.js'
import { Random } from './sampler.js'

/** A function whose inputs and outputs are float64 tensors. */
export type Differentiable = (inputs: Tensor[]) => Tensor[]

const STEP = 1e-5
const TOLERANCE = 2e-7

function leaf(values: Float64Array, shape: Shape): Tensor {
  return tensor(values, { shape, requiresGrad: true })
}

function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let total = 0
  for (let i = 0; i < a.length; i++) total += a[i] * b[i]
  return total
}

const hostOf = (t: Tensor) => t.dataSync() as Float64Array

/**
 * The gradients of f's outputs, weighted by `weights`, with respect to the inputs; null where the
 * tape says that no output depends on an input.
 */
function pullBack(
  f: Differentiable,
  inputs: Tensor[],
  weights: readonly Tensor[],
  createGraph: boolean,
): (Tensor | null)[] {
  const outputs = f(inputs)
  const live = outputs.map((_, i) => i).filter((i) => outputs[i].requiresGrad)
  if (live.length === 0) return inputs.map(() => null)
  return grad(
    live.map((i) => outputs[i]),
    inputs,
    { gradOutputs: live.map((i) => weights[i]), allowUnused: true, createGraph },
  )
}

/**
 * Compares the backward pass with central differences. For one random direction v in each input
 * and random weights u of the outputs, uᵀ J v must equal u · (f(x + h v) - f(x - h v)) / 2h: one
 * number for a whole Jacobian, as HIPS/autograd checks it.
 * @throws Error that says which input disagrees
 */
export function gradcheck(f: Differentiable, inputs: readonly Tensor[], seed = 7): void {
  const random = new Random(seed)
  const shapes = inputs.map((x) => x.shape)
  const values = inputs.map(hostOf)
  const leaves = () => values.map((v, i) => leaf(v, shapes[i]))

  const weights = f(leaves()).map((y) => {
    if (y.dtype !== 'float64') throw new Error(`expected float64 from the op, got ${y.dtype}`)
    return tensor(random.normals(y.numel), { shape: y.shape })
  })
  const u = weights.map(hostOf)
  const weigh = (outputs: Tensor[]) => outputs.reduce((s, y, i) => s + dot(u[i], hostOf(y)), 0)
  const gradients = pullBack(f, leaves(), weights, false)

  inputs.forEach((x, i) => {
    const v = random.normals(x.numel)
    const moved = (h: number) => {
      const xs = leaves()
      xs[i] = leaf(
        values[i].map((value, k) => value + h * v[k]),
        shapes[i],
      )
      return weigh(f(xs))
    }
    const expected = (moved(STEP) - moved(-STEP)) / (2 * STEP)
    const g = gradients[i]
    if (g !== null && String(g.shape) !== String(x.shape)) {
      throw new Error(`input ${i}: expected a gradient of shape [${x.shape}], got [${g.shape}]`)
    }
    const got = g === null ? 0 : dot(hostOf(g), v)
    const scale = Math.max(1, Math.abs(expected), ...u.map((w) => Math.sqrt(dot(w, w))))
    // Written so that NaN fails.
    if (!(Math.abs(got - expected) <= TOLERANCE * scale)) {
      throw new Error(
        `input ${i}: expected a derivative of ${expected} along a direction, got ` +
          (g === null ? 'no gradient' : String(got)),
      )
    }
  })
}

/**
 * Checks f's gradient and the gradient of that: the same comparison for the function that maps the
 * inputs and the weights of the outputs to the gradients.
 */
export function gradcheckTwice(f: Differentiable, inputs: readonly Tensor[], seed = 7): void {
  gradcheck(f, inputs, seed)
  const random = new Random(seed + 1)
  const weights = f([...inputs]).map((y) => tensor(random.normals(y.numel), { shape: y.shape }))
  const gradient: Differentiable = (values) => {
    const xs = values.slice(0, inputs.length)
    const gs = pullBack(f, xs, values.slice(inputs.length), true)
    return gs.filter((g) => g !== null)
  }
  try {
    gradcheck(gradient, [...inputs, ...weights], seed + 2)
  } catch (error) {
    throw new Error(`second order: ${(error as Error).message}`, { cause: error })
  }
}

/** Reads the same elements through steps of two, an offset and reversed axes. */
export interface Strided {
  /** A row-major tensor that holds them among others. */
  readonly dense: Tensor
  readonly view: (dense: Tensor) => Tensor
}

/** Puts the elements of x into a larger tensor, from which a view with odd strides reads them. */
export function strided(x: Tensor, seed = 3): Strided {
  const random = new Random(seed)
  if (x.ndim === 0) {
    return {
      dense: tensor(Float64Array.of(random.normal(), x.item(), random.normal())),
      view: (dense) => dense.select(0, 1),
    }
  }
  const reversed = x.shape.map((_, axis) => x.ndim - 1 - axis)
  const elements = hostOf(x.permute(reversed))
  const last = x.shape[0]
  const padded = 2 * last + 1
  const rows = last === 0 ? 0 : elements.length / last
  const dense = random.normals(rows * padded)
  elements.forEach((value, i) => {
    dense[Math.floor(i / last) * padded + 2 * (i % last) + 1] = value
  })
  const shape = [...x.shape.slice(1).reverse(), padded]
  return {
    dense: tensor(dense, { shape }),
    view: (d) => d.slice(-1, 1, null, 2).permute(reversed),
  }
}
