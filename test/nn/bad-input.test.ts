import { describe, expect, test } from 'vitest'
import { AdjointError, type DType, ones, synchronize, tensor, zeros } from '../../src/index.js'
import * as nn from '../../src/nn/index.js'

const F = nn.functional

describe('bad input', () => {
  const x = ones([2, 2, 5, 5])
  const w = ones([3, 2, 3, 3])
  const disposed = ones([2, 2, 5, 5])
  disposed.dispose()
  const any = <T>(value: unknown) => value as T
  const numbers: unknown[] = [
    0,
    -1,
    1.5,
    Number.NaN,
    Number.POSITIVE_INFINITY,
    2 ** 40,
    '2',
    null,
    [1],
  ]
  const integer = zeros([2, 2, 5, 5], { dtype: 'int32' })
  const rows: Record<string, (() => unknown)[]> = {
    conv2d: [
      ...numbers.map((stride) => () => F.conv2d(x, w, null, { stride: any(stride) })),
      ...numbers.map((dilation) => () => F.conv2d(x, w, null, { dilation: any(dilation) })),
      ...numbers.map((groups) => () => F.conv2d(x, w, null, { groups: any(groups) })),
      ...numbers.slice(1).map((padding) => () => F.conv2d(x, w, null, { padding: any(padding) })),
      () => F.conv2d(x, w, null, { padding: any('full') }),
      () => F.conv2d(x, w, null, { padding: 'same', stride: 2 }),
      () => F.conv2d(x, w, null, { padding: 2 ** 31 - 1 }),
      () => F.conv2d(x, w, null, any(null)),
      () => F.conv2d(x, ones([3, 2, 6, 3])),
      () => F.conv2d(x, ones([3, 1, 3, 3])),
      () => F.conv2d(x, ones([3, 2, 0, 3])),
      () => F.conv2d(x, ones([3, 2])),
      () => F.conv2d(ones([5, 5]), w),
      () => F.conv2d(x, w, ones([2])),
      () => F.conv2d(x, w.double()),
      () => F.conv2d(integer, w.int()),
      () => F.conv2d(disposed, w),
      () => F.conv2d(any([1]), w),
      () => F.conv2d(x, any(null)),
      () => new nn.Conv2d(0, 1, 3),
      () => new nn.Conv2d(3, 4, 3, { groups: 2 }),
      () => new nn.Conv2d(1, 1, any('3')),
      () => new nn.Conv2d(2 ** 30, 2 ** 30, 3),
    ],
    maxPool2d: [
      ...numbers.map((kernel) => () => F.maxPool2d(x, any(kernel))),
      ...numbers.map((stride) => () => F.maxPool2d(x, 2, { stride: any(stride) })),
      () => F.maxPool2d(x, 2, { padding: 2 }),
      () => F.maxPool2d(x, 6),
      () => F.maxPool2d(integer, 2),
      () => F.maxPool2d(disposed, 2),
      () => F.maxPool2d(any(null), 2),
      () => F.maxPool2d(x, 2, any(3)),
      () => F.maxPool2d(ones([4]), 2),
    ],
    averages: [
      ...numbers.map((kernel) => () => F.avgPool2d(x, any(kernel))),
      ...numbers.map((size) => () => F.adaptiveAvgPool2d(x, any(size))),
      () => F.avgPool2d(x, 2, { padding: 2 }),
      () => F.avgPool2d(x, 2, any(null)),
      () => F.avgPool2d(integer, 2),
      () => F.adaptiveAvgPool2d(ones([1, 1, 0, 2]), 1),
      () => F.adaptiveAvgPool2d(disposed, 1),
    ],
    scaledDotProductAttention: [
      () => F.scaledDotProductAttention(ones([2]), ones([2, 2]), ones([2, 2])),
      () => F.scaledDotProductAttention(ones([3, 2]), ones([4, 3]), ones([4, 2])),
      () => F.scaledDotProductAttention(ones([3, 2]), ones([4, 2]), ones([3, 2])),
      () => F.scaledDotProductAttention(ones([2, 3, 2]), ones([3, 3, 2]), ones([3, 3, 2])),
      () => F.scaledDotProductAttention(integer, integer, integer),
      () => F.scaledDotProductAttention(ones([2, 2]), ones([2, 2]).double(), ones([2, 2])),
      () => F.scaledDotProductAttention(ones([2, 2]), ones([2, 2]), disposed),
      ...[ones([3, 2]), ones([1, 2, 2]), ones([2, 2]).double(), integer, disposed, 5].map(
        (attnMask) => () =>
          F.scaledDotProductAttention(ones([2, 2]), ones([2, 2]), ones([2, 2]), any({ attnMask })),
      ),
      ...[
        { attnMask: ones([2, 2]), isCausal: true },
        { isCausal: 1 },
        { scale: Number.NaN },
        { scale: '1' },
        { dropoutP: 1.5 },
        { dropoutP: '0' },
        { dropoutP: 0.5, generator: 1 },
      ].map(
        (options) => () =>
          F.scaledDotProductAttention(ones([2, 2]), ones([2, 2]), ones([2, 2]), any(options)),
      ),
    ],
    batchNorm: [
      () => F.batchNorm(x, null, null),
      () => F.batchNorm(ones([1, 2]), null, null, { training: true }),
      () => F.batchNorm(x, ones([3]), ones([2])),
      () => F.batchNorm(x, ones([2]), ones([2]), { weight: ones([2, 1]) }),
      () => F.batchNorm(x, ones([2]), ones([2]), { eps: -1 }),
      () => F.batchNorm(x, ones([2]), ones([2]), { momentum: Number.NaN }),
      () => F.batchNorm(x, null, null, { training: true, numBatchesTracked: ones([]) }),
      () => F.batchNorm(x, null, null, { training: true, numBatchesTracked: ones([2]).long() }),
      () => F.batchNorm(x, null, null, { training: true, numBatchesTracked: any(1) }),
      () => F.batchNorm(ones([4]), null, null),
      () => F.batchNorm(integer, null, null, { training: true }),
      () => F.batchNorm(disposed, null, null, { training: true }),
      () => F.batchNorm(any('x'), null, null),
      () => new nn.BatchNorm2d(2).forward(ones([2, 2])),
      () => new nn.BatchNorm1d(2).forward(x),
      () => new nn.BatchNorm1d(1.5),
      () => new nn.BatchNorm1d(2, { eps: any('small') }),
    ],
    layerNorm: [
      ...[[4], [2, 5], [], [5, 5, 5, 5, 5], '5', null, [5.5]].map(
        (shape) => () => F.layerNorm(x, any(shape)),
      ),
      () => F.layerNorm(x, 5, { weight: ones([4]) }),
      () => F.layerNorm(x, [5, 5], { bias: ones([5]) }),
      () => F.layerNorm(x, 5, { eps: -1 }),
      () => F.layerNorm(x, 5, any(null)),
      () => F.layerNorm(integer, 5),
      () => F.layerNorm(disposed, 5),
      () => F.rmsNorm(x, 4),
      () => F.rmsNorm(x, 5, { weight: ones([5, 5]) }),
      () => F.rmsNorm(x, 5, { weight: any([1]) }),
      () => F.rmsNorm(x, 5, { eps: Number.NaN }),
      () => F.rmsNorm(integer, 5),
      () => new nn.LayerNorm(0),
      () => new nn.LayerNorm([]),
      () => new nn.LayerNorm(any('5')),
      () => new nn.LayerNorm(5, { eps: any('small') }),
      () => new nn.LayerNorm(5).forward(ones([5, 4])),
      () => new nn.RMSNorm([5, -1]),
      () => new nn.RMSNorm(5, { eps: -1 }),
    ],
    embedding: [
      ...[[2n], [-1n], [2n ** 62n], [-(2n ** 63n)]].map(
        (rows) => () => F.embedding(tensor(rows), ones([2, 3])),
      ),
      ...[2, -3, 0.5, '0', Number.NaN].map(
        (paddingIdx) => () =>
          F.embedding(tensor([0n]), ones([2, 3]), { paddingIdx: any(paddingIdx) }),
      ),
      () => F.embedding(tensor([0]), ones([2, 3])),
      () => F.embedding(tensor([0n]), ones([2])),
      () => F.embedding(tensor([0n]), zeros([2, 3], { dtype: 'int32' })),
      () => F.embedding(tensor([0n]), any(null)),
      () => F.embedding(any([0]), ones([2, 3])),
      () => F.embedding(tensor([0n]), ones([0, 3])),
      () => F.embedding(tensor([0n]), ones([2, 3]), any(null)),
      () => new nn.Embedding(0, 3),
      () => new nn.Embedding(3, 1.5),
      () => new nn.Embedding(3, 2, { paddingIdx: 3 }),
      () => new nn.Embedding(3, 2).forward(tensor([3n])),
    ],
    losses: [
      () => F.crossEntropy(ones([2, 3]), tensor([0n, 3n])).item(),
      () => F.crossEntropy(ones([2, 3]), tensor([0n, -1n])).item(),
      () => F.nllLoss(ones([2, 3]), tensor([0n, 3n])).item(),
      () => F.crossEntropy(ones([2, 3]), tensor([0n])),
      () => F.crossEntropy(ones([2, 3]), tensor([[0n], [1n]])),
      () => F.crossEntropy(ones([2, 3]), ones([2])),
      () => F.crossEntropy(ones([2, 3]), tensor([true, false])),
      () => F.crossEntropy(integer, tensor([0n, 1n])),
      () => F.crossEntropy(tensor(1), tensor(0n)),
      () => F.crossEntropy(ones([2, 3]), tensor([0n, 1n]), { reduction: any('average') }),
      () => F.crossEntropy(ones([2, 3]), tensor([0n, 1n]), { weight: ones([2]) }),
      () => F.crossEntropy(ones([2, 3]), tensor([0n, 1n]), { labelSmoothing: 1.5 }),
      () => F.crossEntropy(ones([2, 3]), tensor([0n, 1n]), { ignoreIndex: 0.5 }),
      () => F.crossEntropy(disposed, disposed),
      () => F.crossEntropy(any(null), tensor([0n])),
      () => F.crossEntropy(ones([2, 3]), any([0, 1])),
      () => F.mseLoss(ones([2]), ones([2, 1])),
      () => F.mseLoss(integer, integer),
      () => F.l1Loss(ones([2]), any(3)),
      () => F.binaryCrossEntropyWithLogits(ones([2]), ones([3])),
      () => F.binaryCrossEntropyWithLogits(ones([2]), ones([2]), { weight: ones([3, 2]) }),
      () => F.binaryCrossEntropyWithLogits(ones([2]), ones([2]), any(null)),
    ],
    activations: [
      ...[{}, '1', Number.NaN].flatMap((value) => [
        () => F.elu(x, { alpha: any(value) }),
        () => F.leakyRelu(x, { negativeSlope: any(value) }),
        () => F.softplus(x, { beta: any(value) }),
        () => F.softplus(x, { threshold: any(value) }),
        () => new nn.ELU({ alpha: any(value) }),
      ]),
      () => F.elu(integer),
      () => F.leakyRelu(integer),
      () => F.elu(disposed),
      () => F.gelu(x, { approximate: any('erf') }),
      () => new nn.LeakyReLU({ negativeSlope: any('steep') }),
      () => new nn.Softplus({ beta: any([1]) }),
    ],
    dropout: [
      ...[-0.1, 1.1, Number.NaN, '0.5', null].map((p) => () => F.dropout(x, any(p))),
      () => F.dropout(integer, 0.5),
      () => F.dropout(disposed, 0.5),
      () => F.dropout(any(undefined), 0.5),
      () => new nn.Dropout(2),
    ],
    init: [
      () => nn.init.uniform_(any(3)),
      () => nn.init.normal_(integer),
      () => nn.init.normal_(x, 0, -1),
      () => nn.init.kaimingUniform_(ones([2])),
      () => nn.init.kaimingUniform_(x, { mode: any('fan') }),
      () => nn.init.kaimingUniform_(x, { nonlinearity: any('swish') }),
      () => nn.init.truncNormal_(x, 0, 1, 5, 6),
      () => nn.init.truncNormal_(x, 0, 0),
      () => nn.init.orthogonal_(ones([3])),
      () => nn.init.eye_(x),
      () => new nn.Linear(any('4'), 2),
      () => new nn.Linear(4, -2),
      () => new nn.Linear(4, 2, { dtype: any<DType>('int64') as 'float32' }),
      () => new nn.Linear(4, 2).forward(ones([3, 5])),
      () => new nn.Parameter(any([1, 2])),
      () => new nn.Parameter(disposed),
    ],
  }

  test.each(Object.entries(rows))('%s: every one a typed error with a message', (_name, bodies) => {
    bodies.forEach((body, i) => {
      let error: unknown
      try {
        body()
        synchronize()
      } catch (e) {
        error = e
      }
      expect(error, `row ${i}: ${body}`).toBeInstanceOf(AdjointError)
      expect((error as Error).message, String(body)).toMatch(/: expected/)
    })
    // and the library goes on
    expect(F.conv2d(x, w).shape).toEqual([2, 3, 3, 3])
  })
})
