import { readFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, test } from 'vitest'
import * as adjoint from '../../src/index.js'
import { type DType, full, Tensor, tensor, where } from '../../src/index.js'
import { root } from '../support/run.js'

interface Encoded {
  readonly dtype: DType
  readonly shape: number[]
  readonly values: (number | string)[]
}

interface GoldenCase {
  readonly f: string
  readonly args: unknown[]
  readonly results: Encoded[]
  readonly grads?: Encoded[]
}

const read = (name: string) =>
  JSON.parse(readFileSync(path.join(root, 'test', 'golden', name), 'utf8'))
const functions = new Map<string, unknown>(Object.entries(adjoint))
const { cases } = read('ops.json') as { cases: GoldenCase[] }

const specials: Record<string, number> = { nan: NaN, inf: Infinity, '-inf': -Infinity, '-0': -0 }
const numberOf = (v: number | string) => (typeof v === 'number' ? v : (specials[v] ?? Number(v)))
const isEncoded = (x: unknown): x is Encoded =>
  typeof x === 'object' && x !== null && 'values' in x && 'dtype' in x

function decodeTensor({ dtype, shape, values }: Encoded, requiresGrad: boolean): Tensor {
  const floating = dtype.startsWith('float') || dtype === 'bfloat16'
  const array = floating
    ? Float64Array.from(values, numberOf)
    : BigInt64Array.from(values, (v) => BigInt(v))
  const t = tensor(array, { shape, dtype })
  return requiresGrad && floating ? t.requiresGrad_() : t
}

function decode(x: unknown, requiresGrad: boolean): unknown {
  if (isEncoded(x)) return decodeTensor(x, requiresGrad)
  if (Array.isArray(x)) return x.map((item) => decode(item, requiresGrad))
  return typeof x === 'string' && x in specials ? specials[x] : x
}

/** Digits that two correct implementations of one formula share, by dtype. */
const relative: Partial<Record<DType, number>> = {
  float32: 2e-6,
  float64: 1e-14,
  float16: 1e-3,
  bfloat16: 8e-3,
}

function expectEqual(got: Tensor, want: Encoded): void {
  expect({ dtype: got.dtype, shape: got.shape }).toEqual({ dtype: want.dtype, shape: want.shape })
  const tolerance = relative[want.dtype] ?? 0
  const flat = Array.from(got.dataSync() as ArrayLike<number | bigint>)
  flat.forEach((value, i) => {
    const golden = want.values[i]
    if (typeof value === 'bigint') {
      expect(value, `element ${i}`).toBe(BigInt(golden))
      return
    }
    const wanted = numberOf(golden)
    const close =
      Object.is(value, wanted) || Math.abs(value - wanted) <= tolerance * Math.abs(wanted)
    if (!close) expect(value, `element ${i}`).toBe(wanted)
  })
}

const label = ({ f, args }: GoldenCase) =>
  `${f}(${args
    .flat()
    .map((x) => (isEncoded(x) ? `${x.dtype} [${x.shape}]` : JSON.stringify(x)))
    .join(', ')})`

describe('as PyTorch answers', () => {
  test.each(cases.map((c, i) => [`${i} ${label(c)}`, c] as const))('%s', (_label, c) => {
    const args = c.args.map((x) => decode(x, c.grads !== undefined))
    const f = functions.get(c.f) as (...args: unknown[]) => unknown
    const result = f(...args)
    const outputs =
      result instanceof Tensor
        ? [result]
        : Object.values(result as { values: Tensor; indices: Tensor })
    expect(outputs.length).toBe(c.results.length)
    outputs.forEach((y, i) => {
      expectEqual(y, c.results[i])
    })
    if (c.grads === undefined) return
    outputs[0].sum().backward()
    const inputs = args.flat().filter((x): x is Tensor => x instanceof Tensor && x.requiresGrad)
    expect(inputs.length).toBe(c.grads.length)
    inputs.forEach((x, i) => {
      expectEqual(x.grad as Tensor, (c.grads as Encoded[])[i])
    })
  })
})

describe('promotion', () => {
  const table = read('promotion.json') as {
    dtypes: DType[]
    tensors: DType[][]
    scalarAtRight: DType[][]
    scalars: DType[][]
    integer: DType[][]
    fraction: DType[][]
    boolean: DType[][]
    division: DType[]
  }
  const one = (dtype: DType, shape: number[]) => full(shape, 1, { dtype })

  test.each(table.dtypes.map((dtype, i) => [dtype, i] as const))(
    'of %s with every other',
    (p, i) => {
      table.dtypes.forEach((q, j) => {
        const got = [
          one(p, [1]).mul(one(q, [1])),
          one(p, [1]).mul(one(q, [])),
          one(q, []).mul(one(p, [1])),
          one(p, []).mul(one(q, [])),
          where(full([1], true), one(p, [1]), one(q, [])),
        ].map((t) => t.dtype)
        const want = [table.tensors, table.scalarAtRight, table.scalarAtRight, table.scalars].map(
          (rows) => rows[i][j],
        )
        expect(got, `${p}, ${q}`).toEqual([...want, table.scalarAtRight[i][j]])
        expect(adjoint.promoteTypes(p, q)).toBe(table.tensors[i][j])
      })
    },
  )

  test.each(table.dtypes.map((dtype, i) => [dtype, i] as const))('of %s with numbers', (p, i) => {
    ;[[1], []].forEach((shape, k) => {
      const t = one(p, shape)
      const got = [t.mul(1), t.mul(1n), t.mul(1.5), t.mul(true), adjoint.mul(1, t)].map(
        (y) => y.dtype,
      )
      const whole = table.integer[i][k]
      expect(got).toEqual([whole, whole, table.fraction[i][k], table.boolean[i][k], whole])
    })
    expect(one(p, [1]).div(1).dtype).toBe(table.division[i])
  })

  test('a result that would not fit is refused in place, one of the same kind is converted', () => {
    for (const p of table.dtypes) {
      table.dtypes.forEach((q, j) => {
        const x = one(p, [1])
        const met = table.tensors[table.dtypes.indexOf(p)][j]
        const rank = (d: DType) => (d === 'bool' ? 0 : /float/.test(d) ? 2 : 1)
        if (rank(met) <= rank(p)) expect(x.mul_(one(q, [1])).dtype).toBe(p)
        else expect(() => x.mul_(one(q, [1]))).toThrow(adjoint.DTypeError)
      })
    }
  })
})
