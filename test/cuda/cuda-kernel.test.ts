// Kernels in CUDA C++: on the emulation compiled by the host's compiler, on a GPU by NVRTC.
import { describe, expect, test } from 'vitest'
import {
  ArgumentError,
  AutogradError,
  arange,
  type CudaKernelSpec,
  capture,
  cudaKernel,
  DeviceError,
  DTypeError,
  defaultDevice,
  device,
  noGrad,
  setDefaultDevice,
  type Tensor,
  tensor,
  zeros,
} from '../../src/index.js'
import { elements } from '../support/accuracy.js'
import { kernelsOf, testCuda } from '../support/cuda.js'
import { gradcheckTwice } from '../support/gradcheck.js'
import { errorOf } from '../support/values.js'

const cuda = testCuda()
const on = { device: cuda }

const scaleSpec: CudaKernelSpec = {
  source: `
    template <class T>
    __global__ void scale(const T* x, T* y, long long n, T factor) {
      long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
      if (i < n) y[i] = factor * x[i];
    }`,
  name: 'scale<float>',
  inputs: ['float32'],
  scalars: ['int64', 'float32'],
  outputs: (x) => [x],
  grid: (x) => Math.ceil(x.numel / 64),
  block: 64,
  gradient: ({ scalars: [, factor] }, dy) => dy.mul(Number(factor)),
}

/** y = a b + c of float64, and z = a - b. */
const pairSpec: CudaKernelSpec = {
  source: `
    extern "C" __global__ void pair(const double* a, const double* b, const double* c, double* y,
                                    double* z, int n) {
      const int i = threadIdx.x;
      if (i >= n) return;
      y[i] = a[i] * b[i] + c[i];
      z[i] = a[i] - b[i];
    }`,
  name: 'pair',
  inputs: ['float64', 'float64', 'float64'],
  scalars: ['int32'],
  outputs: (a) => [a, { shape: a.shape, dtype: 'float64' }],
  grid: 1,
  block: [128],
  gradient: ({ inputs: [a, b] }, dy, dz) => [dy.mul(b).add(dz), dy.mul(a).sub(dz), dy],
}

describe('a kernel', () => {
  test('computes, of views too, and of nothing', () => {
    const scale = cudaKernel(scaleSpec)
    const x = arange(0, 300, 1, { ...on, dtype: 'float32' })
    expect(elements(scale(x, 300, 2) as Tensor)).toEqual(elements(x.mul(2)))
    const columns = x.reshape([100, 3]).transpose(0, 1)
    const y = scale(columns, 300n, -1) as Tensor
    expect(y.shape).toEqual([3, 100])
    expect(elements(y)).toEqual(elements(columns.neg()))
    expect(elements(scale(zeros([0, 2], on), 0, 1) as Tensor)).toEqual([])
  })

  test('has shared memory, barriers and options', () => {
    const reverse = cudaKernel({
      source: `
        extern "C" __global__ void reverse(const int* x, int* y) {
          __shared__ int row[SIZE];
          row[threadIdx.x] = x[blockIdx.x * SIZE + threadIdx.x];
          __syncthreads();
          y[blockIdx.x * SIZE + threadIdx.x] = row[SIZE - 1 - threadIdx.x];
        }`,
      name: 'reverse',
      inputs: ['int32'],
      outputs: (x) => [x],
      grid: (x) => x.shape[0],
      block: (x) => x.shape[1],
      options: ['-DSIZE=5'],
    })
    const x = tensor([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], { ...on, dtype: 'int32' }).reshape([2, 5])
    expect(elements(reverse(x) as Tensor)).toEqual([5, 4, 3, 2, 1, 10, 9, 8, 7, 6])
  })

  test('is one call, which a captured step repeats', () => {
    const scale = cudaKernel(scaleSpec)
    const x = tensor([1, 2], on)
    expect([...kernelsOf(cuda, () => scale(x, 2, 3))]).toEqual(['cudaKernel'])
    const step = capture((v: Tensor) => scale(v.add(1), 2, 3) as Tensor)
    for (const value of [1, 2, 5]) {
      expect(elements(step(zeros([2], on).add(value)))).toEqual([3 * value + 3, 3 * value + 3])
    }
  })
})

describe('its gradient', () => {
  test('is what the description says', () => {
    const scale = cudaKernel(scaleSpec)
    const x = tensor([1, 2, 3], { ...on, requiresGrad: true })
    ;(scale(x, 3, 4) as Tensor).sum().backward()
    expect(elements(x.grad as Tensor)).toEqual([4, 4, 4])
  })

  test('of two outputs is that of finite differences, and differentiated again', () => {
    const pair = cudaKernel(pairSpec)
    const inputs = [1, 2, 3].map((k) => tensor([0.5 * k, -k, 1.5], { ...on, dtype: 'float64' }))
    const before = defaultDevice()
    setDefaultDevice(cuda)
    try {
      gradcheckTwice((list) => pair(...list, 3) as Tensor[], inputs)
    } finally {
      setDefaultDevice(before)
    }
  })

  test('may read the outputs', () => {
    const exponential = cudaKernel({
      ...scaleSpec,
      source: 'extern "C" __global__ void power(const float* x, float* y) { *y = exp2f(*x); }',
      name: 'power',
      scalars: [],
      savesOutputs: true,
      gradient: ({ outputs: [y] }, dy) => dy.mul(y).mul(Math.LN2),
    })
    const x = tensor([3], { ...on, requiresGrad: true })
    ;(exponential(x) as Tensor).sum().backward()
    expect((x.grad as Tensor).item()).toBeCloseTo(8 * Math.LN2, 5)
  })

  test('is asked for where an input requires one', () => {
    const scale = cudaKernel({ ...scaleSpec, gradient: undefined })
    const x = tensor([1, 2], { ...on, requiresGrad: true })
    expect(errorOf(AutogradError, () => scale(x, 2, 1))).toMatch(
      /scale<float>: expected a gradient/,
    )
    expect(elements(noGrad(() => scale(x, 2, 3) as Tensor))).toEqual([3, 6])
  })
})

describe('what is wrong', () => {
  const scale = cudaKernel(scaleSpec)
  const x = tensor([1, 2], on)

  test('in the source is said by the compiler', () => {
    const wrong = cudaKernel({
      ...scaleSpec,
      source: '__global__ void f(const float* x, float* y) {\n  *y = absent;\n}',
      name: 'f',
    })
    expect(errorOf(ArgumentError, () => wrong(x, 2, 1))).toMatch(/cudaKernel\.cu.*absent/s)
    const nameless = cudaKernel({ ...scaleSpec, name: 'scaled<float>' })
    expect(errorOf(ArgumentError, () => nameless(x, 2, 1))).toMatch(/scaled/)
  })

  test('in the description is a typed error', () => {
    const described = (part: object) => () => cudaKernel({ ...scaleSpec, ...part })
    errorOf(ArgumentError, described({ source: 5 }))
    errorOf(ArgumentError, described({ source: '\0' }))
    errorOf(ArgumentError, described({ name: '' }))
    errorOf(ArgumentError, described({ inputs: [] }))
    errorOf(DTypeError, described({ inputs: ['float'] }))
    errorOf(DTypeError, described({ scalars: ['long'] }))
    errorOf(ArgumentError, described({ outputs: [] }))
    errorOf(ArgumentError, described({ options: [5] }))
    errorOf(ArgumentError, described({ gradient: 5 }))
    const called = (part: object) => () => cudaKernel({ ...scaleSpec, ...part })(x, 2, 1)
    for (const grid of [-1, 0.5, 2 ** 31, [1, 65536], [1, 1, 1, 1], [], 'x']) {
      errorOf(ArgumentError, called({ grid }))
    }
    for (const block of [0, 1025, [32, 64], [1, 1, 65], Number.NaN]) {
      errorOf(ArgumentError, called({ block }))
    }
    errorOf(ArgumentError, called({ sharedBytes: -1 }))
    errorOf(ArgumentError, called({ outputs: () => [] }))
    errorOf(ArgumentError, called({ outputs: () => [null] }))
    // Parameters of another number or size than the kernel has.
    errorOf(ArgumentError, called({ outputs: (y: Tensor) => [y, y] }))
    expect(errorOf(ArgumentError, called({ scalars: ['int64', 'float64'] }))).toMatch(/4 bytes/)
  })

  test('in a call is a typed error', () => {
    errorOf(ArgumentError, () => scale())
    errorOf(ArgumentError, () => scale(x, 2))
    errorOf(ArgumentError, () => scale(2, x, 1))
    errorOf(ArgumentError, () => scale(x, 2.5, 1))
    errorOf(ArgumentError, () => cudaKernel(pairSpec)(...threeOf(x.double()), 2 ** 31))
    errorOf(DTypeError, () => scale(x.double(), 2, 1))
    errorOf(DeviceError, () => scale(tensor([1], { device: device('cpu') }), 1, 1))
    expect(elements(scale(x, 2, 1) as Tensor)).toEqual([1, 2])
  })
})

const threeOf = (x: Tensor) => [x, x, x]
