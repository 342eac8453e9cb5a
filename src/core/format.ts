import type { Tensor, TypedArray } from './tensor.js'

/** Axes longer than this are shown by their ends, as in numpy and PyTorch. */
const MAX_SHOWN = 1000
const EDGE_ITEMS = 3

function formatNumber(value: number | bigint, floating: boolean, digits: number): string {
  if (typeof value === 'bigint' || !floating || !Number.isFinite(value)) return String(value)
  if (Number.isInteger(value) && digits === 0) return `${value}.`
  const magnitude = Math.abs(value)
  if (value !== 0 && (magnitude < 1e-4 || magnitude >= 1e8)) return value.toExponential(4)
  return value.toFixed(digits)
}

/** Nested brackets with aligned columns; long axes are cut in the middle. */
function formatElements(t: Tensor, flat: TypedArray): string {
  const floating = flat instanceof Float32Array || flat instanceof Float64Array
  const whole = floating && (flat as Float32Array).every((v) => Number.isInteger(v))
  const digits = floating && !whole ? 4 : 0
  const cut = flat.length > MAX_SHOWN
  const show = (i: number): string =>
    t.dtype === 'bool'
      ? flat[i] !== 0
        ? 'true'
        : 'false'
      : formatNumber(flat[i], floating, digits)

  const rows: string[][] = []
  const indices = (size: number): number[] => {
    const all = Array.from({ length: size }, (_, i) => i)
    if (!cut || size <= 2 * EDGE_ITEMS) return all
    return [...all.slice(0, EDGE_ITEMS), -1, ...all.slice(-EDGE_ITEMS)]
  }
  const collect = (axis: number, start: number): unknown => {
    const size = t.shape[axis]
    const inner = t.shape.slice(axis + 1).reduce((a, b) => a * b, 1)
    const picked = indices(size)
    if (axis === t.ndim - 1) {
      const row = picked.map((i) => (i < 0 ? '…' : show(start + i)))
      rows.push(row)
      return row
    }
    return picked.map((i) => (i < 0 ? null : collect(axis + 1, start + i * inner)))
  }
  if (t.ndim === 0) return show(0)
  const tree = collect(0, 0)
  const width = Math.max(0, ...rows.flatMap((row) => row.map((cell) => cell.length)))
  const render = (node: unknown, depth: number): string => {
    if (node === null) return '…'
    const items = node as (string | unknown)[]
    if (depth === t.ndim - 1) {
      return `[${items.map((cell) => (cell as string).padStart(width)).join(', ')}]`
    }
    const gap = `,${'\n'.repeat(Math.max(1, t.ndim - 1 - depth))}${' '.repeat(8 + depth)}`
    return `[${items.map((item) => render(item, depth + 1)).join(gap)}]`
  }
  return render(tree, 0)
}

/** As PyTorch prints it: the elements, then shape, dtype, device and what made it. */
export function formatTensor(t: Tensor): string {
  const facts = [`shape=[${t.shape.join(', ')}]`, `dtype=${t.dtype}`]
  if (t.device.type !== 'cpu') facts.push(`device=${t.device}`)
  if (t.isDisposed) return `Tensor(disposed, ${facts.join(', ')})`
  const edge = t.gradEdge()
  if (edge !== null) facts.push(edge.node.isLeaf ? 'requiresGrad' : `gradFn=${edge.node.name}`)
  return `Tensor(${formatElements(t, t.dataSync())}, ${facts.join(', ')})`
}
