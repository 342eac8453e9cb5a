// The table of a run of bench/host.
import type { TorchDevice } from '../peers/torch.mjs'
import type { Compared } from '../support/pairs.mjs'

export interface HostRow {
  readonly name: string
  /** Of one step, or one sum. */
  readonly nativeCalls: number
  /** Kernels, and calls of libraries. */
  readonly launches: number
  /** What PyTorch dispatches below autograd, views included. */
  readonly operators: Partial<Record<TorchDevice, number>>
  /** By its name: adjoint, captured, cpu, meta. `ratio` is its time divided by adjoint's. */
  readonly sides: Readonly<Record<string, Omit<Compared, 'name'>>>
  /** Why a peer was not measured. */
  readonly missing: Partial<Record<TorchDevice, string>>
}

export interface HostReport {
  readonly processor: string
  readonly node: string
  readonly torch: string | null
  readonly rows: readonly HostRow[]
}

function time(ms: number | undefined, per = 1): string {
  if (ms === undefined) return ''
  const us = (1000 * ms) / per
  return us >= 100 ? us.toFixed(0) : us >= 10 ? us.toFixed(1) : us.toFixed(2)
}

export function markdown({ processor, node, torch, rows }: HostReport): string {
  const lines = [
    `${processor}, node ${node}; PyTorch ${torch ?? 'not there'}. Microseconds of processor time; medians, in turns of one run.`,
    '',
    '| of one sum or one step | native calls | launches | adjoint | per native call | per launch | captured | PyTorch operators | on tiny CPU tensors | per operator | by adjoint | on `meta` |',
    '| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |',
  ]
  for (const { name, nativeCalls, launches, operators, sides, missing } of rows) {
    const { adjoint, captured, cpu, meta } = sides
    const cells = [
      ...[nativeCalls, launches, time(adjoint.ms_median), time(adjoint.ms_median, nativeCalls)],
      ...[time(adjoint.ms_median, launches), time(captured?.ms_median), operators.cpu ?? ''],
      ...[missing.cpu ?? time(cpu.ms_median), time(cpu?.ms_median, operators.cpu)],
      ...[cpu?.ratio.toFixed(1) ?? '', missing.meta ?? time(meta.ms_median)],
    ]
    lines.push(`| ${name} | ${cells.join(' | ')} |`)
  }
  return `${lines.join('\n')}\n`
}
