// What goes wrong on the device is an error of the right class, and the device goes on afterwards.
import { afterEach, describe, expect, test } from 'vitest'
import {
  ArgumentError,
  arange,
  CaptureError,
  capture,
  DeviceError,
  DisposedError,
  DTypeError,
  device,
  full,
  Generator,
  IndexError,
  OutOfMemoryError,
  rand,
  ShapeError,
  setMemoryCap,
  synchronize,
  type Tensor,
  tensor,
  zeros,
} from '../../src/index.js'
import * as nn from '../../src/nn/index.js'
import { elements } from '../support/accuracy.js'
import { testCuda } from '../support/cuda.js'
import { errorOf } from '../support/values.js'

const cpu = device('cpu')
const cuda = testCuda()
const on = { device: cuda }
const F = nn.functional

/** The device still computes, and nothing that went wrong before is left to be raised. */
afterEach(() => {
  synchronize(cuda)
  expect(full([5], 2, on).add(1).sum().item()).toBe(15)
})

describe('an index outside its axis', () => {
  const long = (values: bigint[]) => tensor(values, on)
  const table = () => arange(0, 12, 1, { ...on, dtype: 'float32' }).reshape([4, 3])
  const bodies: Record<string, (bad: bigint, at: typeof on) => Tensor> = {
    indexSelect: (bad) => table().indexSelect(0, long([1n, bad])),
    gather: (bad) => table().gather(1, long([bad]).reshape([1, 1])),
    scatterAdd: (bad) =>
      table().scatterAdd(0, long([bad, 0n, 0n]).reshape([1, 3]), table().slice(0, 0, 1)),
    embedding: (bad) => F.embedding(long([0n, bad]), table()),
    crossEntropy: (bad) => F.crossEntropy(table(), long([0n, 1n, bad, 2n])),
    nllLoss: (bad) => F.nllLoss(table().logSoftmax(1), long([0n, 1n, bad, 2n])),
    'embedding, backward too': (bad) => {
      const weight = table().requiresGrad_()
      const y = F.embedding(long([0n, bad]), weight)
      y.sum().backward()
      return weight.grad as Tensor
    },
  }
  for (const [name, body] of Object.entries(bodies)) {
    test(`of ${name} is raised by who waits next`, () => {
      for (const bad of [4n, -1n, 2n ** 40n]) {
        const read = () => body(bad, on).dataSync()
        expect(errorOf(IndexError, read)).toMatch(/: expected .*(indices|targets|classes).*, got /)
        expect(body(1n, on).dataSync().length).toBeGreaterThan(0)
        const wait = () => {
          body(bad, on)
          synchronize(cuda)
        }
        errorOf(IndexError, wait)
      }
    })
  }
})

describe('a disposed tensor', () => {
  test('is refused, and what was queued with it is not disturbed', () => {
    const x = full([3], 4, on)
    const y = x.mul(2)
    x.dispose()
    errorOf(DisposedError, () => x.add(1))
    errorOf(DisposedError, () => y.add(x))
    errorOf(DisposedError, () => x.to(cpu))
    errorOf(DisposedError, () => x.dataSync())
    expect(elements(y)).toEqual([8, 8, 8])
  })
})

describe('arguments', () => {
  const x = () => zeros([2, 3], on)
  const cases: [string, abstract new (...args: never[]) => Error, () => unknown][] = [
    ['shapes that do not broadcast', ShapeError, () => x().add(zeros([4], on))],
    ['inner sizes', ShapeError, () => x().matmul(x())],
    [
      'a result that does not fit',
      DTypeError,
      () => zeros([2], { ...on, dtype: 'int64' }).add_(0.5),
    ],
    ['bits of floats', DTypeError, () => x().bitwiseAnd(1)],
    ['an expanded tensor in place', ArgumentError, () => zeros([1], on).expand([3]).add_(1)],
    [
      'a generator of another device',
      ArgumentError,
      () => F.dropout(x(), 0.5, { generator: new Generator() }),
    ],
    ['a device that is not there', DeviceError, () => x().to('cuda:9')],
    ['a device that does not exist', DeviceError, () => x().to('gpu')],
  ]
  test.each(cases)('%s', (_name, kind, body) => {
    errorOf(kind, body)
  })

  test('a generator says where numbers are drawn', () => {
    expect(rand([2], { generator: new Generator({ device: cuda }) }).device).toBe(cuda)
  })
})

describe('memory', () => {
  test('that is not there is an error with what there is, and smaller things still fit', () => {
    setMemoryCap(32e6, cuda)
    try {
      const kept = full([1_000_000], 1, on)
      const message = errorOf(OutOfMemoryError, () => full([20_000_000], 1, on))
      expect(message).toMatch(/80000000|80\.0|76\.\d/)
      errorOf(OutOfMemoryError, () =>
        kept.reshape([1000, 1, 1000]).expand([1000, 1000, 1000]).clone(),
      )
      expect(
        full([1000], 3, on)
          .add(kept.slice(0, 0, 1000))
          .sum()
          .item(),
      ).toBe(4000)
    } finally {
      setMemoryCap(0, cuda)
    }
  })
})

describe('capture', () => {
  test('refuses inputs of two devices, and work on the other one', () => {
    const two = capture((x: Tensor, y: Tensor) => x.add(y.to(cuda)))
    errorOf(DeviceError, () => two(zeros([1], on), zeros([1])))
    const elsewhere = capture((x: Tensor) => x.add(tensor([1]).add(1).to(cuda)))
    elsewhere(zeros([1], on))
    errorOf(CaptureError, () => elsewhere(zeros([1], on)))
  })
})
