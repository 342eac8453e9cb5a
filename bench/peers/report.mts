// The table that the benchmark writes, with the processor's name.
import type { Machine } from '../support/machine.mjs'
import { formatTime } from '../support/suite.mjs'
import type { Column, PeerRow } from './context.mjs'
import type { TorchFacts } from './torch.mjs'

export interface Report {
  readonly machine: Machine
  readonly torch: TorchFacts | null
  readonly rows: readonly PeerRow[]
}

const figure = (value: number) =>
  value === 0 || Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3)

const cell = (column: Column | undefined) =>
  column === undefined
    ? ''
    : 'not_measured' in column
      ? 'not measured'
      : `${formatTime(column.ms_median)} (${column.ratio.toFixed(2)}x)`

/** One row for the terminal. */
export function describeRow(row: PeerRow): string {
  const peers = Object.entries(row.peers).map(
    ([name, column]) =>
      `    ${name}: ${cell(column)}` +
      ('not_measured' in column ? `: ${column.not_measured}` : spread(column)),
  )
  const facts = Object.entries(row.facts).map(([name, value]) => `${name} ${figure(value)}`)
  const notes = [...facts, ...row.notes]
  return [
    `  ${row.name}, ${row.precision}: ${formatTime(row.ms_median)}${spread(row)}`,
    ...peers,
    ...(notes.length > 0 ? [`    ${notes.join('; ')}`] : []),
  ].join('\n')
}

const spread = (row: { spread: number }) => ` ±${(100 * row.spread).toFixed(0)} %`

const geometricMean = (values: readonly number[]) =>
  Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length)

/** Rows of one kind (step, product, …) share a table, since they share columns. */
export function markdown({ machine, torch, rows }: Report): string {
  const lines = [
    `${machine.processor}, ${machine.threads} threads, SIMD level ${machine.simd}, Node.js ` +
      `${machine.node}${torch ? `, PyTorch ${torch.version} (${torch.capability})` : ''}. ` +
      'Medians of turns; in parentheses the median over the turns of the time beside ours.',
  ]
  for (const [kind, group] of groupBy(rows, (row) => row.name.split('/')[0])) {
    const peers = [...new Set(group.flatMap((row) => Object.keys(row.peers)))]
    const facts = [...new Set(group.flatMap((row) => Object.keys(row.facts)))]
    const precisions = new Set(group.map((row) => row.precision))
    lines.push(
      '',
      `| ${kind} | adjoint | ${[...peers, ...facts].join(' | ')} |`,
      `| --- | ---: |${' ---: |'.repeat(peers.length + facts.length)}`,
      ...group.map((row) => {
        const name = row.name.slice(kind.length + 1)
        const label = precisions.size > 1 ? `${name}, ${row.precision}` : name
        const cells = [
          ...peers.map((peer) => cell(row.peers[peer])),
          ...facts.map((fact) => (fact in row.facts ? figure(row.facts[fact]) : '')),
        ]
        return `| ${label} | ${formatTime(row.ms_median)} | ${cells.join(' | ')} |`
      }),
    )
    const means = peers.flatMap((peer) => {
      const ratios = group.flatMap((row) => {
        const column = row.peers[peer]
        return column && 'ratio' in column ? [column.ratio] : []
      })
      return ratios.length > 1
        ? [`${peer} ${geometricMean(ratios).toFixed(2)}x over ${ratios.length} rows`]
        : []
    })
    if (means.length > 0) lines.push('', `Geometric means: ${means.join(', ')}.`)
  }
  const notes = rows.flatMap((row) => [
    ...row.notes.map((text) => ({ text, name: row.name })),
    ...Object.entries(row.peers).flatMap(([peer, column]) =>
      'not_measured' in column ? [{ text: `${peer}: ${column.not_measured}`, name: row.name }] : [],
    ),
  ])
  if (notes.length > 0) lines.push('')
  for (const [text, same] of groupBy(notes, (note) => note.text)) {
    lines.push(`- ${text}: ${[...new Set(same.map((note) => note.name))].join(', ')}`)
  }
  return `${lines.join('\n')}\n`
}

function groupBy<T>(values: readonly T[], key: (value: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>()
  for (const value of values) {
    const group = groups.get(key(value))
    if (group) group.push(value)
    else groups.set(key(value), [value])
  }
  return groups
}
