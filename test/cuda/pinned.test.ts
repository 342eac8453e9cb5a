// Tensors of the CPU in pinned memory, and copies of them to the device, which happen when the queue
// gets there: late, on the emulation.
import { describe, expect, test, vi } from 'vitest'
import { DataLoader, TensorDataset } from '../../src/data/index.js'
import {
  arange,
  CaptureError,
  capture,
  DeviceError,
  device,
  full,
  randn,
  type Tensor,
  tensor,
  zeros,
} from '../../src/index.js'
import { elements } from '../support/accuracy.js'
import { testCuda } from '../support/cuda.js'
import { leftBy, nothing } from '../support/live.js'
import { errorOf } from '../support/values.js'

const cpu = device('cpu')
const cuda = testCuda()

test('a pinned copy has the elements, shape and dtype, and is pinned', () => {
  for (const x of [randn([3, 4]), arange(5), tensor([true, false]), zeros([0, 2]), tensor(3)]) {
    const y = x.pinMemory()
    expect([x.isPinned(), y.isPinned()]).toEqual([false, true])
    expect([y.device, y.dtype, y.shape]).toEqual([cpu, x.dtype, x.shape])
    expect(elements(y)).toEqual(elements(x))
    expect(y.pinMemory()).toBe(y)
    expect(elements(y.to(cuda))).toEqual(elements(x))
  }
  const x = randn([3, 4]).t()
  expect(x.pinMemory().strides).toEqual([3, 1])
  expect(elements(x.pinMemory())).toEqual(elements(x))
})

test('views of pinned memory are pinned; results are not', () => {
  const x = arange(12).float().reshape([3, 4]).pinMemory()
  const row = x.select(0, 1)
  expect([row.isPinned(), x.t().isPinned(), x.add(1).isPinned()]).toEqual([true, true, false])
  expect(elements(row.to(cuda))).toEqual([4, 5, 6, 7])
  expect(elements(x.t().to(cuda))).toEqual(elements(x.t()))
  expect(x.t().pinMemory().isContiguous).toBe(true)
})

describe('a copy to the device', () => {
  test('goes through no buffer and waits for nothing', () => {
    const x = randn([1000]).pinMemory()
    const spies = [
      ...(['toHost', 'fromHost'] as const).map((f) => vi.spyOn(cpu.native, f)),
      ...(['toHost', 'fromHost', 'synchronize'] as const).map((f) => vi.spyOn(cuda.native, f)),
    ]
    const y = x.to({ device: cuda, nonBlocking: true })
    for (const spy of spies) {
      expect(spy, spy.getMockName()).not.toHaveBeenCalled()
      spy.mockRestore()
    }
    expect(elements(y)).toEqual(elements(x))
  })

  test('has the values of its time, whatever is written later', () => {
    const x = full([2000], 1).pinMemory()
    const copies = [x.to(cuda)]
    x.add_(1)
    copies.push(x.to(cuda))
    x.fill_(7)
    copies.push(x.to(cuda))
    x.select(0, 3).copy_(tensor(9))
    copies.push(x.to(cuda))
    expect(copies.map((y) => [y.select(0, 3).item(), y.select(0, 4).item()])).toEqual([
      [1, 1],
      [2, 2],
      [7, 7],
      [9, 7],
    ])
  })

  test('outlives its source, whose memory is used again only afterwards', () => {
    const copies: Tensor[] = []
    for (let i = 0; i < 20; i++) {
      const x = full([5000], i).pinMemory()
      copies.push(x.to(cuda))
      x.dispose()
    }
    expect(copies.map((y) => y.select(0, 4999).item())).toEqual(
      Array.from({ length: 20 }, (_, i) => i),
    )
  })

  test('gives gradients back', () => {
    const x = randn([3]).pinMemory().requiresGrad_()
    x.to(cuda).square().sum().backward()
    expect(x.grad?.device).toBe(cpu)
    expect(elements(x.grad as Tensor)).toEqual(elements(x.mul(2)))
  })
})

test('a loop over pinned batches keeps memory flat on both sides', () => {
  const left = [cpu, cuda].reduce(
    (body: () => void, at) => () => expect(leftBy(body, at)).toEqual(nothing),
    () => {
      for (let i = 0; i < 300; i++) full([65_536], i).pinMemory().to(cuda)
    },
  )
  left()
})

test('a loader pins the tensors of its batches, wherever they stand', () => {
  const data = new TensorDataset([randn([6, 2]), arange(6)])
  const [x, y] = [...new DataLoader(data, { batchSize: 4, pinMemory: true })][0]
  expect([x.isPinned(), y.isPinned(), x.shape]).toEqual([true, true, [4, 2]])
  expect(elements(x.to(cuda))).toEqual(elements(data.tensors[0].slice(0, 0, 4)))
  const collate = () => ({
    x: zeros([2]),
    rest: [zeros([1]), 'a', null],
    there: zeros([1]).to(cuda),
  })
  const [batch] = new DataLoader(data, { batchSize: 6, collate, pinMemory: true })
  expect([batch.x.isPinned(), (batch.rest[0] as Tensor).isPinned()]).toEqual([true, true])
  expect(batch.rest.slice(1)).toEqual(['a', null])
  expect(batch.there.device).toBe(cuda)
  expect([...new DataLoader(data)][0][0].isPinned()).toBe(false)
})

test('what cannot be pinned, or written to, says so', () => {
  expect(errorOf(DeviceError, () => zeros([1]).to(cuda).pinMemory())).toMatch(
    /pinMemory: expected a tensor on cpu, got one on cuda:0/,
  )
  expect(zeros([1]).to(cuda).isPinned()).toBe(false)
  const x = zeros([1]).pinMemory()
  const step = capture(() => x.add_(1))
  errorOf(CaptureError, () => {
    for (let i = 0; i < 3; i++) step()
  })
})
