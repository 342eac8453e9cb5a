// What the compiler made of the kernels, read from the addon with cuobjdump: no device is needed.
// Stable between compilers are spills, stack, double arithmetic, the width of accesses and the use of
// tensor cores; counts of instructions are not, so nothing is said of them.
import { spawn, spawnSync } from 'node:child_process'
import path from 'node:path'
import { createInterface } from 'node:readline'

/**
 * @typedef {object} Kernel
 * @property {string} name demangled, without its namespaces and parameters
 * @property {string} file of native/cuda, as far as the name tells
 * @property {number} registers
 * @property {number} stack bytes
 * @property {number} shared bytes, without what a launch adds
 * @property {number} local LDL and STL
 * @property {number} double arithmetic in float64 (conversions are not counted: general kernels store any dtype)
 * @property {number} wideLoads LDG of 16 bytes, and LDGSTS, which copies them into shared memory
 * @property {number} wideStores
 * @property {number} tensorCore
 */

async function linesOf(command, args, onLine) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'ignore'] })
  const ended = new Promise((resolve, reject) => child.on('error', reject).on('close', resolve))
  ended.catch(() => {}) // awaited below, when all lines have been read
  for await (const line of createInterface({ input: child.stdout })) onLine(line)
  const status = await ended
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${status}`)
}

/** Demangled names, in the order of the mangled ones. */
function demangle(names) {
  const done = spawnSync('c++filt', {
    input: names.join('\n'),
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
  })
  if (done.status !== 0) throw new Error('c++filt (binutils) is needed')
  return done.stdout.split('\n')
}

/** `void adjoint::cuda::(anonymous namespace)::softmaxKernel<float, true>(…)`: the middle of it. */
function shorten(name) {
  let depth = 0
  let end = name.length
  for (let i = 0; i < name.length; i++) {
    if (name[i] === '<') depth++
    if (name[i] === '>') depth--
    if (name[i] === '(' && depth === 0 && !name.startsWith('(anonymous namespace)', i)) {
      end = i
      break
    }
  }
  return name
    .slice(0, end)
    .replace(/^void /, '')
    .replace(/\(anonymous namespace\)::/g, '')
    .replace(/adjoint::(cuda::)?(_GLOBAL__N__\w+::)?/g, '')
    .replace(/cub::(\w+::)+/g, 'cub::')
}

/**
 * The kernels of an addon for one architecture.
 * @returns {Promise<Kernel[]>}
 */
export async function kernelsOf(addon, toolkitBin, architecture) {
  const cuobjdump = path.join(toolkitBin, 'cuobjdump')
  const options = ['-arch', `sm_${architecture}`]
  const found = new Map()
  let mangled = ''
  await linesOf(cuobjdump, [...options, '-res-usage', addon], (line) => {
    const named = / Function (\S+):$/.exec(line)
    if (named) mangled = named[1]
    const used = /REG:(\d+) STACK:(\d+) SHARED:(\d+)/.exec(line)
    if (!used || !mangled) return
    const [registers, stack, shared] = used.slice(1).map(Number)
    const file = /_GLOBAL__N__[0-9a-f]+_\d+_(\w+?)_cu_[0-9a-f]+/.exec(mangled)?.[1]
    found.set(mangled, {
      ...{ file: file ?? '', registers, stack, shared },
      ...{ local: 0, double: 0, wideLoads: 0, wideStores: 0, tensorCore: 0 },
    })
    mangled = ''
  })
  let kernel
  await linesOf(cuobjdump, [...options, '-sass', addon], (line) => {
    const begins = /^\s*Function : (\S+)/.exec(line)
    if (begins) kernel = found.get(begins[1])
    const instruction = /^\s*\/\*[0-9a-f]+\*\/\s+(?:@!?U?P\w+ )?([A-Z][\w.]*)/.exec(line)?.[1]
    if (!kernel || !instruction) return
    if (/^(LDL|STL)\b/.test(instruction)) kernel.local++
    if (/^D(FMA|ADD|MUL|MMA)\b/.test(instruction)) kernel.double++
    if (/^LDG(STS)?\..*128/.test(instruction)) kernel.wideLoads++
    if (/^STG\..*128/.test(instruction)) kernel.wideStores++
    if (/^(HMMA|HGMMA|DMMA)\b/.test(instruction)) kernel.tensorCore++
  })
  if (found.size === 0) throw new Error(`${addon}: no kernels for sm_${architecture}`)
  const names = demangle([...found.keys()])
  return [...found.values()].map((facts, i) => ({ name: shorten(names[i]), ...facts }))
}

// Per multiprocessor: registers, threads, shared memory in KiB (CUDA C++ programming guide, table of
// technical specifications).
const LIMITS = {
  75: { registers: 65536, threads: 1024, shared: 64 },
  80: { registers: 65536, threads: 2048, shared: 164 },
  90: { registers: 65536, threads: 2048, shared: 228 },
}

/** The share of a multiprocessor's threads that can be there at once, for blocks of so many threads. */
export function occupancy({ registers, shared }, architecture, blockThreads) {
  const limit = LIMITS[architecture]
  // Registers are given to warps in units of 256, shared memory to blocks with 1 KiB beside it.
  const perWarp = Math.ceil((registers * 32) / 256) * 256
  const warps = blockThreads / 32
  const byRegisters = Math.floor(Math.floor(limit.registers / perWarp) / warps)
  const byShared = Math.floor((limit.shared * 1024) / (shared + 1024))
  const byThreads = Math.floor(limit.threads / blockThreads)
  return (Math.min(byRegisters, byShared, byThreads) * blockThreads) / limit.threads
}

/**
 * Kernels that may break a rule, up to so many bytes of stack, and why.
 * @type {{ pattern: RegExp, stack: number, double?: boolean, why: string }[]}
 */
const ALLOWED = [
  {
    pattern: /^elementwiseKernel<Unary<\(UnaryOp\)1[456]>|^normalKernel</,
    stack: 40,
    double: true,
    why: 'sin, cos and tan of CUDA reduce large arguments on a path of their own',
  },
  {
    pattern: /double/,
    stack: 32,
    why: 'float64, which takes two registers for a value and is no card’s fast path',
  },
  {
    pattern: /^softmax(Backward)?Kernel<float/,
    stack: 24,
    why: 'the path of strided rows: offsets are put aside between rows, to stay at 32 registers',
  },
  {
    pattern: /^elementwiseKernel<(Unary<\(UnaryOp\)(32|37|3)>|Binary<\(BinaryOp\)4>)/,
    stack: 8,
    why: 'sigmoid, silu, square of integers, floorDivide: one value is put aside to stay at 32 registers',
  },
  {
    pattern: /^softmaxRowsKernel<\w*Float16, 8, 4/,
    stack: 8,
    why: 'one value is put aside: blocks of 1024 threads have 64 registers for each',
  },
]

const WIDE_BY_WIDTH = [
  'layerNorm(Backward)?',
  'softmaxRows(Backward)?',
  'moments|normalize|gradient|gradientSums',
  'keyedSum',
].join('|')
/**
 * Where kernels must be wide, and where they must use tensor cores, by their names.
 * @type {{ pattern: RegExp, needs: 'wideLoads' | 'tensorCore', from: number }[]}
 */
const NEEDS = [
  { pattern: /^elementwiseKernel<.*, float, \d>/, needs: 'wideLoads', from: 75 },
  { pattern: /^(update|norm)Kernel<float,/, needs: 'wideLoads', from: 75 },
  { pattern: /^denseReduceKernel</, needs: 'wideLoads', from: 75 },
  { pattern: /^crossEntropy(Backward)?Kernel</, needs: 'wideLoads', from: 75 },
  // Templates over the elements of an access: those whose access has 16 bytes.
  ...['\\w*Float16>?(, [A-Za-z]\\w*)?, 8\\b', 'float>?(, float)?, 4\\b'].map((access) => ({
    pattern: new RegExp(`^(${WIDE_BY_WIDTH})Kernel<(Stored<)?${access}`),
    needs: /** @type {const} */ ('wideLoads'),
    from: 75,
  })),
  { pattern: /^maxPoolKernel<Stored<float>, 4,/, needs: 'wideLoads', from: 75 },
  {
    pattern: /^maxPoolPairsKernel<Stored<(float>, 4|\w*Float16>, 8)/,
    needs: 'wideLoads',
    from: 75,
  },
  { pattern: /^maxPoolBackwardKernel<.*, 4, true>/, needs: 'wideLoads', from: 75 },
  { pattern: /^slopeKernel<.*(float, 4|Float16, 8)>/, needs: 'wideLoads', from: 75 },
  { pattern: /^cellKernel<4,/, needs: 'wideLoads', from: 75 },
  { pattern: /^gatherKernel<unsigned (char, 16|short, 8|int, 4)>/, needs: 'wideLoads', from: 75 },
  { pattern: /^attention(Delta)?Kernel<float/, needs: 'wideLoads', from: 75 },
  // Halves of bfloat16 and float32 as TF32 are multiplied from 8.0 on.
  { pattern: /^attentionMma\w*Kernel</, needs: 'tensorCore', from: 80 },
  { pattern: /^attentionMma\w*Kernel</, needs: 'wideLoads', from: 75 },
]

/** What is wrong with a kernel; empty where nothing is. */
export function complaints(kernel, architecture) {
  const found = []
  const allowed = ALLOWED.filter(({ pattern }) => pattern.test(kernel.name))
  const stack = Math.max(0, ...allowed.map((a) => a.stack))
  if (kernel.stack > stack || (kernel.local > 0 && stack === 0)) {
    found.push(`${kernel.stack} bytes of stack, ${kernel.local} accesses to local memory`)
  }
  if (kernel.double > 0 && !/double/.test(kernel.name) && !allowed.some((a) => a.double)) {
    found.push(`${kernel.double} instructions of float64 in a kernel without it`)
  }
  for (const { pattern, needs, from } of NEEDS) {
    if (pattern.test(kernel.name) && architecture >= from && kernel[needs] === 0) {
      found.push(needs === 'wideLoads' ? 'no load of 16 bytes' : 'no tensor core')
    }
  }
  return found
}

/** Rules that match no kernel any more. */
export function staleRules(kernels, architecture) {
  return NEEDS.filter(({ from }) => architecture >= from)
    .filter(({ pattern }) => !kernels.some((kernel) => pattern.test(kernel.name)))
    .map(({ pattern }) => `${pattern.source}: no kernel has such a name`)
}

/** A line for each template, and for each of attention's dtypes: what docs/cuda-kernels.md shows. */
export function tableOf(kernels, architecture) {
  const templates = new Map()
  for (const kernel of kernels) {
    const name = kernel.name.replace(/<(\w+Mma)?.*/, (_, mma) => (mma ? `<${mma}>` : ''))
    const key = `${name} (${kernel.file})`
    const group = templates.get(key) ?? { name, file: kernel.file, all: [] }
    templates.set(key, group)
    group.all.push(kernel)
  }
  const share = (all, fact) => {
    const count = all.filter((kernel) => kernel[fact] > 0).length
    return count === 0 ? '' : count === all.length ? 'all' : `${count}`
  }
  const rows = [...templates.values()]
    .sort((a, b) => (a.file + a.name < b.file + b.name ? -1 : 1))
    .map(({ name, file, all }) => {
      const most = (fact) => Math.max(...all.map((kernel) => kernel[fact]))
      const worst = Math.min(...all.map((kernel) => occupancy(kernel, architecture, 256)))
      return [
        `\`${name}\``,
        ...[file, all.length, most('registers'), most('stack') || '', most('shared') || ''],
        ...[share(all, 'wideLoads'), share(all, 'wideStores'), share(all, 'tensorCore')],
        `${Math.round(100 * worst)} %`,
      ].join(' | ')
    })
  const head = 'kernel | file | instances | registers | stack | shared | 16-byte loads'
  return [
    `| ${head} | 16-byte stores | tensor cores | occupancy |`,
    '| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |',
    ...rows.map((row) => `| ${row} |`),
  ].join('\n')
}

/** The exceptions, for the same document. */
export const exceptions = ALLOWED.map(
  ({ pattern, stack, why }) => `- \`${pattern.source}\`, at most ${stack} bytes of stack: ${why}.`,
)
