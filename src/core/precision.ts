import { onDeviceOpen, openDevices } from './device.js'
import { ArgumentError, describe } from './errors.js'

/** How float32 matrix products are computed; see `setFloat32MatmulPrecision`. */
export type MatmulPrecision = 'highest' | 'high' | 'medium'

const precisions: readonly MatmulPrecision[] = ['highest', 'high', 'medium']
let chosen: MatmulPrecision = 'highest'

/**
 * What `matmul` and `linear`, and what is made of them, may do with float32 operands on a processor
 * that multiplies bfloat16 faster (AMX, AVX512-BF16), as torch.set_float32_matmul_precision; on
 * others it changes nothing.
 * - `'highest'` (default): nothing.
 * - `'high'`: split each into two bfloat16 and sum three of their products; about 16 bits. A product
 *   with an operand that is infinite, NaN or beyond the range of bfloat16 is computed as before.
 * - `'medium'`: round each to bfloat16: 8 bits, with sums in float32.
 *
 * Numbers below 2^-126 count as zeros in `'high'` and `'medium'`. `docs/precision.md` has the errors
 * measured. The setting is the process's.
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
