// The table of a run of bench/gpu.
import type { TorchFacts } from '../peers/torch.mjs'

export interface GpuRow {
  readonly name: string
  /** The median of the turns. */
  readonly ms?: number
  readonly spread?: number
  readonly bytes?: number
  readonly flop?: number
  readonly torchMs?: number
  /** With its fused AdamW. */
  readonly torchBestMs?: number
  /** PyTorch's time by ours, so above 1 we are ahead. */
  readonly ratio?: number
  readonly lossError?: number
  /** Why PyTorch's time is not there. */
  readonly missing?: string
  /** Why nothing was timed: a wrong result, or an exception. */
  readonly error?: string
}

export interface GpuReport {
  readonly card: string
  readonly torch: TorchFacts | null
  readonly rows: readonly GpuRow[]
}

const digits = (value: number | undefined, places: number) => value?.toFixed(places) ?? ''

/** GB/s or TFLOP/s. */
function rate({ ms, bytes, flop }: GpuRow): string {
  if (ms === undefined) return ''
  if (bytes !== undefined) return `${(bytes / ms / 1e6).toFixed(0)} GB/s`
  return flop === undefined ? '' : `${(flop / ms / 1e9).toFixed(1)} TFLOP/s`
}

export function markdown({ card, torch, rows }: GpuReport): string {
  const lines = [
    `${card}; PyTorch ${torch?.version ?? 'not there'}. Milliseconds; a ratio above 1: adjoint is ahead.`,
    '',
    '| row | adjoint | rate | PyTorch | fused AdamW | ratio |',
    '| --- | ---: | ---: | ---: | ---: | ---: |',
  ]
  for (const row of rows) {
    const cells = row.error
      ? [`failed: ${row.error.split('\n')[0]}`, '', '', '', '']
      : [
          digits(row.ms, 3),
          rate(row),
          row.missing ?? digits(row.torchMs, 3),
          digits(row.torchBestMs, 3),
          digits(row.ratio, 2),
        ]
    lines.push(`| ${row.name} | ${cells.join(' | ')} |`)
  }
  return `${lines.join('\n')}\n`
}
