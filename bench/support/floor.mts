// The least time that a training step can take on this machine: its arithmetic at the rate of
// multiply-adds on registers, plus the bytes that must move at the rate of a copy.
import { probeRates, Tensor } from 'adjoint'
import { Conv2d, type Layer } from 'adjoint/nn'
import type { StepRow, TrainingStep } from './steps.mjs'

let rates: ReturnType<typeof probeRates> | null = null

/** The rates that this run is measured against, probed once. */
export function machineRates(): ReturnType<typeof probeRates> {
  rates ??= probeRates('cpu')
  return rates
}

/** Milliseconds; undefined where arithmetic is not listed. */
export function floorMs(row: StepRow, step: TrainingStep): number | undefined {
  if (row.gflop === undefined) return undefined
  const { flops, bfloat16Flops, copyBytes } = machineRates()
  const { bytes, saved } = leastWork(step)
  const operations = row.gflop * 1e9 - saved
  return (
    1e3 * (operations / (step.precision === 'bfloat16' ? bfloat16Flops : flops) + bytes / copyBytes)
  )
}

interface LeastWork {
  /**
   * Bytes that one step moves: every parameter's gradient is written, and the optimizer reads it,
   * the parameter and two moments and writes three of them; the output of every layer that has
   * parameters is written, and read again by the backward pass.
   */
  readonly bytes: number
  /** Operations that Winograd's forms spare of the arithmetic listed. */
  readonly saved: number
}

function leastWork(step: TrainingStep): LeastWork {
  let outputs = 0
  let saved = 0
  const remove = step.network
    .modules()
    .filter((module) => module.namedChildren().length === 0 && module.parameters().length > 0)
    .map((module) =>
      (module as Layer).registerForwardHook((_module, _inputs, y) => {
        for (const t of Array.isArray(y) ? y : [y]) {
          if (t instanceof Tensor) outputs += t.numel * (t.dtype === 'bfloat16' ? 2 : 4)
        }
        if (module instanceof Conv2d && y instanceof Tensor) saved += savedByWinograd(module, y)
      }),
    )
  step.forward()
  for (const undo of remove) undo()
  const parameters = step.network.parameters().reduce((sum, p) => sum + p.numel, 0)
  return { bytes: 4 * 8 * parameters + 2 * outputs, saved }
}

/** Fewer channels gain nothing: vectors hold as many. */
const WINOGRAD_CHANNELS = 16

/**
 * Of a convolution and both of its gradients. F(4x4, 3x3) and F(3x3, 4x4) multiply 36 times per tile
 * of 4 x 4 pixels and pair of channels, the definition 144 times; their transforms are not counted.
 */
function savedByWinograd(layer: Conv2d, y: Tensor): number {
  const { inChannels, outChannels, kernelSize, stride, dilation, groups } = layer
  const fits =
    y.dtype === 'float32' &&
    kernelSize.every((n) => n === 3) &&
    [...stride, ...dilation, groups].every((n) => n === 1) &&
    Math.min(inChannels, outChannels) >= WINOGRAD_CHANNELS
  if (!fits) return 0
  const [n, , p, q] = y.shape
  const multiplications = n * (9 * p * q - 36 * Math.ceil(p / 4) * Math.ceil(q / 4))
  return 3 * 2 * inChannels * outChannels * Math.max(0, multiplications)
}
