// The single ops that are timed on a GPU: what each computes, and how many bytes it must at least
// move (each input read once, each result written once) or how much it must multiply.
import { arange, type DType, type Tensor } from 'adjoint'
import * as nn from 'adjoint/nn'
import { AdamW } from 'adjoint/optim'

const f = nn.functional

/** What both sides compute; the peer reads it as JSON (torch_gpu.py). */
export interface OpArguments {
  readonly op: string
  readonly sizes: readonly number[]
  readonly dtype: 'float32' | 'float16' | 'bfloat16'
  /** Whether float32 products may be rounded to TF32, on both sides. */
  readonly tf32?: boolean
  readonly backward?: boolean
}

export interface OpCase extends OpArguments {
  readonly name: string
  readonly bytes?: number
  readonly flop?: number
}

/**
 * Numbers of [-0.5, 0.5) that look random and are the same on both sides: a linear congruence of the
 * element's index. int64 arithmetic on the device.
 */
export function hashed(shape: readonly number[], seed: number, dtype: DType): Tensor {
  const n = shape.reduce((a, b) => a * b, 1)
  const i = arange(0, n, 1, { dtype: 'int64' })
  const h = i.add(seed).mul(1103515245).add(12345).remainder(2147483648)
  return h
    .to('float64')
    .div(2147483648)
    .sub(0.5)
    .to(dtype)
    .reshape([...shape])
}

const classes = (n: number, count: number) =>
  arange(0, n, 1, { dtype: 'int64' }).mul(7919).remainder(count)

/** One run of a case. Returns what is compared. */
export type Run = () => Tensor[]

type Maker = (c: OpArguments) => Run

/** y = forward(); with `backward` the gradients of sum(y g) too, in a run's time. */
function withGradients(c: OpArguments, leaves: Tensor[], forward: () => Tensor): Run {
  if (!c.backward) return () => [forward()]
  let g: Tensor | undefined
  for (const leaf of leaves) leaf.requiresGrad_()
  return () => {
    for (const leaf of leaves) leaf.grad = null
    const y = forward()
    g ??= hashed(y.shape, 99, y.dtype)
    y.backward(g)
    return [y.detach(), ...leaves.map((leaf) => leaf.grad as Tensor)]
  }
}

const unary =
  (op: (x: Tensor) => Tensor): Maker =>
  (c) => {
    const x = hashed(c.sizes, 1, c.dtype).mul(4)
    return withGradients(c, [x], () => op(x))
  }

export const makers: Readonly<Record<string, Maker>> = {
  copy: unary((x) => x.clone()),
  add: (c) => {
    const [x, y] = [hashed(c.sizes, 1, c.dtype), hashed(c.sizes, 2, c.dtype)]
    return withGradients(c, [x, y], () => x.add(y))
  },
  gelu: unary(f.gelu),
  tanh: unary(f.tanh),
  sum: unary((x) => x.sum(-1)),
  softmax: unary((x) => f.softmax(x, -1)),
  'layer norm': (c) => {
    const width = c.sizes[c.sizes.length - 1]
    const x = hashed(c.sizes, 1, c.dtype)
    const [weight, bias] = [hashed([width], 2, c.dtype), hashed([width], 3, c.dtype)]
    return withGradients(c, [x, weight, bias], () => f.layerNorm(x, width, { weight, bias }))
  },
  'batch norm': (c) => {
    const x = hashed(c.sizes, 1, c.dtype)
    const [weight, bias] = [2, 3].map((seed) => hashed([c.sizes[1]], seed, 'float32'))
    return withGradients(c, [x, weight, bias], () =>
      f.batchNorm(x, null, null, { weight, bias, training: true }),
    )
  },
  'cross-entropy': (c) => {
    const logits = hashed(c.sizes, 1, c.dtype).mul(8)
    const target = classes(c.sizes[0], c.sizes[1])
    return withGradients(c, [logits], () => f.crossEntropy(logits, target))
  },
  embedding: (c) => {
    const [vocabulary, width, tokens] = c.sizes
    const weight = hashed([vocabulary, width], 1, c.dtype)
    const index = classes(tokens, vocabulary)
    return withGradients(c, [weight], () => f.embedding(index, weight))
  },
  product: (c) => {
    const [batch, m, n, k] = c.sizes
    const lead = batch > 1 ? [batch] : []
    const [a, b] = [hashed([...lead, m, k], 1, c.dtype), hashed([...lead, k, n], 2, c.dtype)]
    return withGradients(c, [a, b], () => a.matmul(b))
  },
  convolution: (c) => {
    const [n, channels, size, filters, window, stride] = c.sizes
    const x = hashed([n, channels, size, size], 1, c.dtype)
    const w = hashed([filters, channels, window, window], 2, c.dtype)
    const options = { stride, padding: window >> 1 }
    return withGradients(c, [x, w], () => f.conv2d(x, w, null, options))
  },
  attention: (c) => {
    const [q, k, v] = [1, 2, 3].map((seed) => hashed(c.sizes, seed, c.dtype).mul(2))
    return withGradients(c, [q, k, v], () =>
      f.scaledDotProductAttention(q, k, v, { isCausal: true }),
    )
  },
  // The parameters after a step on the same gradients, over 100 million of them.
  adamw: (c) => {
    const [count, size] = c.sizes
    const parameters = Array.from({ length: count }, (_, i) => hashed([size], i, 'float32'))
    for (const p of parameters) {
      p.requiresGrad_()
      p.grad = hashed([size], 1000, 'float32')
    }
    const optimizer = new AdamW(parameters, { lr: 1e-3 })
    return () => {
      optimizer.step()
      return [parameters[0].detach(), parameters[count - 1].detach()]
    }
  },
}

const itemSize = { float32: 4, float16: 2, bfloat16: 2 } as const
const numel = (sizes: readonly number[]) => sizes.reduce((a, b) => a * b, 1)

/** `passes`: how often an element of x's size is read or written. */
function memoryBound(
  name: string,
  passes: number,
  c: Omit<OpArguments, 'op'> & { op?: string },
): OpCase {
  const op = c.op ?? name
  const bytes = passes * numel(c.sizes) * itemSize[c.dtype]
  const both = c.backward ? ' and gradient' : ''
  return { ...c, op, bytes, name: `${name}${both} ${c.dtype} [${c.sizes}]` }
}

function product(dtype: OpArguments['dtype'], sizes: number[], tf32 = false): OpCase {
  const [batch, m, n, k] = sizes
  const flop = 2 * batch * m * n * k
  const kind = tf32 ? 'tf32' : dtype
  return { op: 'product', sizes, dtype, tf32, flop, name: `product ${kind} [${sizes}]` }
}

function convolution(dtype: OpArguments['dtype'], sizes: number[], backward: boolean): OpCase {
  const [n, channels, size, filters, window, stride] = sizes
  const flop = 2 * n * filters * (size / stride) ** 2 * channels * window ** 2 * (backward ? 3 : 1)
  const both = backward ? ' and gradients' : ''
  const name = `convolution${both} ${dtype === 'float32' ? 'tf32' : dtype} [${sizes}]`
  return { op: 'convolution', sizes, dtype, tf32: true, flop, backward, name }
}

const WIDE = [64, 1024, 1024] as const

/** ResNet-50's at batch 128: images, channels, size, filters, window, stride. */
const RESNET50 = [
  [128, 3, 224, 64, 7, 2],
  [128, 64, 56, 64, 1, 1],
  [128, 64, 56, 64, 3, 1],
  [128, 128, 28, 128, 3, 1],
  [128, 256, 14, 256, 3, 1],
  [128, 512, 7, 512, 3, 1],
  [128, 1024, 14, 2048, 1, 2],
]

export const opCases: readonly OpCase[] = [
  memoryBound('copy', 2, { sizes: WIDE, dtype: 'float32' }),
  memoryBound('add', 3, { sizes: WIDE, dtype: 'float32' }),
  memoryBound('add', 3, { sizes: WIDE, dtype: 'bfloat16' }),
  memoryBound('gelu', 2, { sizes: WIDE, dtype: 'float32' }),
  memoryBound('gelu', 2, { sizes: WIDE, dtype: 'bfloat16' }),
  memoryBound('tanh', 5, { sizes: WIDE, dtype: 'float32', backward: true }),
  memoryBound('sum', 1, { sizes: WIDE, dtype: 'float32' }),
  memoryBound('softmax', 2, { sizes: [65536, 1024], dtype: 'float32' }),
  memoryBound('softmax', 5, { sizes: [65536, 1024], dtype: 'bfloat16', backward: true }),
  memoryBound('layer norm', 2, { sizes: [65536, 1024], dtype: 'float32' }),
  memoryBound('layer norm', 5, { sizes: [65536, 1024], dtype: 'float32', backward: true }),
  memoryBound('layer norm', 5, { sizes: [65536, 768], dtype: 'bfloat16', backward: true }),
  memoryBound('batch norm', 3, { sizes: [128, 64, 56, 56], dtype: 'float32' }),
  memoryBound('batch norm', 8, { sizes: [128, 64, 56, 56], dtype: 'float32', backward: true }),
  memoryBound('cross-entropy', 3, { sizes: [8192, 50257], dtype: 'float32', backward: true }),
  memoryBound('cross-entropy', 3, { sizes: [8192, 50257], dtype: 'bfloat16', backward: true }),
  memoryBound('adamw', 7, { sizes: [20, 5_000_000], dtype: 'float32' }),
  {
    name: 'embedding and gradient float32 [50257,768,8192]',
    op: 'embedding',
    sizes: [50257, 768, 8192],
    dtype: 'float32',
    backward: true,
    // The gradient of all rows is written, the tokens' rows are read twice and written once.
    bytes: 4 * 768 * (50257 + 3 * 8192),
  },
  product('float32', [1, 4096, 4096, 4096]),
  product('float32', [1, 4096, 4096, 4096], true),
  product('bfloat16', [1, 4096, 4096, 4096]),
  product('float16', [1, 4096, 4096, 4096]),
  product('bfloat16', [1, 8192, 8192, 8192]),
  product('bfloat16', [1, 65536, 1024, 256]),
  product('bfloat16', [128, 512, 512, 64]),
  ...RESNET50.map((sizes) => convolution('bfloat16', sizes, true)),
  ...RESNET50.slice(2, 5).map((sizes) => convolution('float32', sizes, true)),
  ...(['bfloat16', 'float32'] as const).flatMap((dtype) =>
    [false, true].map((backward): OpCase => {
      const sizes = [8, 12, 1024, 64]
      // Half of the scores are hidden; two products forward, five backward.
      const flop = (backward ? 7 : 2) * 8 * 12 * 1024 * 1024 * 64
      const both = backward ? ' and gradients' : ''
      return {
        op: 'attention',
        sizes,
        dtype,
        backward,
        flop,
        name: `attention${both} ${dtype} [${sizes}]`,
      }
    }),
  ),
]
