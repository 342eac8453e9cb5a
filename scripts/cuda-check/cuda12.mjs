// Whether native/cuda fits CUDA 12: every file compiles against its headers, and its runtime has every
// function that they call. PyPI has no nvcc of CUDA 12, so that of the toolkit at hand compiles them.
import { mkdirSync, readdirSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import path from 'node:path'

const ARCHITECTURE = 'sm_80'

/** nm's lines are "address type name", or "type name" for what is undefined. */
function symbolsIn(listing, isWanted) {
  return listing
    .split('\n')
    .map((line) => /^(?:[0-9a-f]+)?\s*([A-Za-z]) (\S+)$/.exec(line))
    .filter((match) => match !== null && isWanted(match[1]))
    .map((match) => match[2])
}

/**
 * @param {(command: string, args: string[]) => Promise<void>} run
 * @param {(command: string, args: string[]) => string} output
 * @param {{ root: string, folder: string, nvcc: string }} places
 * @param {{ includes: string[], runtime: string }} cuda12
 */
export async function fitsCuda12(run, output, { root, folder, nvcc }, { includes, runtime }) {
  mkdirSync(folder, { recursive: true })
  // Before the compiler's own headers, which -isystem would come after.
  const flags = ['-std=c++17', '-O1', `-I${path.join(root, 'native')}`]
  const headers = includes.map((include) => `-I${include}`)
  const expects12 = path.join(root, 'scripts', 'cuda-check', 'cuda12.h')
  const compile = (file, object) =>
    file.endsWith('.cu')
      ? run(nvcc, [
          ...[...flags, ...headers, '--expt-relaxed-constexpr', `-arch=${ARCHITECTURE}`],
          ...['-include', expects12, '-c', file, '-o', object],
        ])
      : run('g++', [...flags, ...headers, '-include', expects12, '-c', file, '-o', object])

  const files = readdirSync(path.join(root, 'native', 'cuda')).filter((n) => /\.(cu|cpp)$/.test(n))
  const objects = files.map((name) => path.join(folder, `${name}.o`))
  const waiting = files.map((name, i) => [path.join(root, 'native', 'cuda', name), objects[i]])
  const worker = async () => {
    for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) await compile(...next)
  }
  await Promise.all(Array.from({ length: availableParallelism() }, worker))

  const isRuntimes = (name) => /^(__)?cuda/.test(name)
  const called = symbolsIn(output('nm', objects), (type) => type === 'U').filter(isRuntimes)
  if (called.length === 0) throw new Error('expected calls of the runtime, found none')
  const there = new Set(symbolsIn(output('nm', [runtime]), (type) => type === 'T'))
  const missing = new Set(called.filter((name) => !there.has(name)))
  if (missing.size > 0) throw new Error(`not in CUDA 12's runtime: ${[...missing].join(', ')}`)
}
