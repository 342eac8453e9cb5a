import { onDeviceOpen, openDevices } from './device.js'
import { ArgumentError, describe } from './errors.js'

/** How float32 products are computed; see `setFloat32MatmulPrecision`. */
export type MatmulPrecision = 'highest' | 'high' | 'medium'

const precisions: readonly MatmulPrecision[] = ['highest', 'high', 'medium']
let chosen: MatmulPrecision = 'highest'

/**
 * What products may do with float32 operands where that is faster, as
 * torch.set_float32_matmul_precision. `'highest'`, the default: nothing. Sums are float32 always.
 *
 * On the CPU it is heard by `matmul` and `linear`, and what is made of them, on processors that
 * multiply bfloat16 (AMX, AVX512-BF16); on others it changes nothing.
 * - `'high'`: split each into two bfloat16 and sum three of their products; about 16 bits. A product
 *   with an operand that is infinite, NaN or beyond the range of bfloat16 is computed as before.
 * - `'medium'`: round each to bfloat16: 8 bits.
 *
 * Numbers below 2^-126 count as zeros in both.
 *
 * On a GPU convolutions and `scaledDotProductAttention` heed it too.
 * - `'high'`: TF32, of 11 bits.
 * - `'medium'`: for matrix products bfloat16 where cuBLASLt has that, else TF32; TF32 for the others.
 *
 * `docs/precision.md` has the errors measured. The setting is the process's.
 * @throws ArgumentError for another precision
 * @throws CaptureError in a step that is being recorded
 */
export function setFloat32MatmulPrecision(precision: MatmulPrecision): void {
  const index = precisions.indexOf(precision)
  if (index < 0) {
    throw new ArgumentError(
      `setFloat32MatmulPrecision: expected highest, high or medium, got ${describe(precision)}`,
    )
  }
  for (const { native } of openDevices()) native.setFloat32Products(index)
  chosen = precision
}

// A device that is first used later.
onDeviceOpen(({ native }) => {
  if (chosen !== 'highest') native.setFloat32Products(precisions.indexOf(chosen))
})

/** What `setFloat32MatmulPrecision` was last called with in this thread. */
export function getFloat32MatmulPrecision(): MatmulPrecision {
  return chosen
}
