import { expect } from 'vitest'
import { capture, type Device, getRandomState, manualSeed, type Tensor } from '../../src/index.js'
import type * as nn from '../../src/nn/index.js'
import type { Optimizer } from '../../src/optim/index.js'

type Results = readonly Tensor[]

/** A network in training, made anew from one seed. */
export interface Program {
  readonly network: nn.Module
  readonly optimizer?: Optimizer<{ lr: number }>
  readonly step: (...batch: Tensor[]) => Results
  /** What runs after each step, outside of what is captured. */
  readonly between?: (i: number) => void
  /** Further states to compare. */
  readonly states?: () => unknown
}

/** The elements as text, so that NaN equals itself and -0 differs from 0. */
export const bits = (t: Tensor): string => {
  const { buffer, byteOffset, byteLength } = t.dataSync()
  return Buffer.from(buffer as ArrayBuffer, byteOffset, byteLength).toString('base64')
}

function history(program: Program, step: Program['step'], batches: readonly Tensor[][]): unknown[] {
  return batches.map((batch, i) => {
    const results = step(...batch).map(bits)
    const parameters = program.network.parameters()
    const seen = {
      results,
      parameters: parameters.map(bits),
      gradients: parameters.map((p) => p.grad && bits(p.grad)),
      versions: parameters.map((p) => p.version),
      buffers: program.network.buffers().map(bits),
      optimizer: optimizerBits(program.optimizer),
      random: getRandomState(),
      states: program.states?.(),
    }
    program.between?.(i)
    return seen
  })
}

function optimizerBits(optimizer: Program['optimizer']): unknown {
  if (optimizer === undefined) return null
  const { state, param_groups } = optimizer.stateDict()
  const tensors = Object.values(state).map((of) =>
    Object.entries(of).map(([key, v]) => [key, typeof v === 'number' ? v : bits(v)]),
  )
  return { tensors, param_groups }
}

/** How replays run there. */
function wayOf({ type }: Device): string {
  return type === 'cpu' || process.env.ADJOINT_CUDA_GRAPHS === '0' ? 'calls' : 'graph'
}

/** Trains two copies, one of them captured: after each step everything must have the same bits. */
export function expectSameBits(make: () => Program, batches: readonly Tensor[][]): void {
  const run = (isCaptured: boolean) => {
    manualSeed(7)
    const program = make()
    if (!isCaptured) return history(program, program.step, batches)
    const step = capture(program.step)
    const seen = history(program, step, batches)
    expect(step.replayedBy).toBe(wayOf(program.network.parameters()[0].device))
    return seen
  }
  const eager = run(false)
  const captured = run(true)
  for (const [i, expected] of eager.entries()) expect(captured[i], `step ${i}`).toEqual(expected)
}
