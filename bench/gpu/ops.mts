// Single ops beside PyTorch's.
import { manualSeed, setFloat32MatmulPrecision, type Tensor } from 'adjoint'
import { type Opened, PeerError } from '../peers/torch.mjs'
import { inTurns, type Side } from '../support/pairs.mjs'
import { makers, type OpCase, opCases, type Run } from './cases.mjs'
import { type GpuContext, timedOnGpu } from './context.mjs'
import type { GpuRow } from './report.mjs'

/** Of a result: sum |y|, and a few elements spread over it. */
interface Digest {
  readonly sum: number
  readonly values: readonly number[]
}

function digest(y: Tensor): Digest {
  const flat = y.flatten()
  const n = flat.numel
  const places = n > 1 ? Array.from({ length: 16 }, (_, i) => Math.floor((i * (n - 1)) / 15)) : [0]
  return {
    sum: flat.to('float64').abs().sum().item() as number,
    values: places.map((place) => flat.select(0, place).item() as number),
  }
}

/** The unit of the last place of what is stored or multiplied. */
const roundingOf = (c: OpCase) =>
  c.dtype === 'bfloat16' ? 2 ** -8 : c.dtype === 'float16' || c.tf32 ? 2 ** -11 : 2 ** -23

/** What PyTorch has on the device, and the same in float64. */
interface Digests {
  readonly here: readonly Digest[]
  readonly exact: readonly Digest[]
}

/** How far a result is off, as shares of sum |y| and of the largest sample. */
function errorOf(got: Digest, exact: Digest): number {
  const scale = Math.max(...exact.values.map(Math.abs), 1e-30)
  const errors = got.values.map((value, k) => Math.abs(value - exact.values[k]) / scale)
  const worst = Math.max(...errors, Math.abs(got.sum - exact.sum) / Math.max(exact.sum, 1e-30))
  return errors.some(Number.isNaN) ? Number.POSITIVE_INFINITY : worst
}

/** Why our result is wrong, if it is: further from float64 than PyTorch's by more than rounding. */
function difference(c: OpCase, ours: readonly Digest[], theirs: Digests): string | undefined {
  const { here, exact } = theirs
  if (ours.length !== exact.length) return `${ours.length} results, PyTorch has ${exact.length}`
  for (const [i, mine] of ours.entries()) {
    const [own, its] = [errorOf(mine, exact[i]), errorOf(here[i], exact[i])]
    if (!(own <= 4 * its + 4 * roundingOf(c))) {
      return `result ${i} is off by ${own.toExponential(2)}, PyTorch's by ${its.toExponential(2)}`
    }
  }
  return undefined
}

export async function* opsOnGpu(context: GpuContext): AsyncGenerator<GpuRow> {
  for (const c of opCases) {
    if (!context.filter.test(c.name)) continue
    let row: GpuRow
    try {
      row = await besideTorch(context, c)
    } catch (error) {
      // What one row throws is that row's result.
      row = { name: c.name, error: error instanceof Error ? error.message : String(error) }
    }
    yield row
  }
}

async function besideTorch({ torch, pace }: GpuContext, c: OpCase): Promise<GpuRow> {
  manualSeed(0)
  setFloat32MatmulPrecision(c.tf32 ? 'high' : 'highest')
  const run: Run = makers[c.op](c)
  const { op, sizes, dtype, tf32 = false, backward = false } = c
  const sides: Side[] = [{ name: 'adjoint', timed: async (count) => timedOnGpu(run, count) }]
  let opened: Opened | undefined
  let missing: string | undefined
  try {
    opened = await (await torch.get()).open({
      kind: 'gpu op',
      arguments: { op, sizes, dtype, tf32, backward },
    })
    const theirs = await opened.ask<Digests>('digests')
    const wrong = difference(c, run().map(digest), theirs)
    if (wrong) return { name: c.name, error: wrong }
    const side = opened
    sides.push({ name: 'PyTorch', timed: (count) => side.timed(count) })
  } catch (error) {
    if (!(error instanceof PeerError)) throw error
    missing = error.message
  }
  const [ours, theirs] = await inTurns(sides, pace)
  await opened?.close()
  return {
    name: c.name,
    ms: ours.ms_median,
    spread: ours.spread,
    bytes: c.bytes,
    flop: c.flop,
    ...(theirs ? { torchMs: theirs.ms_median, ratio: theirs.ratio } : { missing }),
  }
}
