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
  const rate = step.precision === 'bfloat16' ? bfloat16Flops : flops
  const { bytes, convolutions } = leastWork(step)
  let seconds = (row.gflop * 1e9) / rate + bytes / copyBytes
  // Winograd's forms compute in float32.
  for (const { direct, winograd } of convolutions) {
    seconds -= Math.max(0, direct / rate - winograd / flops)
  }
  return 1e3 * seconds
}

/** Operations of a convolution and both of its gradients. */
interface Convolution {
  readonly direct: number
  readonly winograd: number
}

interface LeastWork {
  /**
   * Bytes that one step moves: every parameter's gradient is written, and the optimizer reads it,
   * the parameter and two moments and writes three of them; the output of every layer that has
   * parameters is written, and read again by the backward pass.
   */
  readonly bytes: number
  /** Those that have a form of Winograd. */
  readonly convolutions: readonly Convolution[]
}

function leastWork(step: TrainingStep): LeastWork {
  let outputs = 0
  const convolutions: Convolution[] = []
  const remove = step.network
    .modules()
    .filter((module) => module.namedChildren().length === 0 && module.parameters().length > 0)
    .map((module) =>
      (module as Layer).registerForwardHook((_module, _inputs, y) => {
        for (const t of Array.isArray(y) ? y : [y]) {
          if (t instanceof Tensor) outputs += t.numel * (t.dtype === 'bfloat16' ? 2 : 4)
        }
        if (module instanceof Conv2d && y instanceof Tensor && hasShortForm(module)) {
          convolutions.push(operations(module, y))
        }
      }),
    )
  step.forward()
  for (const undo of remove) undo()
  const parameters = step.network.parameters().reduce((sum, p) => sum + p.numel, 0)
  return { bytes: 4 * 8 * parameters + 2 * outputs, convolutions }
}

/** Fewer channels gain nothing: vectors hold as many. */
const WINOGRAD_CHANNELS = 16

function hasShortForm(layer: Conv2d): boolean {
  const { inChannels, outChannels, kernelSize, stride, dilation, groups } = layer
  return (
    kernelSize.every((n) => n === 3) &&
    [...stride, ...dilation, groups].every((n) => n === 1) &&
    Math.min(inChannels, outChannels) >= WINOGRAD_CHANNELS
  )
}

/**
 * F(4x4, 3x3) and F(3x3, 4x4) multiply 36 times per tile of 4 x 4 pixels and pair of channels, the
 * definition 144 times. The transforms are not counted.
 */
function operations({ inChannels, outChannels }: Conv2d, y: Tensor): Convolution {
  const [n, , p, q] = y.shape
  const perMultiplication = 3 * 2 * n * inChannels * outChannels
  return {
    direct: perMultiplication * 9 * p * q,
    winograd: perMultiplication * 36 * Math.ceil(p / 4) * Math.ceil(q / 4),
  }
}
