import { withOwnWeights } from './autocast.js'
import { type Device, defaultDevice, openDevices } from './device.js'
import {
  ArgumentError,
  AutogradError,
  CaptureError,
  checkFunction,
  checkOptions,
  DeviceError,
  DisposedError,
  DTypeError,
  describe,
  ShapeError,
} from './errors.js'
import { type GradUse, type Participant, type Recording, setRecording } from './recording.js'
import { keep } from './scope.js'
import { contiguousStrides, type Shape, sameShape, showShape } from './shape.js'
import type { GradSlot } from './tape.js'
import { checkTensor, Tensor } from './tensor.js'

export interface CaptureOptions {
  /**
   * How many calls run as always before one is recorded, so that what is made once (the state of an
   * optimizer) is there; default 1.
   */
  warmUp?: number
}

/** A step that `capture` has made of a function. */
export interface CapturedStep<A extends readonly Tensor[], R> {
  (...inputs: A): R
  /** Whether the next call is a replay. */
  readonly isRecorded: boolean
  /**
   * How replays run: by `'calls'`, queued one by one, or by a `'graph'` of the device, made at the
   * first replay; where the device could make none of the step, the reason. null before a recording.
   */
  readonly replayedBy: string | null
  /** Gives the memory of the recording back. Never needed: it goes with the step. */
  dispose(): void
  [Symbol.dispose](): void
}

/** Another tensor on the memory of `t`, outside of graphs and scopes. */
function privateAlias(t: Tensor): Tensor {
  return keep(t.alias(t.shape, t.strides, t.offset))
}

/** A result: memory that replays write to, and the tensor by which the caller sees it. */
class Output {
  private readonly own: Tensor
  private shown: Tensor

  constructor(result: Tensor) {
    this.own = privateAlias(result)
    this.shown = result.alias(result.shape, result.strides, result.offset)
  }

  show(): Tensor {
    const { own } = this
    if (this.shown.isDisposed) this.shown = own.alias(own.shape, own.strides, own.offset)
    return this.shown
  }

  dispose(): void {
    this.own.dispose()
  }
}

/** A gradient that the step reads or changes. */
class TouchedSlot {
  /** Holds the memory of the gradient that the step met, where it uses its values. */
  private readonly metMemory: Tensor | null
  /** The tensor that the slot must hold before a replay, on that memory; null where none can. */
  private met: Tensor | null
  /** The gradient that the step leaves, and what holds its memory. */
  private left: Tensor | null = null
  private leftMemory: Tensor | null = null

  constructor(
    private readonly slot: GradSlot,
    private readonly use: GradUse,
  ) {
    this.met = use === 'replaced' ? null : slot.grad
    this.metMemory = this.met && privateAlias(this.met)
  }

  /** At the end of the recording. */
  finish(): void {
    const { grad } = this.slot
    this.left = grad
    this.leftMemory = grad && privateAlias(grad)
    if (this.met !== grad) this.met = null
  }

  /** Before a replay. What is added to no gradient is added to zeros. */
  prepare(): void {
    const { met, metMemory, use } = this
    const { grad } = this.slot
    if (metMemory === null) {
      if (use !== 'started' || grad === null) return
      throw new CaptureError(
        'capture: expected no gradients before the step, as when it was recorded, got some; clear ' +
          'them inside of it',
      )
    }
    if (grad !== null && grad === met && !grad.isDisposed) return
    if (grad === null && use === 'added') {
      metMemory.device.calls.begin('fill').operand(0).output(metMemory).run()
      return
    }
    throw new CaptureError(
      'capture: expected the gradients that the step was recorded with, got others; clear and ' +
        'compute them inside of the step',
    )
  }

  /** After a replay: the slot holds what the step leaves. */
  restore(): void {
    const { slot, left, leftMemory } = this
    if (slot.grad === left && !left?.isDisposed) return
    const grad = leftMemory && privateAlias(leftMemory)
    if (this.met === left) this.met = grad
    this.left = grad
    slot.grad = grad
    slot.isShared = false
  }

  dispose(): void {
    this.metMemory?.dispose()
    this.leftMemory?.dispose()
  }
}

/** What a function returns, with its tensors replaced. */
function mapTensors(value: unknown, replace: (t: Tensor | Output) => unknown): unknown {
  if (value instanceof Tensor || value instanceof Output) return replace(value)
  if (typeof value === 'function') throw wrongResult(value)
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return value.map((item) => mapTensors(item, replace))
  const prototype = Object.getPrototypeOf(value)
  if (prototype !== Object.prototype && prototype !== null) throw wrongResult(value)
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [key, mapTensors(item, replace)]),
  )
}

function wrongResult(value: unknown): ArgumentError {
  return new ArgumentError(
    'capture: expected a function that returns tensors, or arrays and plain objects of them, got ' +
      `one that returns ${describe(value)}`,
  )
}

/** Row-major strides, but for a tensor without gaps its own. */
function denseStrides({ shape, strides }: Tensor): Shape {
  const axes = shape.map((_, axis) => axis).filter((axis) => shape[axis] !== 1)
  axes.sort((a, b) => strides[a] - strides[b])
  let expected = 1
  for (const axis of axes) {
    if (strides[axis] !== expected) return contiguousStrides(shape)
    expected *= shape[axis]
  }
  return strides
}

/** Memory of its own for values of the shape, dtype and layout of `x`. */
function inputLike(x: Tensor): Tensor {
  return Tensor.reserved(keep(new Tensor(x.device, x.dtype, x.shape, denseStrides(x))))
}

/** Whether the function of a captured step is running: it may not call another. */
let running = false

class Capture<A extends readonly Tensor[], R> implements Recording {
  readonly participants: Participant[] = []
  private inputs: readonly Tensor[] | null = null
  private place: Device | null = null
  private readonly slots = new Map<GradSlot, TouchedSlot>()
  private touched: readonly TouchedSlot[] = []
  private results: unknown = null
  /** The native recording: 0 until there is one, -1 once disposed. */
  private handle = 0
  private calls = 0
  /** Pairs of a native slot and its value. */
  private readonly values: number[] = []
  private readonly put = (slot: number, value: number): void => {
    this.values.push(slot, value)
  }

  constructor(
    private readonly body: (...inputs: A) => R,
    private readonly warmUp: number,
  ) {}

  get device(): Device {
    return this.place as Device
  }

  get isRecorded(): boolean {
    return this.handle > 0
  }

  get replayedBy(): string | null {
    return this.handle > 0 ? this.device.native.replayWay(this.handle) : null
  }

  touch(slot: GradSlot, use: GradUse): void {
    if (!this.slots.has(slot)) this.slots.set(slot, new TouchedSlot(slot, use))
  }

  call(inputs: A): R {
    if (this.handle < 0) {
      throw new DisposedError('capture: expected a live captured step, got a disposed one')
    }
    if (running) {
      throw new CaptureError('capture: expected work of the step itself, got another captured step')
    }
    const targets = this.checkInputs(inputs)
    if (this.handle > 0) return this.replay(inputs, targets)
    const { calls } = this.device
    inputs.forEach((x, i) => {
      calls.begin('copy').input(x).output(targets[i]).run()
    })
    const results = this.calls < this.warmUp ? this.run() : this.record()
    this.calls++
    return mapTensors(results, (t) => (t as Output).show()) as R
  }

  /** Checks the inputs against those of the first call; the memory that stands for them. */
  private checkInputs(inputs: A): readonly Tensor[] {
    for (const [i, x] of inputs.entries()) {
      checkTensor('capture', x)
      if (x.gradEdge() !== null) {
        throw new AutogradError(
          `capture: expected inputs that require no gradient, got one as input ${i}`,
        )
      }
    }
    if (this.inputs === null) {
      this.place = inputs[0]?.device ?? defaultDevice()
      for (const x of inputs) this.checkDevice(x)
      this.inputs = inputs.map(inputLike)
      return this.inputs
    }
    const targets = this.inputs
    if (inputs.length !== targets.length) {
      throw new ArgumentError(
        `capture: expected ${targets.length} inputs as in the first call, got ${inputs.length}`,
      )
    }
    for (let i = 0; i < targets.length; i++) {
      const x = inputs[i]
      const t = targets[i]
      this.checkDevice(x)
      if (x.dtype !== t.dtype) {
        throw new DTypeError(
          `capture: expected input ${i} of dtype ${t.dtype} as in the first call, got ${x.dtype}`,
        )
      }
      if (!sameShape(x.shape, t.shape)) {
        throw new ShapeError(
          `capture: expected input ${i} of shape ${showShape(t.shape)} as in the first call, got ` +
            showShape(x.shape),
        )
      }
    }
    return targets
  }

  private checkDevice(x: Tensor): void {
    if (x.device === this.place) return
    throw new DeviceError(`capture: expected inputs on ${this.place}, got one on ${x.device}`)
  }

  /** Runs the function; its results are outside of its graph, which can be freed. */
  private run(): unknown {
    running = true
    try {
      const result = withOwnWeights(() => this.body(...(this.inputs as readonly Tensor[] as A)))
      if (result instanceof Promise) {
        result.catch(() => undefined)
        throw new CaptureError(
          'capture: expected a synchronous function, got one that returns a promise',
        )
      }
      return mapTensors(result, (t) => new Output(checkTensor('capture', t)))
    } finally {
      running = false
    }
  }

  private record(): unknown {
    const { native } = this.device
    const others = openDevices().filter((device) => device !== this.device)
    try {
      native.beginCapture(false)
      for (const other of others) other.native.beginCapture(true)
      setRecording(this)
      this.results = this.run()
      setRecording(null)
      this.touched = [...this.slots.values()]
      for (const slot of this.touched) slot.finish()
      this.handle = native.endCapture(this)
      return this.results
    } catch (error) {
      this.forget()
      throw error
    } finally {
      setRecording(null)
      this.slots.clear()
      native.cancelCapture()
      for (const other of others) other.native.cancelCapture()
    }
  }

  private replay(inputs: A, targets: readonly Tensor[]): R {
    const { participants, touched, values, put } = this
    values.length = 0
    let prepared = 0
    try {
      for (const slot of touched) slot.prepare()
      for (; prepared < participants.length; prepared++) participants[prepared].prepare(put)
      this.device.calls.replay(this.handle, inputs, targets, values)
    } catch (error) {
      while (prepared > 0) participants[--prepared].undo()
      throw error
    }
    for (const slot of touched) slot.restore()
    return mapTensors(this.results, (t) => (t as Output).show()) as R
  }

  /** Lets go of what the recording has gathered. */
  private forget(): void {
    for (const slot of this.slots.values()) slot.dispose()
    for (const slot of this.touched) slot.dispose()
    mapTensors(this.results, (t) => (t as Output).dispose())
    this.touched = []
    this.results = null
    this.participants.length = 0
  }

  dispose(): void {
    if (running) {
      throw new CaptureError('capture: expected a step that is not running, got dispose() inside')
    }
    if (this.handle > 0) this.device.native.dispose(this.handle)
    this.handle = -1
    this.forget()
    for (const t of this.inputs ?? []) t.dispose()
    this.inputs = []
  }
}

/**
 * Makes a step of fixed shapes that costs no more than its kernels. The first call runs `step` as
 * it is; the second runs it while its native calls are recorded; each later one copies the values
 * of its inputs into the memory of the recorded ones and repeats the calls, forward, backward,
 * clipping and optimizer, by one native call. So n calls leave the same bits as n calls of `step`:
 * in parameters, gradients, buffers, optimizer states and random generators, which go on. Changed
 * learning rates are seen.
 *
 * JavaScript does not run in a replay: branches, counters and settings are those of the recording.
 * `docs/capture.md` has the rules.
 * @param step takes tensors and returns tensors, alone or in arrays and plain objects
 * @returns the step. Inputs must have the shapes, dtypes and device of the first call's, and
 *   require no gradient. The results are detached, and the next call overwrites their memory.
 * @throws CaptureError from the recording call, for what a replay cannot repeat: reading values,
 *   another captured step inside, a device that cannot record; and from a replay, if the optimizer
 *   or the gradients are no longer those of the recording
 * @example
 * const step = capture((x: Tensor, y: Tensor) => {
 *   optimizer.zeroGrad()
 *   const loss = crossEntropy(model.forward(x), y)
 *   loss.backward()
 *   optimizer.step()
 *   return loss
 * })
 * for (const [x, y] of loader) total += step(x, y).item()
 */
export function capture<A extends readonly Tensor[], R>(
  step: (...inputs: A) => R,
  options: CaptureOptions = {},
): CapturedStep<A, R> {
  checkFunction('capture', step)
  checkOptions('capture', options)
  const { warmUp = 1 } = options
  if (!Number.isSafeInteger(warmUp) || warmUp < 0) {
    throw new ArgumentError(
      `capture: expected a whole number of warm-up calls, got ${describe(warmUp)}`,
    )
  }
  const captured = new Capture(step, warmUp)
  const call = (...inputs: A): R => captured.call(inputs)
  const dispose = (): void => captured.dispose()
  Object.defineProperties(call, {
    isRecorded: { get: () => captured.isRecorded },
    replayedBy: { get: () => captured.replayedBy },
    dispose: { value: dispose },
    [Symbol.dispose ?? Symbol.for('Symbol.dispose')]: { value: dispose },
  })
  return call as CapturedStep<A, R>
}
