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
 * @property {number} wideLoads LDG of 16 bytes
 * @property {number} wideStores
 * @property {number} tensorCore
 */

async function linesOf(command, args, onLine) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'ignore'] })
  for await (const line of createInterface({ input: child.stdout })) onLine(line)
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
    if (/^LDG\..*128/.test(instruction)) kernel.wideLoads++
    if (/^STG\..*128/.test(instruction)) kernel.wideStores++
    if (/^(HMMA|HGMMA|DMMA)\b/.test(instruction)) kernel.tensorCore++
  })
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

/** Kernels that may break a rule, and why. */
const ALLOWED = []

/**
 * Where kernels must be wide, and where they must use tensor cores, by their names.
 * @type {{ pattern: RegExp, needs: 'wideLoads' | 'tensorCore', from: number }[]}
 */
const NEEDS = [
  { pattern: /^elementwiseKernel<.*, float, \d>/, needs: 'wideLoads', from: 75 },
  { pattern: /^optimizerKernel<float,/, needs: 'wideLoads', from: 75 },
]

/** What is wrong with a kernel; empty where nothing is. */
export function complaints(kernel, architecture) {
  const found = []
  if (kernel.stack > 0 || kernel.local > 0) {
    found.push(`${kernel.stack} bytes of stack, ${kernel.local} accesses to local memory`)
  }
  if (kernel.double > 0 && !/double/.test(kernel.name)) {
    found.push(`${kernel.double} instructions of float64 in a kernel without it`)
  }
  for (const { pattern, needs, from } of NEEDS) {
    if (pattern.test(kernel.name) && architecture >= from && kernel[needs] === 0) {
      found.push(needs === 'wideLoads' ? 'no load of 16 bytes' : 'no tensor core')
    }
  }
  return found.filter(
    (what) => !ALLOWED.some((a) => a.pattern.test(kernel.name) && a.what.test(what)),
  )
}
