// `linear` with an activation: what its parts give, one by one. `matmul.test.ts` has it without.
import { describe, expect, test } from 'vitest'
import {
  ArgumentError,
  autocast,
  type DType,
  gelu,
  linear,
  manualSeed,
  memoryStats,
  noGrad,
  randn,
  relu,
  setFloat32MatmulPrecision,
  type Tensor,
  tensor,
} from '../../src/index.js'
import { errorOf, values } from '../support/values.js'

const activations = {
  relu: (z: Tensor) => relu(z),
  gelu: (z: Tensor) => gelu(z),
  geluTanh: (z: Tensor) => gelu(z, { approximate: 'tanh' }),
}
type Name = keyof typeof activations
const names = Object.keys(activations) as Name[]

const roundoff = { float32: 2 ** -24, float64: 2 ** -53, bfloat16: 2 ** -8, float16: 2 ** -11 }

interface Inputs {
  readonly x: Tensor
  readonly w: Tensor
  readonly bias: Tensor | null
}
const listed = ({ x, w, bias }: Inputs) => [x, w, bias].filter((t) => t !== null)

function inputs(lead: number[], k: number, m: number, dtype: DType, hasBias = true): Inputs {
  const make = (shape: number[]) => randn(shape).to(dtype).requiresGrad_()
  return { x: make([...lead, k]), w: make([m, k]), bias: hasBias ? make([m]) : null }
}

/** y and the gradients of x, w and bias. */
function results(given: Inputs, dy: Tensor, f: () => Tensor): Tensor[] {
  const y = f()
  y.backward(dy)
  return [
    y,
    ...listed(given).map((t) => {
      const grad = t.grad as Tensor
      t.grad = null
      return grad
    }),
  ]
}

function expectAsParts(given: Inputs, dy: Tensor, name: Name, body = (f: () => Tensor) => f()) {
  const { x, w, bias } = given
  const fused = () => body(() => linear(x, w, bias, { activation: name }))
  const [y, dx, dw, dbias] = results(given, dy, fused)
  const [wantY, wantDx, wantDw, wantDbias] = results(given, dy, () =>
    body(() => activations[name](linear(x, w, bias))),
  )
  expect(y.dtype).toBe(wantY.dtype)
  expect(y.shape).toEqual(wantY.shape)
  const unit = roundoff[y.dtype as keyof typeof roundoff]
  // cuBLASLt's epilogue, where it takes the shape, makes GELU by tanh of half types of what has not
  // been rounded yet.
  const mayDiffer = y.device.type === 'cuda' && name === 'geluTanh' && unit > 2 ** -20
  const expectY = (got: Tensor) => {
    const [all, wanted] = [values(got), values(wantY)]
    if (!mayDiffer) expect(all).toEqual(wanted)
    wanted.forEach((want, i) => {
      expect(Math.abs(all[i] - want)).toBeLessThanOrEqual(3 * unit * (1 + Math.abs(want)))
    })
  }
  expectY(y)
  // On the CPU the forward pass leaves the slope of GELU, rounded to the dtype, which takes the place
  // of the rounding of what it was applied to. No slope is above 1.13.
  const isRounded = y.device.type === 'cpu' && name !== 'relu' && unit > 2 ** -20
  const expectSums = (got: Tensor, want: Tensor, terms: (t: Tensor) => Tensor) => {
    if (!isRounded) return expect(values(got)).toEqual(values(want))
    const scale = values(terms(dy.to('float64').reshape([-1, w.shape[0]]).abs()))
    const wanted = values(want)
    values(got).forEach((g, i) => {
      expect(Math.abs(g - wanted[i])).toBeLessThanOrEqual(3 * 1.13 * unit * scale[i])
    })
  }
  expectSums(dx, wantDx, (d) => d.matmul(w.detach().to('float64').abs()))
  expectSums(dw, wantDw, (d) =>
    d.transpose(0, 1).matmul(x.detach().to('float64').reshape([-1, w.shape[1]]).abs()),
  )
  expectY(noGrad(fused))
  if (!dbias) return
  if (isRounded) return expectSums(dbias, wantDbias, (d) => d.sum(0))
  // Rows are summed in another order; bfloat16 may round to the neighbour.
  const rows = y.numel / y.shape[y.ndim - 1]
  values(dbias).forEach((got, i) => {
    const want = values(wantDbias)[i]
    expect(Math.abs(got - want)).toBeLessThanOrEqual(
      (2 * unit + rows * 2 ** -24 * (y.dtype === 'float64' ? 2 ** -29 : 1)) * (1 + Math.abs(want)),
    )
  })
}

describe.each(names)('linear with %s', (name) => {
  test.each(['float32', 'float64', 'bfloat16', 'float16'] as const)('is its parts, %s', (dtype) => {
    manualSeed(1)
    for (const [lead, k, m] of [
      [[3], 5, 4],
      [[1], 10, 10],
      [[2, 3], 17, 33],
      [[], 4, 3],
      [[0], 3, 2],
      [[70], 300, 40],
      [[5], 2, 1],
    ] as [number[], number, number][]) {
      for (const hasBias of [true, false]) {
        expectAsParts(inputs(lead, k, m, dtype, hasBias), randn([...lead, m]).to(dtype), name)
      }
    }
  })

  test('is its parts under autocast, and where float32 may be rounded', () => {
    manualSeed(2)
    const given = inputs([33], 40, 24, 'float32')
    const dy = randn([33, 24])
    expectAsParts(given, dy.to('bfloat16'), name, (f) => autocast('bfloat16', f))
    setFloat32MatmulPrecision('medium')
    expectAsParts(given, dy, name)
    setFloat32MatmulPrecision('highest')
  })

  test('takes gradients of any strides', () => {
    manualSeed(3)
    const given = inputs([6], 5, 4, 'float64')
    expectAsParts(given, randn([4, 6], { dtype: 'float64' }).transpose(0, 1), name)
    expectAsParts(given, tensor(0.5, { dtype: 'float64' }).expand([6, 4]), name)
  })

  test('gives the gradients that are asked for', () => {
    manualSeed(4)
    for (const frozen of [0, 1, 2]) {
      const given = inputs([4], 3, 2, 'float64')
      const dy = randn([4, 2], { dtype: 'float64' })
      const [, ...all] = results(given, dy, () =>
        linear(given.x, given.w, given.bias, { activation: name }),
      )
      const parts = listed(given).map((t, i) => (i === frozen ? t.detach() : t))
      const [x, w, bias] = parts
      linear(x, w, bias, { activation: name }).backward(dy)
      const wanted = all.map((grad, i) => (i === frozen ? null : values(grad)))
      expect(parts.map((t) => t.grad && values(t.grad))).toEqual(wanted)
    }
  })

  test('keeps nothing where there is nothing to differentiate', () => {
    const x = randn([16, 8])
    const w = randn([32, 8], { requiresGrad: true })
    const before = memoryStats().liveBytes
    const y = noGrad(() => linear(x, w, null, { activation: name }))
    expect(memoryStats().liveBytes - before).toBe(y.numel * 4)
    const z = linear(x, w.detach(), null, { activation: name })
    expect(memoryStats().liveBytes - before).toBe(2 * z.numel * 4)
  })
})

test('relu keeps its result alone, GELU another of its size', () => {
  const x = randn([16, 8])
  const w = randn([32, 8], { requiresGrad: true })
  for (const [name, tensors] of [
    ['relu', 1],
    ['gelu', 2],
  ] as const) {
    const before = memoryStats().liveBytes
    const y = linear(x, w, null, { activation: name })
    expect(memoryStats().liveBytes - before).toBe(tensors * y.numel * 4)
    y.sum().backward()
  }
})

test('a frozen weight does not keep what it was multiplied with', () => {
  const w = randn([4, 4])
  const bias = randn([4], { requiresGrad: true })
  const before = memoryStats().liveBytes
  const x = randn([64, 4]).requiresGrad_()
  const h = x.mul(2)
  const y = linear(h, w, bias)
  h.dispose()
  expect(memoryStats().liveBytes - before).toBe((x.numel + y.numel) * 4)
  y.sum().backward()
  expect(values(bias.grad)).toEqual([64, 64, 64, 64])
})

test('integers are rectified, other activations are refused', () => {
  const x = tensor([[1n, -2n]])
  const w = tensor([
    [1n, 1n],
    [3n, 1n],
  ])
  const y = linear(x, w, null, { activation: 'relu' })
  expect(y.dtype).toBe('int64')
  expect(values(y)).toEqual([0, 1])
  const call = () => linear(randn([2, 2]), randn([2, 2]), null, { activation: 'tanh' as 'relu' })
  expect(errorOf(ArgumentError, call)).toBe(
    `linear: expected 'relu', 'gelu', 'geluTanh' or null as activation, got "tanh"`,
  )
})
