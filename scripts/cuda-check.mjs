// npm run cuda:check: what can be known of the CUDA backend on a machine without a GPU. Named checks,
// a line each; a failure prints the end of its log; the last line counts them.
//   --full               all of it, for --architectures; without, the part that CI has time for
//   --toolkit DIR        a CUDA toolkit, or where scripts/cuda-toolkit.mjs puts one
//   --only REGEX         the checks of that name alone; they need what the others have built
//   --architectures 90   compute capabilities, without the dot (--full: 75;80;90)
//   --write              docs/cuda-kernels.md too: these checks, what the compiler made of the kernels,
//                        and with --full how many bytes they move
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { complaints, exceptions, kernelsOf, staleRules, tableOf } from './cuda-check/compiled.mjs'
import { fitsCuda12 } from './cuda-check/cuda12.mjs'
import { headersOfCuda12, makeToolkit, nvccOf } from './cuda-toolkit.mjs'

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')
const folder = path.join(root, 'build', 'cuda-check')
const { values } = parseArgs({
  options: {
    full: { type: 'boolean', default: false },
    write: { type: 'boolean', default: false },
    toolkit: { type: 'string', default: path.join(root, '.cache', 'cuda-toolkit') },
    architectures: { type: 'string' },
    only: { type: 'string', default: '' },
  },
})
const toolkit = path.resolve(values.toolkit)
const architectures = values.architectures ?? (values.full ? '75;80;90' : '90')
const addon = path.join(folder, 'Release', 'adjoint_cuda.node')

// What the addon may be linked with: the system's own libraries, and nothing of NVIDIA's.
const SYSTEM_LIBRARIES = /^(lib(c|m|dl|rt|pthread|stdc\+\+|gcc_s)\.so|ld-linux)/
const FEW_PLANS =
  '*channelsLastIsWhatTensorCoresRead*:*efus*:AttentionPlanKey*:*AttentionPlansFor.gpt2/1'

let passed = 0
let failed = 0
const report = []

/** Runs a check, a function that is given `log`; it has failed if it throws. */
async function check(name, body) {
  if (!new RegExp(values.only).test(name)) return true
  const began = performance.now()
  const chunks = []
  let isGood = true
  try {
    await body((text) => chunks.push(String(text)))
  } catch (error) {
    isGood = false
    chunks.push(`\n${error.message}`)
  }
  if (isGood) passed++
  else failed++
  const seconds = Math.round((performance.now() - began) / 1000)
  const verdict = isGood ? 'ok    ' : 'FAILED'
  console.log(`${verdict}  ${name.padEnd(60)} ${String(seconds).padStart(4)} s`)
  report.push(`- ${isGood ? '' : 'FAILED: '}${name}`)
  if (!isGood) {
    const lines = chunks
      .join('')
      .split('\n')
      .filter((line) => line)
    for (const line of lines.slice(-40)) console.log(`    ${line.slice(0, 400)}`)
  }
  return isGood
}

/** A program's output goes to the log. */
function run(log, command, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd: root,
      stdio: ['ignore', 'pipe', 'pipe'],
      ...options,
    })
    child.stdout.on('data', log)
    child.stderr.on('data', log)
    child.on('error', reject)
    child.on('close', (status, signal) => {
      if (status === 0) resolve()
      else reject(new Error(`${command} ended with ${status ?? signal}`))
    })
  })
}

function output(command, args) {
  const done = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 2 ** 28 })
  if (done.error) throw done.error
  if (done.status !== 0) throw new Error(`${command} ${args.join(' ')}: ${done.stderr}`)
  return done.stdout
}

async function configure(log, where, ...options) {
  const generator = spawnSync('ninja', ['--version']).status === 0 ? ['-G', 'Ninja'] : []
  await run(log, 'cmake', ['-S', root, '-B', where, ...generator, ...options])
}

async function build(log, where, ...targets) {
  await run(log, 'cmake', ['--build', where, '--parallel', '--target', ...targets])
}

// ---- compile and link
async function configureCuda(log) {
  makeToolkit(toolkit)
  await configure(
    log,
    folder,
    ...['-DCMAKE_BUILD_TYPE=Release', '-DADJOINT_SELFTEST=ON', '-DADJOINT_CUDA=ON'],
    `-DADJOINT_CUDA_TOOLKIT=${toolkit}`,
    `-DADJOINT_CUDA_ARCHITECTURES=${architectures}`,
  )
}

function neededLibraries(log) {
  const needed = [...output('readelf', ['-d', addon]).matchAll(/\(NEEDED\).*\[(.+)\]/g)]
  const names = needed.map((match) => match[1])
  log(names.join('\n'))
  const foreign = names.filter((name) => !SYSTEM_LIBRARIES.test(name))
  if (foreign.length > 0) throw new Error(`the addon is linked with ${foreign.join(', ')}`)
}

// A module links with functions missing, and a family without a file of native/cuda is left out of it.
function missingFunctions() {
  const stems = (folder) =>
    readdirSync(path.join(root, folder))
      .filter((name) => /\.(cu|cpp)$/.test(name))
      .map((name) => path.parse(name).name)
  const there = stems('native/cuda')
  const families = stems('native/addon/families').filter((stem) => !there.includes(stem))
  if (families.length > 0) throw new Error(`native/cuda lacks ${families.join(', ')}`)
  const missing = output('nm', ['-DCu', addon])
    .split('\n')
    .filter((line) => line.includes('adjoint::'))
  if (missing.length > 0) throw new Error(`not defined:\n${missing.join('\n')}`)
}

// ---- compiled code
const tables = []
const movedBytes = []
const plans = []

async function compiledCode(log, architecture) {
  const kernels = await kernelsOf(addon, path.dirname(nvccOf(toolkit)), architecture)
  const wrong = kernels
    .flatMap((kernel) => complaints(kernel, architecture).map((what) => `${kernel.name}: ${what}`))
    .concat(staleRules(kernels, architecture))
  tables.push(
    `## sm_${architecture}: ${kernels.length} kernels\n\n${tableOf(kernels, architecture)}`,
  )
  if (wrong.length === 0) return
  log(wrong.join('\n'))
  throw new Error(`${wrong.length} complaints about ${kernels.length} kernels`)
}

function writeTables() {
  const version = /release (\S+),/.exec(output(nvccOf(toolkit), ['--version']))?.[1]
  const text = `# Compiled kernels

What nvcc ${version} makes of \`native/cuda\`, read from the addon by \`npm run cuda:check -- --write\`, without a GPU. A line for each kernel's template: the most registers, bytes of stack and bytes of static shared memory among its instances; how many of them load 16 bytes at once (into registers, or into shared memory), store 16 bytes or multiply on tensor cores; and the least share of a multiprocessor's threads that can be resident in blocks of 256 (from registers and static shared memory; what a launch adds is not counted). 16-byte accesses are asked of the instances for dense rows; those beside them are for strided or unaligned operands and for integers.

Kernels have no stack, no access to local memory and no arithmetic in float64 unless they compute in it, except:

${exceptions.join('\n')}

## Checks

\`npm run cuda:check -- ${values.full ? '--full ' : ''}--write\`: ${passed} passed, ${failed} failed.

${report.join('\n')}

${[...plansOfCudnn(), ...bytesMoved(), ...tables].join('\n\n')}
`
  writeFileSync(path.join(root, 'docs', 'cuda-kernels.md'), text)
}

/** The plans that cuDNN made, by card and dtype. */
function plansOfCudnn() {
  if (plans.length === 0) return []
  return [
    `## cuDNN's plans

For each card the layers of ResNet-50, of U-Net and of other networks, forward, backward and fused, in both orders of axes, and GPT-2's attention with both kinds of gradient (\`native/selftest/plans\`). What cuDNN refuses on compute capability 7.5, bfloat16, is computed by kernels of our own.

\`\`\`
${plans.join('\n')}
\`\`\``,
  ]
}

/** The table of bytes, if they have been counted. */
function bytesMoved() {
  if (movedBytes.length === 0) return []
  return [
    `## Bytes moved

What the threads of memory-bound kernels ask of device memory, counted on the emulation (\`native/selftest/races/traffic_test.cpp\`, which holds each row to a limit), against the least possible: each operand once. Of operands that are small beside the others (weights, statistics) every byte is counted once, since they stay in the caches; partial sums are counted. Batch norm reads its input twice, for the statistics and for the result, and its gradient reads both twice. With the channels last, their coefficients are counted at each of the many threads, which read them from the caches.

| operation | dtype | size | KiB at least | KiB moved | times |
| --- | --- | --- | ---: | ---: | ---: |
${movedBytes.join('\n')}`,
  ]
}

// ---- what is run
// CMake keeps the compiler that it has found in a folder.
const cache = path.join(folder, 'CMakeCache.txt')
if (existsSync(cache) && !readFileSync(cache, 'utf8').includes(`TOOLKIT:PATH=${toolkit}\n`)) {
  rmSync(folder, { recursive: true })
}

const listed = architectures.split(';').map(Number)
const isConfigured = await check('toolkit and configuration', configureCuda)
const isBuilt =
  isConfigured &&
  (await check(`addon, sm_${listed.join(', ')}: compiles and links`, (log) =>
    build(log, folder, 'adjoint_cuda'),
  ))
if (isBuilt) {
  await check('addon: needs no library of NVIDIA', neededLibraries)
  await check('addon: every function of the contract', missingFunctions)
  for (const architecture of listed) {
    await check(`compiled code, sm_${architecture}`, (log) => compiledCode(log, architecture))
  }
}
if (isConfigured) {
  await check('self-test: compiles and links', (log) => build(log, folder, 'selftest_cuda'))
  await check(`plans of cuDNN without a device${values.full ? '' : ', a few'}`, async (log) => {
    await build(log, folder, 'selftest_plans')
    const filter = values.full ? [] : [`--gtest_filter=${FEW_PLANS}`]
    const chunks = []
    await run((text) => chunks.push(String(text)), path.join(folder, 'selftest_plans'), filter, {
      env: { ...process.env, ADJOINT_CUDA_PATH: toolkit },
    }).finally(() => log(chunks.join('')))
    plans.push(...(chunks.join('').match(/^ {2}\S+ .*(plans|refusals).*$/gm) ?? []))
    if (/\[ {2}SKIPPED/.test(chunks.join(''))) throw new Error('cuDNN was not loaded')
  })
}
if (values.full && isConfigured) {
  await check("CUDA 12: compiles against its headers, calls its runtime's functions", (log) => {
    const places = { root, folder: path.join(folder, 'cuda12'), nvcc: nvccOf(toolkit) }
    const cuda12 = headersOfCuda12(`${toolkit}-12`)
    return fitsCuda12((...call) => run(log, ...call), output, places, cuda12)
  })
}
// CI runs the emulated kernels in steps of their own, with sanitizers and the race detector.
if (values.full) {
  const emulated = path.join(root, 'build', 'cuda-check-emulated')
  const buildEmulated = async (log, target) => {
    const options = ['-DADJOINT_ADDON=OFF', '-DADJOINT_SELFTEST=ON', '-DADJOINT_EMULATION=ON']
    await configure(log, emulated, ...options)
    await build(log, emulated, target)
  }
  await check('kernels on the emulated device', async (log) => {
    await buildEmulated(log, 'selftest_emulated')
    await run(log, path.join(emulated, 'selftest_emulated'), ['--gtest_brief=1'])
  })
  await check('bytes that the kernels move', async (log) => {
    await buildEmulated(log, 'selftest_races')
    const chunks = []
    const filter = ['--gtest_brief=1', '--gtest_filter=TrafficOfKernels.*']
    await run(
      (text) => chunks.push(String(text)),
      path.join(emulated, 'selftest_races'),
      filter,
    ).finally(() => log(chunks.join('')))
    movedBytes.push(...chunks.join('').match(/^\| .*\|$/gm))
  })
}
if (values.write && tables.length > 0) writeTables()

console.log(`\n${passed} passed, ${failed} failed`)
process.exit(failed === 0 && passed > 0 ? 0 : 1)
