import { AsyncLocalStorage } from 'node:async_hooks'
import { type DType, isFloating, promoteTypes } from './dtype.js'
import { engineOps } from './engine-ops.js'
import { AutogradError, checkFunction, DTypeError, describe } from './errors.js'
import { isGradEnabled } from './grad-mode.js'
import type { Op, Value } from './op.js'
import { Tensor } from './tensor.js'

/** What `autocast` computes in; float32 switches an outer one off. */
export type AutocastDType = 'bfloat16' | 'float16' | 'float32'

/** A converted weight, and the version of the weight that it was made from. */
interface Converted {
  readonly version: number
  readonly tensor: Tensor
}

/** What the conversions of an outermost call of `autocast` share with the calls nested in it. */
class Conversions {
  readonly weights = new Map<Tensor, Converted>()
  /** All that were made: operands that only the ops have seen. */
  readonly made: Tensor[] = []

  /** At once, without waiting for a collection; the tape holds the memory that backward needs. */
  dispose(): void {
    for (const t of this.made) t.device.calls.discard(t)
    for (const { device } of this.made) device.calls.flush()
    this.made.length = 0
    this.weights.clear()
  }
}

/** The state of a call of `autocast`. */
interface Mode {
  readonly dtype: AutocastDType
  readonly conversions: Conversions
}

/** Plain state for synchronous code, which is all that a hot path sees. */
let mode: Mode | null = null

/** Active only while an async form runs. */
const storage = new AsyncLocalStorage<Mode | null>()
let asyncScopes = 0

function currentMode(): Mode | null {
  if (asyncScopes > 0) return storage.getStore() ?? mode
  return mode
}

function active(): Mode | null {
  if (mode === null && asyncScopes === 0) return null
  const current = currentMode()
  return current === null || current.dtype === 'float32' ? null : current
}

/** The lower dtype that products are computed in here; null outside of `autocast`. */
export function autocastDType(): 'bfloat16' | 'float16' | null {
  return (active()?.dtype ?? null) as 'bfloat16' | 'float16' | null
}

function enter(name: string, dtype: unknown): Mode {
  if (dtype !== 'bfloat16' && dtype !== 'float16' && dtype !== 'float32') {
    throw new DTypeError(`${name}: expected bfloat16, float16 or float32, got ${describe(dtype)}`)
  }
  return { dtype, conversions: currentMode()?.conversions ?? new Conversions() }
}

/** Whether a call is in no other, so that the conversions end with it. */
const isOutermost = (next: Mode): boolean => currentMode()?.conversions !== next.conversions

function withMode<T>(next: Mode | null, body: () => T): T {
  const run = (): T => {
    const before = mode
    mode = next
    try {
      return body()
    } finally {
      mode = before
    }
  }
  return asyncScopes > 0 ? storage.run(next, run) : run()
}

/**
 * Runs `body` in mixed precision, as torch.autocast does on the operands' device: matrix products,
 * convolutions, attention and LSTMs take and give `dtype`; losses and `prod` take float32, and on a
 * GPU so do softmax, layer norm, sums, exponentials and powers; all else computes in the dtypes it
 * is given. `docs/precision.md` has the lists. Weights stay float32 and so do their gradients; a
 * weight is converted once, and again when it has changed. float64 operands are left alone. Backward
 * runs in the dtypes of forward, wherever it is called; of float16 it needs `GradScaler`.
 * `'float32'` switches autocast off inside of it.
 * @example const loss = autocast('bfloat16', () => crossEntropy(model.forward(x), y))
 * @throws AutogradError if `body` returns a promise: use `autocastAsync`
 */
export function autocast<T>(dtype: AutocastDType, body: () => T): T {
  checkFunction('autocast', body)
  const next = enter('autocast', dtype)
  try {
    return withMode(next, () => {
      const result = body()
      if (result instanceof Promise) {
        result.catch(() => undefined)
        throw new AutogradError(
          'autocast: expected a synchronous function, got one that returns a promise; ' +
            'use autocastAsync',
        )
      }
      return result
    })
  } finally {
    if (isOutermost(next)) next.conversions.dispose()
  }
}

/** `autocast` for an async function; other tasks that run meanwhile are not affected. */
export async function autocastAsync<T>(dtype: AutocastDType, body: () => Promise<T>): Promise<T> {
  checkFunction('autocastAsync', body)
  const next = enter('autocastAsync', dtype)
  const ends = isOutermost(next)
  asyncScopes++
  try {
    return await storage.run(next, body)
  } finally {
    asyncScopes--
    if (ends) next.conversions.dispose()
  }
}

/** Runs `body` with converted weights of its own: it uses none made before and leaves none. */
export function withOwnWeights<T>(body: () => T): T {
  const current = active()
  if (current === null) return body()
  const conversions = new Conversions()
  try {
    return withMode({ dtype: current.dtype, conversions }, body)
  } finally {
    conversions.dispose()
  }
}

/** Runs what is no one's wish to have in lower precision, as a backward pass, with autocast off. */
export function withoutAutocast<T>(body: () => T): T {
  return active() === null ? body() : withMode(null, body)
}

const isEligible = (x: unknown): x is Tensor =>
  x instanceof Tensor && isFloating(x.dtype) && x.dtype !== 'float64'

function convert(x: Tensor, dtype: DType, { conversions }: Mode): Tensor {
  const { weights, made } = conversions
  const edge = x.gradEdge()
  const isWeight = edge?.node.isLeaf === true && x.dtype === 'float32'
  // A conversion that is recorded is of no use where gradients are off, nor the other way round.
  const recorded = isGradEnabled()
  const known = isWeight ? weights.get(x) : undefined
  const isUsable =
    known !== undefined &&
    known.version === x.version &&
    known.tensor.dtype === dtype &&
    !known.tensor.isDisposed &&
    (known.tensor.edge !== null) === recorded
  if (isUsable) return known.tensor
  const tensor = engineOps.cast(x, dtype)
  made.push(tensor)
  if (isWeight) {
    if (tensor.edge !== null) tensor.edge.node.wideDType = x.dtype
    weights.set(x, { version: x.version, tensor })
  }
  return tensor
}

/** Operands in the dtype that autocast wants for an op; themselves outside of it. */
export function autocastTo<const T extends readonly (Value | null)[]>(
  wanted: Op<never>['autocast'],
  inputs: T,
): T {
  if (wanted === undefined) return inputs
  const current = active()
  if (current === null) return inputs
  const dtype = castDType(wanted, inputs, current)
  if (dtype === null) return inputs
  const cast = new Array<Value | null>(inputs.length)
  for (let i = 0; i < inputs.length; i++) {
    const x = inputs[i]
    cast[i] = isEligible(x) && x.dtype !== dtype ? convert(x, dtype, current) : x
  }
  return cast as unknown as T
}

/** What the eligible operands are to be; null where they stay as they are. */
function castDType(
  wanted: NonNullable<Op<never>['autocast']>,
  inputs: readonly (Value | null)[],
  current: Mode,
): DType | null {
  let first: Tensor | null = null
  let widest: DType | null = null
  for (let i = 0; i < inputs.length; i++) {
    const x = inputs[i]
    if (wanted === 'half' && x instanceof Tensor && x.dtype === 'float64') return null
    if (!isEligible(x)) continue
    first ??= x
    widest = widest === null ? x.dtype : promoteTypes(widest, x.dtype)
  }
  if (first === null) return null
  if (wanted === 'float32 on cuda' && first.device.type !== 'cuda') return null
  return wanted === 'half' ? current.dtype : wanted === 'widest' ? widest : 'float32'
}
