// Images with the channels innermost in memory: which convolutions make them, which ops keep them,
// and that nothing else shows it.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, describe, expect, test } from 'vitest'
import {
  autocast,
  capture,
  cat,
  type Device,
  type DType,
  device,
  grad,
  manualSeed,
  noGrad,
  randint,
  randn,
  setFloat32MatmulPrecision,
  type Tensor,
  where,
  zeros,
} from '../../src/index.js'
import { loadSafetensors, saveSafetensors } from '../../src/io/index.js'
import * as nn from '../../src/nn/index.js'
import { SGD } from '../../src/optim/index.js'
import { elements, expectWithin } from '../support/accuracy.js'
import { countCalls } from '../support/call-counts.js'
import { isRealCuda, kernelsOf, testCuda } from '../support/cuda.js'

const { adaptiveAvgPool2d, avgPool2d, conv2d, crossEntropy, maxPool2d, relu } = nn.functional
const cpu = device('cpu')
const cuda = testCuda()
const folder = mkdtempSync(join(tmpdir(), 'adjoint-layout-'))
afterAll(() => rmSync(folder, { recursive: true }))
afterEach(() => setFloat32MatmulPrecision('highest'))

/** x [2, 3, 6, 7] and w [4, 3, 3, 3] convolved with padding: y [2, 4, 6, 7]. */
const draw = (dtype: DType, at: Device) => {
  manualSeed(3)
  const values = [randn([2, 3, 6, 7], { device: cpu }), randn([4, 3, 3, 3], { device: cpu })]
  return values.map((t) =>
    t
      .to(dtype === 'float64' ? 'bfloat16' : dtype)
      .to(dtype)
      .to(at),
  )
}
const convolved = (dtype: DType, at: Device = cuda) => {
  const [x, w] = draw(dtype, at)
  return conv2d(x, w, null, { padding: 1 })
}
const lies = (t: Tensor) => (t.isContiguous ? 'NCHW' : t.isChannelsLast ? 'NHWC' : 'otherwise')

describe('a convolution makes', () => {
  test.each([
    ['bfloat16', 'highest', 'NHWC'],
    ['float16', 'highest', 'NHWC'],
    ['float32', 'highest', 'NCHW'],
    ['float32', 'high', 'NHWC'],
    ['float32', 'medium', 'NHWC'],
    ['float64', 'high', 'NCHW'],
  ] as const)('of %s at precision %s %s', (dtype, precision, want) => {
    setFloat32MatmulPrecision(precision)
    const y = convolved(dtype)
    expect(y.shape).toEqual([2, 4, 6, 7])
    expect(lies(y)).toBe(want)
  })

  test('on the CPU, NCHW', () => {
    setFloat32MatmulPrecision('high')
    for (const dtype of ['bfloat16', 'float32'] as const) {
      expect(lies(convolved(dtype, cpu))).toBe('NCHW')
    }
    const images = randn([2, 3, 3, 4], { device: cpu }).permute([0, 3, 1, 2])
    expect(lies(images.add(1))).toBe('NCHW')
  })

  test('of images that are channels-last, what is faster too', () => {
    const x = randn([1, 4, 4, 2], { device: cuda }).permute([0, 3, 1, 2])
    expect(lies(conv2d(x, randn([3, 2, 2, 2], { device: cuda })))).toBe('NCHW')
  })

  test('of one channel or one pixel, what is both', () => {
    const x = randn([2, 2, 3, 3], { device: cuda }).to('bfloat16')
    const w = (k: number, r: number) => randn([k, 2, r, r], { device: cuda }).to('bfloat16')
    expect(conv2d(x, w(1, 2)).isContiguous).toBe(true)
    expect(conv2d(x, w(3, 3)).isContiguous).toBe(true)
    expect(conv2d(x.slice(0, 0, 0), w(3, 2)).shape).toEqual([0, 3, 2, 2])
  })
})

describe('results keep the order of', () => {
  const y = convolved('bfloat16')
  const channel = randn([4, 1, 1], { device: cuda }).to('bfloat16')
  const small = randn([4], { device: cuda })
  const same: Record<string, () => Tensor> = {
    'a function': () => relu(y),
    'a sum with itself': () => y.add(y),
    'a product with a number': () => y.mul(2),
    'a number before it': () => y.neg().add(1),
    'a product with a channel': () => y.mul(channel),
    'a channel before it': () => channel.mul(y),
    'an expanded gradient before it': () => zeros([], { device: cuda }).expand([2, 4, 6, 7]).add(y),
    'a comparison': () => y.gt(0),
    'a choice': () => where(y.gt(0), y, 0),
    'a conversion': () => y.to('float32'),
    dropout: () => nn.functional.dropout(y, 0.3),
    'max pooling': () => maxPool2d(y, 2),
    'mean pooling': () => avgPool2d(y, 2, { padding: 1 }),
    'adaptive pooling': () => adaptiveAvgPool2d(y, [3, 2]),
    'batch norm': () => nn.functional.batchNorm(y, null, null, { training: true }),
    'batch norm in evaluation': () =>
      nn.functional.batchNorm(y, small, small.abs(), { weight: small, activation: 'relu' }),
    'parts put together': () => cat([y, relu(y)], 1),
    'parts in a row': () => cat([y, y], 2),
  }
  test.each(Object.entries(same))('%s', (_name, make) => {
    expect(lies(make())).toBe('NHWC')
  })

  test('a row-major tensor that comes first', () => {
    expect(lies(zeros([2, 4, 6, 7], { device: cuda }).add(y))).toBe('NCHW')
  })

  test('copies that are asked to be row-major do not', () => {
    expect(lies(y.contiguous())).toBe('NCHW')
    expect(lies(y.clone())).toBe('NCHW')
    expect(y.contiguous().dataSync()).toEqual(y.dataSync())
  })
})

describe('nothing else shows it', () => {
  const both = (f: (y: Tensor) => Tensor) => {
    const [got, want] = [cuda, cpu].map((at) => f(convolved('bfloat16', at)))
    expectWithin(got, want, 2)
  }
  const reads: Record<string, (y: Tensor) => Tensor> = {
    reshape: (y) => y.reshape([4, 84]),
    flatten: (y) => y.flatten(1),
    'flatten of pixels': (y) => y.flatten(2),
    'a view of pixels': (y) => y.view([2, 4, 42]),
    permute: (y) => y.permute([3, 1, 0, 2]),
    transpose: (y) => y.transpose(1, 3).reshape([-1]),
    slices: (y) => y.slice(1, 1, 4, 2).slice(2, 0, null, 2).slice(3, 1, -1),
    'slices, computed with': (y) =>
      y
        .slice(1, 1, 3)
        .mul(2)
        .add(y.slice(1, 0, 2)),
    select: (y) => y.select(1, 2).select(0, 1),
    unbind: (y) => y.unbind(1)[3],
    squeeze: (y) => y.slice(0, 0, 1).squeeze().unsqueeze(1),
    sums: (y) => y.sum([0, 2, 3]),
    means: (y) => y.mean(1),
    maxima: (y) => y.max(3).values,
    softmax: (y) => y.softmax(1),
    matmul: (y) => y.matmul(y.transpose(2, 3)),
    gather: (y) => y.indexSelect(2, randint(0, 6, [4], { device: y.device }).mul(0).add(2)),
  }
  test.each(Object.entries(reads))('%s', (_name, f) => both(f))

  test('reading', async () => {
    const y = convolved('bfloat16')
    const want = elements(convolved('bfloat16', cpu))
    expect(Array.from(await y.data(), Number)).toEqual(want)
    expect((y.toArray() as number[][][][]).flat(3)).toEqual(want)
    expect(Array.from(y.to(cpu).dataSync(), Number)).toEqual(want)
    expect(String(y)).toBe(String(y.contiguous()))
    expect(y.select(0, 1).select(0, 2).select(0, 3).select(0, 4).item()).toBe(
      want[((4 + 2) * 6 + 3) * 7 + 4],
    )
  })

  test('saving and loading', async () => {
    const file = join(folder, 'y.safetensors')
    const y = convolved('bfloat16')
    await saveSafetensors(file, { y })
    const back = loadSafetensors(file)
    expect(elements(back.y)).toEqual(elements(y))
  })

  test('a reshape that has to copy leaves the original alone', () => {
    const y = convolved('bfloat16')
    const before = elements(y)
    y.flatten(1).fill_(0)
    expect(elements(y)).toEqual(before)
    expect(() => y.view([2, -1])).toThrow(/use reshape/)
  })

  const changes: Record<string, (y: Tensor) => Tensor> = {
    'of itself': (y) => y.mul_(2).relu_(),
    'of a channel': (y) => {
      y.select(1, 2).mul_(3)
      return y
    },
    'of a view of rows': (y) => {
      y.slice(2, 1, 4).add_(1)
      return y.square()
    },
    'of pixels seen as a list': (y) => {
      y.view([2, 4, 42]).select(2, 9).fill_(5)
      return y
    },
    'by a row-major tensor': (y) =>
      y.add_(zeros(y.shape, { device: y.device, dtype: y.dtype }).add(1)),
    'that a view sees': (y) => {
      const row = y.slice(3, 2, 3)
      y.mul_(3)
      return row.square()
    },
  }
  test.each(Object.entries(changes))('in-place change %s, with gradients', (_name, change) => {
    const [got, want] = [cuda, cpu].map((at) => {
      const leaves = draw(at === cpu ? 'float64' : 'bfloat16', at).map((t) => t.requiresGrad_())
      const y = change(conv2d(leaves[0], leaves[1], null, { padding: 1 }).mul(0.5))
      return [y, ...grad([y], leaves, { gradOutputs: [y.detach()] })]
    })
    for (const [i, t] of got.entries()) {
      expectWithin(t as Tensor, want[i] as Tensor, 16, String(i), 'bfloat16')
    }
  })

  test('gradients of leaves are row-major', () => {
    const [x, w] = draw('bfloat16', cuda).map((t) => t.requiresGrad_())
    conv2d(x, w, null, { padding: 1 }).square().sum().backward()
    expect(x.grad?.isContiguous).toBe(true)
    expect(w.grad?.isContiguous).toBe(true)
  })
})

/** Two convolutions of 1 x 1, whose filters are the same in both orders. */
class Run extends nn.Module {
  readonly first = new nn.Conv2d(8, 8, 1, { bias: false })
  readonly norm = new nn.BatchNorm2d(8)
  readonly second = new nn.Conv2d(8, 16, 1, { bias: false })

  forward(x: Tensor): Tensor {
    const h = maxPool2d(relu(this.norm.forward(this.first.forward(x))), 2)
    return this.second.forward(h)
  }
}

describe('a run of layers', () => {
  test('turns nothing, forward and backward', () => {
    const run = new Run().to('bfloat16').to(cuda)
    const x = randn([2, 6, 6, 8], { device: cuda }).to('bfloat16').permute([0, 3, 1, 2])
    const leaf = x.detach().requiresGrad_()
    let y = run.forward(leaf)
    let dx: Tensor | null = null
    const dy = y.detach().mul(0.5)
    const step = () => {
      y = run.forward(leaf)
      ;[dx] = grad([y], [leaf, ...run.parameters()], { gradOutputs: [dy] })
    }
    expect([...kernelsOf(cuda, step)].sort()).toEqual(
      [
        ...['batchNorm', 'batchNormBackward', 'conv2d', 'conv2dBackwardInput'],
        ...['conv2dBackwardWeight', 'maxPool2d', 'maxPool2dBackward', 'unary', 'binary'].sort(),
      ].sort(),
    )
    expect([lies(y), lies(dx as unknown as Tensor)]).toEqual(['NHWC', 'NHWC'])
    if (isRealCuda) return
    for (let i = 0; i < 3; i++) step()
    // Three kernels of batch norm each way, ReLU and pooling; the counter of batches.
    const counts = countCalls(step)
    expect(counts).toMatchObject({ libraryCalls: 6, deviceCopies: 0 })
    expect(counts.kernels).toBeLessThanOrEqual(3 + 3 + 2 + 2 + 1)
  })
})

/** [N, 3, H, W] -> [N, 5]: a block with a shortcut of its own and one without. */
class SmallResNet extends nn.Module {
  readonly stem = new nn.Sequential(
    ...[new nn.Conv2d(3, 8, 3, { padding: 1, bias: false }), new nn.BatchNorm2d(8), new nn.ReLU()],
    new nn.MaxPool2d(3, { stride: 2, padding: 1 }),
  )
  readonly block1 = this.block(8, 8, 1)
  readonly block2 = this.block(8, 16, 2)
  readonly shortcut = new nn.Sequential(
    ...[new nn.Conv2d(8, 16, 1, { stride: 2, bias: false }), new nn.BatchNorm2d(16)],
  )
  readonly head = new nn.Linear(16, 5)

  private block(c: number, k: number, stride: number): nn.Sequential {
    return new nn.Sequential(
      ...[new nn.Conv2d(c, k, 3, { stride, padding: 1, bias: false }), new nn.BatchNorm2d(k)],
      ...[
        new nn.ReLU(),
        new nn.Conv2d(k, k, 3, { padding: 1, bias: false }),
        new nn.BatchNorm2d(k),
      ],
    )
  }

  /** With what the layers leave, from the first convolution to the last pooling. */
  trace(x: Tensor): { logits: Tensor; images: Tensor[] } {
    const a = this.stem.forward(x)
    const b = relu(this.block1.forward(a).add(a))
    const c = relu(this.block2.forward(b).add(this.shortcut.forward(b)))
    const pooled = adaptiveAvgPool2d(c, 1)
    return { logits: this.head.forward(pooled.flatten(1)), images: [a, b, c] }
  }

  forward(x: Tensor): Tensor {
    return this.trace(x).logits
  }
}

describe('a small ResNet', () => {
  const prepare = (dtype: DType, at: Device) => {
    manualSeed(11)
    const network = new SmallResNet().to(cpu)
    const x = randn([8, 3, 12, 12], { device: cpu })
    const target = randint(0, 5, [8], { device: cpu })
    network.to(dtype).to(at)
    return { network, x: x.to(dtype).to(at), target: target.to(at) }
  }
  const losses = (dtype: DType, at: Device, isCaptured = false): number[] => {
    const { network, x, target } = prepare(dtype, at)
    const optimizer = new SGD(network.parameters(), { lr: 0.05 })
    const step = (x: Tensor, target: Tensor) => {
      optimizer.zeroGrad()
      const loss = crossEntropy(network.forward(x), target)
      loss.backward()
      optimizer.step()
      return loss
    }
    const run = isCaptured ? capture(step) : step
    return Array.from({ length: 6 }, () => run(x, target).to('float32').item())
  }
  const exact = losses('float64', cpu)

  test.each([
    ['float32', 1e-4],
    ['bfloat16', 0.05],
    ['float16', 0.01],
  ] as const)('learns in %s as on the CPU in float64', (dtype, within) => {
    setFloat32MatmulPrecision('high')
    const got = losses(dtype, cuda)
    got.forEach((loss, i) => {
      expect(Math.abs(loss - exact[i]), `${loss} for ${exact[i]}`).toBeLessThan(within)
    })
    expect(exact[5]).toBeLessThan(exact[0])
    expect(losses(dtype, cuda, true)).toEqual(got)
  })

  test('stays channels-last from the first convolution to the pooling, and back', () => {
    const { network, x, target } = prepare('bfloat16', cuda)
    const { logits, images } = network.trace(x)
    const gradients = grad(crossEntropy(logits, target), images)
    for (const image of [...images, ...gradients]) expect(lies(image as Tensor)).toBe('NHWC')
  })

  test('under autocast', () => {
    const { network, x, target } = prepare('float32', cuda)
    const { logits, images } = autocast('bfloat16', () => network.trace(x))
    const gradients = grad(crossEntropy(logits.to('float32'), target), images)
    for (const image of [...images, ...gradients]) expect(lies(image as Tensor)).toBe('NHWC')
  })

  test('in evaluation', () => {
    const [got, want] = [cuda, cpu].map((at) => {
      const { network, x } = prepare(at === cpu ? 'float64' : 'bfloat16', at)
      network.eval()
      return noGrad(() => network.trace(x))
    })
    expect(got.images.map(lies)).toEqual(['NHWC', 'NHWC', 'NHWC'])
    expectWithin(got.logits, want.logits, 32, 'logits', 'bfloat16')
  })
})
