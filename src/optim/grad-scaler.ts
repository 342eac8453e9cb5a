import type { Device } from '../core/device.js'
import { ArgumentError, checkOptions, DTypeError, describe } from '../core/errors.js'
import { noGrad } from '../core/grad-mode.js'
import { refuseWhileCapturing } from '../core/recording.js'
import { checkTensor, type Tensor } from '../core/tensor.js'
import { cast, contiguous, zeros } from '../ops/index.js'
import { Optimizer } from './optimizer.js'

export interface GradScalerOptions {
  /** What losses are multiplied by at first; default 2^16. */
  readonly initScale?: number
  /** By which the scale grows after `growthInterval` steps without overflow; default 2. */
  readonly growthFactor?: number
  /** By which it shrinks after an overflow; default 0.5. */
  readonly backoffFactor?: number
  readonly growthInterval?: number
  /** False: everything passes through as if there were no scaler. Default true. */
  readonly enabled?: boolean
}

/** As PyTorch's. */
export interface GradScalerState {
  readonly scale: number
  readonly growth_factor: number
  readonly backoff_factor: number
  readonly growth_interval: number
  readonly _growth_tracker: number
}

/** What has been done with an optimizer's gradients since the last `update`. */
interface Progress {
  readonly stage: 'unscaled' | 'stepped'
  /** Not 0 where a gradient was infinite or NaN: one for each device. */
  readonly found: readonly Tensor[]
  /** The same, once it was read. */
  hasOverflow: boolean | null
}

/**
 * Scales losses, so that small gradients do not vanish in float16 (Micikevicius et al. 2018), as
 * torch.amp.GradScaler: a step whose gradients overflow is left out and the scale is halved; after
 * 2000 steps without overflow it is doubled. bfloat16 needs none.
 * @example
 * const loss = autocast('float16', () => crossEntropy(model.forward(x), y))
 * scaler.scale(loss).backward()
 * scaler.unscale_(optimizer) // only to clip gradients
 * clipGradNorm_(model.parameters(), 1)
 * scaler.step(optimizer)
 * scaler.update()
 */
export class GradScaler {
  private current: number
  private growth: number
  private backoff: number
  private interval: number
  /** Steps without overflow since the scale last changed. */
  private tracker = 0
  private readonly progress = new Map<Optimizer, Progress>()
  /** Where native code reads the factor, by device. */
  private readonly slots = new Map<Device, number>()
  readonly isEnabled: boolean

  constructor(options: GradScalerOptions = {}) {
    checkOptions('GradScaler', options)
    const {
      initScale = 65536,
      growthFactor = 2,
      backoffFactor = 0.5,
      growthInterval = 2000,
      enabled = true,
    } = options
    if (typeof enabled !== 'boolean') throw wrong('enabled to be a boolean', enabled)
    this.isEnabled = enabled
    this.current = checkScale(initScale)
    this.growth = checkGrowth(growthFactor)
    this.backoff = checkBackoff(backoffFactor)
    this.interval = checkInterval(growthInterval)
  }

  /** What losses are multiplied by now; 1 if not enabled. */
  getScale(): number {
    return this.isEnabled ? this.current : 1
  }

  get growthFactor(): number {
    return this.growth
  }
  set growthFactor(factor: number) {
    this.growth = checkGrowth(factor)
  }

  get backoffFactor(): number {
    return this.backoff
  }
  set backoffFactor(factor: number) {
    this.backoff = checkBackoff(factor)
  }

  get growthInterval(): number {
    return this.interval
  }
  set growthInterval(steps: number) {
    this.interval = checkInterval(steps)
  }

  /** A loss, or losses, times the scale: call `backward` on what it returns. */
  scale(loss: Tensor): Tensor
  scale(losses: readonly Tensor[]): Tensor[]
  scale(loss: Tensor | readonly Tensor[]): Tensor | Tensor[] {
    if (Array.isArray(loss)) return loss.map((each) => this.scale(checkTensor('scale', each)))
    const x = checkTensor('scale', loss)
    if (!this.isEnabled) return x
    refuseWhileCapturing('scale', 'a scale that changes')
    // As PyTorch, whose scale is a float32 without axes: it widens what has none either.
    const isHalf = x.dtype === 'float16' || x.dtype === 'bfloat16'
    return (x.ndim === 0 && isHalf ? cast(x, 'float32') : x).mul(this.current)
  }

  /**
   * Divides the gradients of an optimizer by the scale, and notes whether one of them has
   * overflowed. `step` does it by itself; it is for those who clip gradients before.
   * @throws ArgumentError the second time between two calls of `update`
   */
  unscale_(optimizer: Optimizer): void {
    if (!this.isEnabled) return
    checkOptimizer('unscale_', optimizer)
    refuseWhileCapturing('unscale_', 'a scale that changes')
    const before = this.progress.get(optimizer)
    if (before !== undefined) {
      throw new ArgumentError(
        `unscale_: expected gradients of a new step, got those that were ${before.stage}; ` +
          'call update() in between',
      )
    }
    const found = noGrad(() => this.divide(gradients(optimizer)))
    this.progress.set(optimizer, { stage: 'unscaled', found, hasOverflow: null })
  }

  private divide(grads: ReadonlyMap<Device, ReadonlySet<Tensor>>): Tensor[] {
    return [...grads].map(([device, set]) => {
      const { calls, native } = device
      const own = [...set]
      const found = zeros([1], { dtype: 'float32', device })
      const slot = this.slots.get(device) ?? native.createSlot(1)
      this.slots.set(device, slot)
      native.setSlot(slot, Math.fround(1 / this.current))
      const dense = own.map((g) => contiguous(g))
      calls.begin('unscale').number(dense.length)
      for (const g of dense) calls.input(g)
      calls.input(found).number(slot).run()
      dense.forEach((g, i) => {
        if (g !== own[i]) own[i].copy_(g)
      })
      return found
    })
  }

  /**
   * The optimizer's step, unless its gradients have overflowed; unscales them if `unscale_` has not.
   * Waits for the device, to know. Returns whether the step was taken.
   */
  step(optimizer: Optimizer): boolean {
    checkOptimizer('step', optimizer)
    if (!this.isEnabled) {
      optimizer.step()
      return true
    }
    if (this.progress.get(optimizer)?.stage === 'stepped') {
      throw new ArgumentError('step: expected update() after the last step, got another step')
    }
    if (!this.progress.has(optimizer)) this.unscale_(optimizer)
    const progress = this.progress.get(optimizer) as Progress
    if (progress.found.length === 0) {
      throw new ArgumentError('step: expected an optimizer with gradients, got one without')
    }
    const hasOverflow = overflows(progress)
    if (!hasOverflow) optimizer.step()
    this.progress.set(optimizer, { ...progress, stage: 'stepped', hasOverflow })
    return !hasOverflow
  }

  /**
   * Shrinks the scale if a gradient has overflowed since the last call, else grows it when it is
   * time. Call it once after all steps of an iteration.
   * @param scale a new scale instead
   */
  update(scale?: number): void {
    if (!this.isEnabled) return
    refuseWhileCapturing('update', 'a scale that changes')
    if (scale !== undefined) {
      this.current = checkScale(scale)
    } else {
      const all = [...this.progress.values()].filter(({ found }) => found.length > 0)
      if (all.length === 0) {
        throw new ArgumentError('update: expected a step or unscale_ before, got none')
      }
      this.adapt(all.some(overflows))
    }
    this.progress.clear()
  }

  /** scale = float32(scale backoff) after an overflow, float32(scale growth) after the interval. */
  private adapt(hasOverflow: boolean): void {
    if (hasOverflow) {
      this.current = Math.fround(this.current * this.backoff)
      this.tracker = 0
      return
    }
    this.tracker++
    if (this.tracker < this.interval) return
    this.tracker = 0
    const grown = Math.fround(this.current * this.growth)
    if (Number.isFinite(grown)) this.current = grown
  }

  /** PyTorch's; empty if not enabled. */
  stateDict(): GradScalerState | Record<string, never> {
    if (!this.isEnabled) return {}
    return {
      scale: this.current,
      growth_factor: this.growth,
      backoff_factor: this.backoff,
      growth_interval: this.interval,
      _growth_tracker: this.tracker,
    }
  }

  /** @throws ArgumentError if it is not one that `stateDict` gives; then nothing has changed */
  loadStateDict(state: GradScalerState | Record<string, never>): void {
    if (!this.isEnabled) return
    checkOptions('loadStateDict', state)
    const scale = checkScale(state.scale)
    const growth = checkGrowth(state.growth_factor)
    const backoff = checkBackoff(state.backoff_factor)
    const interval = checkInterval(state.growth_interval)
    const tracker: unknown = state._growth_tracker
    if (!Number.isSafeInteger(tracker) || (tracker as number) < 0) {
      throw wrong('_growth_tracker to be a count', tracker)
    }
    Object.assign(this, { current: scale, growth, backoff, interval, tracker })
  }
}

function overflows(progress: Progress): boolean {
  progress.hasOverflow ??= progress.found.some((found) => found.item() !== 0)
  return progress.hasOverflow
}

/** By device. */
function gradients(optimizer: Optimizer): Map<Device, Set<Tensor>> {
  const grads = new Map<Device, Set<Tensor>>()
  for (const { params } of optimizer.paramGroups) {
    for (const { slot } of params) {
      const grad = slot?.grad
      if (!grad) continue
      if (grad.dtype === 'float16') {
        throw new DTypeError(
          'unscale_: expected gradients with the range of float32, got float16; keep the weights ' +
            'in float32 and use autocast',
        )
      }
      const own = grads.get(grad.device) ?? new Set()
      grads.set(grad.device, own.add(grad))
    }
  }
  return grads
}

function checkOptimizer(op: string, optimizer: unknown): void {
  if (!(optimizer instanceof Optimizer)) {
    throw new ArgumentError(`${op}: expected an optimizer, got ${describe(optimizer)}`)
  }
}

const wrong = (expected: string, got: unknown) =>
  new ArgumentError(`GradScaler: expected ${expected}, got ${describe(got)}`)

function checkScale(x: unknown): number {
  const isFine = typeof x === 'number' && x > 0 && Number.isFinite(Math.fround(x))
  if (!isFine) throw wrong('a scale above 0 within float32', x)
  return Math.fround(x)
}
function checkGrowth(x: unknown): number {
  if (!(typeof x === 'number' && x > 1)) throw wrong('a growthFactor above 1', x)
  return x
}
function checkBackoff(x: unknown): number {
  if (!(typeof x === 'number' && x > 0 && x < 1)) throw wrong('a backoffFactor in (0, 1)', x)
  return x
}
function checkInterval(x: unknown): number {
  const isFine = Number.isSafeInteger(x) && (x as number) >= 1
  if (!isFine) throw wrong('a growthInterval of 1 or more steps', x)
  return x as number
}
