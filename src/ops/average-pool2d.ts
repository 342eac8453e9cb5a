import { withoutAutocast } from '../core/autocast.js'
import { ArgumentError, checkOptions, describe } from '../core/errors.js'
import type { Tensor } from '../core/tensor.js'
import { tensor } from './creation.js'
import { matmul } from './matmul.js'
import { checkImages, type PoolOptions, poolGeometry } from './pool2d.js'
import { checkPair, fromBatch, type Pair } from './spatial.js'
import { permute, reshape, t } from './views.js'

/** A window along one axis: positions start to end - 1, whose sum is divided by `divisor`. */
interface Span {
  readonly start: number
  readonly end: number
  readonly divisor: number
}

/** The matrix [spans, size] whose product with a column is the spans' means. */
function averages(x: Tensor, size: number, spans: readonly Span[]): Tensor {
  const a = new Float64Array(spans.length * size)
  spans.forEach(({ start, end, divisor }, row) => {
    a.fill(1 / divisor, row * size + start, row * size + end)
  })
  return tensor(a, { shape: [spans.length, size], dtype: x.dtype, device: x.device })
}

// A mean over rectangles is one over rows and one over columns: y = Aₕ x A_wᵀ. As in any product,
// NaN or an infinity in x reaches all results of its row and column.
function pooled(x: Tensor, rows: readonly Span[], columns: readonly Span[]): Tensor {
  const [n, c, h, w] = x.shape
  const means = () => {
    const alongH = averages(x, h, rows)
    const alongW = averages(x, w, columns)
    if (!x.isChannelsLast) return matmul(alongH, matmul(x, t(alongW)))
    // The matrices of one image lie as [H, W C], those of a row of it as [W, C].
    const images = reshape(permute(x, [0, 2, 3, 1]), [n, h, w * c])
    const means = reshape(matmul(alongH, images), [n, rows.length, w, c])
    return permute(matmul(alongW, means), [0, 3, 1, 2])
  }
  return withoutAutocast(means) // the products are ours, not what the caller asked for
}

export interface AvgPool2dOptions extends PoolOptions {
  /** Whether the zeros around the image count in the mean; default true. */
  countIncludePad?: boolean
}

/**
 * The mean of each window: x [N, C, H, W] (or [C, H, W]) gives [N, C, P, Q] with
 * P = ⌊(H + 2 padding - kernel) / stride⌋ + 1.
 * @throws ShapeError where the window is larger than the padded image
 */
export function avgPool2d(x: Tensor, kernel: Pair, options: AvgPool2dOptions = {}): Tensor {
  checkOptions('avgPool2d', options)
  const input = checkImages('avgPool2d', x)
  const geometry = poolGeometry('avgPool2d', input, kernel, { ...options, dilation: 1 })
  const includePad = options.countIncludePad ?? true
  const spans = ([0, 1] as const).map((i): Span[] => {
    const length = input.shape[2 + i]
    return Array.from({ length: geometry.size[i] }, (_, p) => {
      const first = p * geometry.stride[i] - geometry.padding[i]
      const last = Math.min(first + geometry.kernel[i], length + geometry.padding[i])
      const start = Math.max(first, 0)
      const end = Math.min(last, length)
      return { start, end, divisor: includePad ? last - first : end - start }
    })
  })
  return fromBatch(pooled(input, spans[0], spans[1]), x)
}

/** null keeps the size of that axis. */
export type AdaptiveSize = number | readonly [h: number | null, w: number | null]

/**
 * Means over as many windows as the result has positions: x [N, C, H, W] (or [C, H, W]) gives
 * [N, C, P, Q]; position p is the mean of ⌊p H / P⌋ to ⌈(p + 1) H / P⌉ - 1.
 */
export function adaptiveAvgPool2d(x: Tensor, size: AdaptiveSize): Tensor {
  const input = checkImages('adaptiveAvgPool2d', x)
  const own = [input.shape[2], input.shape[3]]
  const filled = Array.isArray(size) ? size.map((n, i) => n ?? own[i]) : size
  const sizes = checkPair('adaptiveAvgPool2d', 'size', filled, 1)
  if (own.some((length) => length < 1)) {
    throw new ArgumentError(
      `adaptiveAvgPool2d: expected images that are not empty, got ${describe([...x.shape])}`,
    )
  }
  const spans = sizes.map((count, i): Span[] =>
    Array.from({ length: count }, (_, p) => {
      const start = Math.floor((p * own[i]) / count)
      const end = Math.ceil(((p + 1) * own[i]) / count)
      return { start, end, divisor: end - start }
    }),
  )
  return fromBatch(pooled(input, spans[0], spans[1]), x)
}
