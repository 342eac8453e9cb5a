// Two GPUs in one process: what each computes and keeps, and what goes from one to the other.
import { afterEach, describe, expect, test } from 'vitest'
import { type Device, openDevices } from '../../src/core/device.js'
import {
  arange,
  cat,
  collectGarbage,
  cuda,
  cudaKernel,
  DeviceError,
  type DType,
  defaultDevice,
  device,
  full,
  Generator,
  getRandomState,
  IndexError,
  manualSeed,
  memoryStats,
  OutOfMemoryError,
  ones,
  profile,
  rand,
  randint,
  randn,
  randperm,
  setDefaultDevice,
  setMemoryCap,
  type Tensor,
  tensor,
  zeros,
} from '../../src/index.js'
import * as nn from '../../src/nn/index.js'
import { elements } from '../support/accuracy.js'
import { twoCards } from '../support/cuda.js'
import { leftBy, nothing } from '../support/live.js'
import { errorOf } from '../support/values.js'

const { hasTwo, first, second } = twoCards()
const cards = [first, second]

afterEach(() => {
  cuda.setDevice(0)
  setDefaultDevice('cpu')
})

describe.skipIf(!hasTwo)('names', () => {
  test('are numbers after cuda:', () => {
    expect([first.index, second.index]).toEqual([0, 1])
    expect([String(first), String(second)]).toEqual(['cuda:0', 'cuda:1'])
    expect(device('cuda:1')).toBe(second)
    expect(device('cuda')).toBe(first)
    expect(openDevices().filter(({ type }) => type === 'cuda')).toEqual(cards)
    expect(cuda.deviceCount()).toBeGreaterThanOrEqual(2)
    expect(cuda.getDeviceName(1)).toBe(second.native.deviceInfo().device)
    expect(cuda.getDeviceCapability('cuda:1')).toHaveLength(2)
  })

  test('beyond the last are an error that says how many there are', () => {
    const count = cuda.deviceCount()
    const expected = `expected an index below ${count}, the number of GPUs, got 'cuda:70'`
    expect(errorOf(DeviceError, () => device('cuda:70'))).toBe(`device: ${expected}`)
    expect(errorOf(DeviceError, () => zeros([2], { device: 'cuda:70' }))).toContain(expected)
    expect(errorOf(DeviceError, () => zeros([2]).to('cuda:70'))).toContain(expected)
    expect(errorOf(DeviceError, () => cuda.synchronize(70))).toContain(expected)
    expect(errorOf(DeviceError, () => cuda.setDevice(70))).toContain(expected)
    expect(cuda.memoryAllocated(70)).toBe(0)
  })

  test('without a number are the current GPU', () => {
    expect(cuda.currentDevice()).toBe(0)
    cuda.setDevice(1)
    expect(cuda.currentDevice()).toBe(1)
    expect(device('cuda')).toBe(second)
    expect(zeros([2], { device: 'cuda' }).device).toBe(second)
    expect(defaultDevice().type).toBe('cpu')
    cuda.setDevice('cuda:0')
    expect(device('cuda')).toBe(first)
    for (const wrong of ['cpu', device('cpu'), 'tpu', -1, 1.5, null]) {
      expect(errorOf(DeviceError, () => cuda.setDevice(wrong as string))).toMatch(
        /^setDevice: expected a GPU such as 1 or 'cuda:1'/,
      )
    }
  })
})

describe.skipIf(!hasTwo)('tensors of the second GPU', () => {
  test('are made there by everything that makes tensors', () => {
    const at = { device: 'cuda:1' }
    const made = [
      tensor([1, 2], at),
      zeros([2], at),
      ones([2], at),
      full([2], 3, at),
      arange(0, 3, 1, at),
      rand([2], at),
      randn([2], at),
      randint(0, 5, [2], at),
      randperm(4, at),
    ]
    for (const x of made) expect(x.device).toBe(second)
    expect(String(made[0])).toBe('Tensor([1., 2.], shape=[2], dtype=float32, device=cuda:1)')
    const layers = [
      new nn.Linear(3, 2, at),
      new nn.BatchNorm2d(2, at),
      new nn.Embedding(5, 2, at),
      new nn.LSTM(2, 3, at),
    ]
    for (const layer of layers) {
      for (const t of [...layer.parameters(), ...layer.buffers()]) expect(t.device).toBe(second)
    }
    setDefaultDevice('cuda:1')
    expect(randn([2]).device).toBe(second)
    expect(new nn.Linear(3, 2).weight.device).toBe(second)
    expect(new Generator().device).toBe(second)
  })

  /** What one body computes, gradients included. */
  const bodies: Record<string, (x: Tensor) => Tensor> = {
    elementwise: (x) => x.mul(2).add(x.t().contiguous().view(x.shape)).tanh().exp(),
    reductions: (x) => x.logSumExp(1).add(x.amax(1)).mul(x.mean(1)),
    products: (x) => x.matmul(x.t()).softmax(1),
    convolution: (x) =>
      nn.functional.conv2d(x.reshape([1, 2, 6, 8]), x.slice(0, 0, 3).reshape([3, 2, 2, 3]), null, {
        padding: 1,
      }),
    attention: (x) => {
      const heads = x.reshape([1, 2, 6, 8])
      return nn.functional.scaledDotProductAttention(heads, heads, heads, { isCausal: true })
    },
    indices: (x) => {
      const index = tensor([0n, 7n, 7n, 2n], { device: x.device })
      return nn.functional.embedding(index, x).add(x.indexSelect(0, index))
    },
    normalisation: (x) => nn.functional.layerNorm(x, 12).add(nn.functional.dropout(x, 0.4)),
    'in place': (x) => x.clone().mul_(3).sub_(x.sigmoid()),
    parts: (x) => cat([x.slice(0, 0, 2), x.slice(0, 4, 8)]).permute([1, 0]),
    halves: (x) => x.bfloat16().matmul(x.t().bfloat16()).float(),
  }
  test.each(Object.entries(bodies))('are computed with as those of the first: %s', (_, body) => {
    manualSeed(1)
    const start = randn([8, 12])
    const [a, b] = cards.map((card) => {
      manualSeed(2)
      const x = start.to(card).requiresGrad_()
      const y = body(x)
      y.square().sum().backward()
      expect([y.device, x.grad?.device]).toEqual([card, card])
      return [elements(y.detach()), elements(x.grad as Tensor)]
    })
    expect(b).toEqual(a)
  })

  test('are what a kernel of the user takes', () => {
    const twice = cudaKernel({
      source: `extern "C" __global__ void twice(const float* x, float* y, int n) {
        const int i = blockIdx.x * blockDim.x + threadIdx.x;
        if (i < n) y[i] = 2 * x[i];
      }`,
      name: 'twice',
      inputs: ['float32'],
      scalars: ['int32'],
      outputs: (x) => [x],
      grid: (x) => Math.ceil(x.numel / 64),
      block: 64,
    })
    for (const card of [second, first]) {
      const y = twice(arange(0, 100, 1, { device: card, dtype: 'float32' }), 100) as Tensor
      expect([y.device, y.sum().item()]).toEqual([card, 9900])
    }
  })
})

test.skipIf(!hasTwo)('both read pinned memory in their own time', () => {
  const x = full([2000], 1).to('cpu').pinMemory()
  const copies = [x.to(first), x.to(second)]
  x.fill_(2)
  copies.push(x.to(second), x.to(first))
  x.dispose()
  expect(copies.map((y) => [y.device, y.select(0, 1999).item()])).toEqual([
    [first, 1],
    [second, 1],
    [second, 2],
    [first, 2],
  ])
})

describe.skipIf(!hasTwo)('copies between GPUs', () => {
  const dtypes: readonly DType[] = [
    ...(['float64', 'float32', 'bfloat16', 'float16'] as const),
    ...(['int64', 'int32', 'int16', 'int8', 'uint8', 'bool'] as const),
  ]
  test.each(dtypes)('of %s: dense, strided, empty', (dtype) => {
    const x = arange(0, 60, 1).reshape([3, 4, 5]).remainder(2).to(dtype).to('cuda:1')
    const views = [x, x.permute([2, 0, 1]), x.slice(1, 1, 4, 2), x.select(0, 1), x.slice(0, 0, 0)]
    for (const view of views) {
      const there = view.to('cuda:0')
      expect([there.device, there.dtype, there.shape]).toEqual([first, dtype, view.shape])
      expect(elements(there)).toEqual(elements(view))
      const back = there.to(second)
      expect(back.device).toBe(second)
      expect(elements(back)).toEqual(elements(view))
    }
  })

  test('leave a tensor that is there already as it is, and may change its dtype', () => {
    const x = tensor([1.5, -2], { device: 'cuda:1' })
    expect(x.to('cuda:1')).toBe(x)
    expect(x.to(second)).toBe(x)
    const y = x.to({ device: 'cuda:0', dtype: 'int32' })
    expect([y.device, y.dtype, elements(y)]).toEqual([first, 'int32', [1, -2]])
    expect(elements(zeros([2, 2], { device: first }).copy_(x))).toEqual([1.5, -2, 1.5, -2])
  })

  test('see what was queued before, and nothing that comes later', () => {
    const x = full([200_000], 1, { device: first })
    const copies: Tensor[] = []
    for (let i = 0; i < 5; i++) {
      x.mul_(2)
      copies.push(x.to(second).add(1))
    }
    x.fill_(-1)
    expect(copies.map((y) => y.mean().item())).toEqual([3, 5, 9, 17, 33])
    const freed = full([100_000], 4, { device: second })
    const kept = freed.to(first)
    freed.dispose()
    const other = full([100_000], 9, { device: second })
    expect([kept.mean().item(), other.mean().item()]).toEqual([4, 9])
  })

  test('carry gradients back', () => {
    const x = tensor([1, 2, 3], { device: first, requiresGrad: true })
    const w = tensor([2, 3, 4], { device: second, requiresGrad: true })
    const y = x.square().to(second).mul(w)
    y.to(first).add(x).sum().backward()
    expect([x.grad?.device, w.grad?.device]).toEqual([first, second])
    expect(elements(x.grad as Tensor)).toEqual([5, 13, 25])
    expect(elements(w.grad as Tensor)).toEqual([1, 4, 9])
  })

  test('leave nothing behind', () => {
    for (const card of cards) {
      const left = leftBy(() => {
        let x = full([1000], 1, { device: first })
        for (let i = 0; i < 200; i++) x = x.to(second).add(1).to(first)
        expect(x.select(0, 3).item()).toBe(201)
      }, card)
      expect(left).toEqual(nothing)
    }
  })

  test('are read without waiting for one another', async () => {
    const x = cards.map((card) => full([1000], 1, { device: card }))
    for (let i = 0; i < 30; i++) for (const t of x) t.add_(1)
    const read = await Promise.all(x.map((t) => t.data()))
    for (const data of read) expect(data).toEqual(new Float32Array(1000).fill(31))
  })
})

describe.skipIf(!hasTwo)('operands on two GPUs', () => {
  const here = tensor([[1, 2]], { device: first })
  const there = tensor([[3, 4]], { device: second })
  const cases: Record<string, () => unknown> = {
    add: () => here.add(there),
    'in place': () => here.add_(there),
    matmul: () => here.matmul(there.t()),
    cat: () => cat([here, there]),
    'a layer': () => new nn.Linear(2, 2, { device: second }).forward(here),
    crossEntropy: () => nn.functional.crossEntropy(here, tensor([0n], { device: second })),
  }
  test.each(Object.entries(cases))('are an error that names both: %s', (_, body) => {
    expect(errorOf(DeviceError, body)).toMatch(
      /^\w+: expected all tensors to be on the same device, got cuda:[01] and cuda:[01]$/,
    )
  })

  test('are an error in gradients and generators too', () => {
    const x = tensor([1], { device: first, requiresGrad: true })
    const assign = () => {
      x.grad = tensor([1], { device: second })
    }
    expect(errorOf(DeviceError, assign)).toMatch(/^grad: .*cuda:0 and cuda:1/)
    const generator = new Generator({ device: second })
    expect(() => rand([2], { device: first, generator })).toThrow(/on cuda:0, got one on cuda:1/)
  })
})

describe.skipIf(!hasTwo)('what each GPU keeps', () => {
  test('is counted for it alone', () => {
    collectGarbage(first)
    collectGarbage(second)
    const [a, b] = [cuda.memoryAllocated(0), cuda.memoryAllocated(1)]
    const x = full([1_000_000], 1, { device: second })
    expect(cuda.memoryAllocated(0)).toBe(a)
    expect(cuda.memoryAllocated(second) - b).toBe(4_000_000)
    expect(memoryStats('cuda:1').liveBytes).toBeGreaterThanOrEqual(4_000_000)
    expect(cuda.maxMemoryAllocated(1)).toBeGreaterThanOrEqual(b + 4_000_000)
    cuda.resetPeakMemoryStats(1)
    cuda.setDevice(1)
    expect(cuda.memoryAllocated() - b).toBe(4_000_000)
    expect(cuda.memoryReserved()).toBeGreaterThanOrEqual(4_000_000)
    x.dispose()
    cuda.emptyCache()
    expect(cuda.memoryAllocated()).toBe(b)
  })

  test('has a limit of its own', () => {
    collectGarbage(second)
    setMemoryCap(cuda.memoryReserved(1) + 8e6, 'cuda:1')
    try {
      expect(errorOf(OutOfMemoryError, () => full([20_000_000], 1, { device: second }))).toMatch(
        /on cuda:1, got none/,
      )
      full([20_000_000], 1, { device: first }).dispose()
    } finally {
      setMemoryCap(0, second)
    }
  })

  test('is seen in a profile', () => {
    const report = profile(() => {
      const x = full([1000], 1, { device: first })
      return x.add(1).to(second).mul(2).tanh()
    })
    const devices = (name: string) =>
      report.calls.filter((call) => call.name === name).map((call) => call.device)
    expect(devices('binary.add')).toEqual(['cuda:0'])
    expect(devices('fromDevice')).toEqual(['cuda:1'])
    expect(devices('binary.mul')).toEqual(['cuda:1'])
    expect(report.table()).toMatch(/^unary\.tanh +cuda:1 +1 /m)
  })

  test('are errors of its kernels', () => {
    const x = tensor([1, 2, 3], { device: second })
    x.indexSelect(0, tensor([5n], { device: second }))
    cuda.synchronize(0)
    expect(() => cuda.synchronize(1)).toThrow(IndexError)
    cuda.synchronize(1)
  })

  test('is a stream of random numbers, the one of the CPU', () => {
    manualSeed(10)
    const draw = (at: Device) => {
      const options = { device: at }
      return [rand([7], options), randint(0, 99, [7], options), randperm(9, options)].map(elements)
    }
    const [a, b, c] = [device('cpu'), first, second].map(draw)
    expect(b).toEqual(a)
    expect(c).toEqual(a)
    manualSeed(11, 'cuda:1')
    expect(getRandomState('cuda:1').seed).toBe(11n)
    expect(getRandomState('cuda:0').seed).toBe(10n)
  })
})
