import { isFloating } from './dtype.js'
import type { Tensor } from './tensor.js'

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

/** What is shown of a tensor: rows of elements, nested as its axes are; null stands for a gap. */
type Shown = readonly (number | bigint | null)[] | readonly (Shown | null)[]

/** Reads no more than that. */
function read(t: Tensor, cut: boolean): Shown {
  const size = t.shape[0]
  const isLong = cut && size > 2 * EDGE_ITEMS
  if (t.ndim === 1) {
    if (!isLong) return [...t.dataSync()]
    const ends = [t.slice(0, 0, EDGE_ITEMS), t.slice(0, size - EDGE_ITEMS, size)]
    const [first, last] = ends.map((end) => [...end.dataSync()])
    return [...first, null, ...last]
  }
  const parts = (from: number, to: number) =>
    Array.from({ length: to - from }, (_, i) => read(t.select(0, from + i), cut))
  if (!isLong) return parts(0, size)
  return [...parts(0, EDGE_ITEMS), null, ...parts(size - EDGE_ITEMS, size)]
}

/** Nested brackets with aligned columns; long axes are cut in the middle. */
function formatElements(t: Tensor): string {
  const floating = isFloating(t.dtype)
  const shown = t.ndim === 0 ? [...t.dataSync()] : read(t.detach(), t.numel > MAX_SHOWN)
  const values = (shown as readonly unknown[]).flat(t.ndim) as (number | bigint | null)[]
  const whole = floating && values.every((v) => v === null || Number.isInteger(v))
  const digits = floating && !whole ? 4 : 0
  const show = (value: number | bigint | null): string => {
    if (value === null) return '…'
    return t.dtype === 'bool' ? String(value !== 0) : formatNumber(value, floating, digits)
  }
  if (t.ndim === 0) return show(values[0])
  const width = Math.max(0, ...values.map((value) => show(value).length))
  const render = (node: Shown | null, depth: number): string => {
    if (node === null) return '…'
    if (depth === t.ndim - 1) {
      const cells = node as readonly (number | bigint | null)[]
      return `[${cells.map((value) => show(value).padStart(width)).join(', ')}]`
    }
    const gap = `,${'\n'.repeat(Math.max(1, t.ndim - 1 - depth))}${' '.repeat(8 + depth)}`
    const items = node as readonly (Shown | null)[]
    return `[${items.map((item) => render(item, depth + 1)).join(gap)}]`
  }
  return render(shown, 0)
}

/** As PyTorch prints it: the elements, then shape, dtype, device and what made it. */
export function formatTensor(t: Tensor): string {
  const facts = [`shape=[${t.shape.join(', ')}]`, `dtype=${t.dtype}`]
  if (t.device.type !== 'cpu') facts.push(`device=${t.device}`)
  if (t.isDisposed) return `Tensor(disposed, ${facts.join(', ')})`
  const edge = t.gradEdge()
  if (edge !== null) facts.push(edge.node.isLeaf ? 'requiresGrad' : `gradFn=${edge.node.name}`)
  return `Tensor(${formatElements(t)}, ${facts.join(', ')})`
}
