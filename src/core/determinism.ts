import { onDeviceOpen, openDevices } from './device.js'
import { ArgumentError, describe } from './errors.js'

let isEnabled = false

/**
 * Whether the same input gives the same bits at every run even where a faster kernel adds in an
 * order that changes, as torch.use_deterministic_algorithms; `false` by default, as there. On a GPU
 * it decides on one kernel: the gradient of attention in bfloat16 and float16 where cuDNN computes
 * it, which by default adds to dq atomically. All others, and all of the CPU at any number of
 * threads, repeat bit for bit either way; none refuses, so unlike PyTorch's this never makes an op
 * throw. The setting is the process's; a CUDA graph of a captured step keeps that of its making.
 * @throws ArgumentError where `enabled` is not a boolean
 * @throws CaptureError in a step that is being recorded
 */
export function useDeterministicAlgorithms(enabled: boolean): void {
  if (typeof enabled !== 'boolean') {
    throw new ArgumentError(
      `useDeterministicAlgorithms: expected a boolean, got ${describe(enabled)}`,
    )
  }
  for (const { native } of openDevices()) native.setDeterministicAlgorithms(enabled)
  isEnabled = enabled
}

// A device that is first used later.
onDeviceOpen(({ native }) => {
  if (isEnabled) native.setDeterministicAlgorithms(true)
})

/** What `useDeterministicAlgorithms` was last called with in this thread; `false` before that. */
export function areDeterministicAlgorithmsEnabled(): boolean {
  return isEnabled
}
