// npm run cuda:mutations: deletes the barriers of native/cuda one at a time and shows that the tests
// see it: on the emulated device, under the race detector, in three orders of threads. A mutant is
// one file beside the others; of the object files only those of one family are compiled again.
//   --filter REGEX   of `file:function:number`, as the table names them
//   --jobs N         mutants at a time (2)
//   --folder DIR     where selftest_races is built, or has been (build/cuda-mutations)
//   --write          docs/cuda-mutations.md too
import { exec, spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { barriersOf, without } from './cuda-check/barriers.mjs'

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')
const kernels = path.join(root, 'native', 'cuda')
const tests = path.join(root, 'native', 'selftest', 'emulation')
const { values } = parseArgs({
  options: {
    filter: { type: 'string', default: '' },
    jobs: { type: 'string', default: '2' },
    folder: { type: 'string', default: path.join(root, 'build', 'cuda-mutations') },
    write: { type: 'boolean', default: false },
  },
})
const folder = path.resolve(values.folder)

/**
 * Barriers whose deletion no test can see, and why; `file:function:number`. One that is not there
 * any more, or that a test does see, fails the job.
 * @type {Record<string, string>}
 */
const UNSEEN = {
  'index_guard.h:IndexGuard:1':
    'orders the report before the flag for the processor, which reads it while the kernel runs; the emulation runs a kernel as a whole before anybody reads',
}

// The tests of kernels whose file is named otherwise than their test's.
const TESTS_OF = {
  arg_reduce: 'reduce',
  softmax: 'reduce',
  softmax_rows: 'reduce',
  keyed_sum: 'embedding',
}

/** The test suites that run a file of kernels: those of the test with the longest common name. */
function suitesOf(stem) {
  const stems = readdirSync(tests)
    .filter((name) => name.endsWith('_test.cpp'))
    .map((name) => name.replace('_test.cpp', ''))
  const fits = stems.filter((test) => stem === test || stem.startsWith(`${test}_`))
  const test = TESTS_OF[stem] ?? fits.sort((a, b) => b.length - a.length)[0]
  if (!test) return []
  const source = readFileSync(path.join(tests, `${test}_test.cpp`), 'utf8')
  return [...new Set([...source.matchAll(/^TEST(?:_P|_F)?\((\w+),/gm)].map((match) => match[1]))]
}

function shell(command, limit = 600) {
  return new Promise((resolve) => {
    const options = { cwd: folder, timeout: 1000 * limit, maxBuffer: 2 ** 28 }
    exec(command, options, (error, stdout, stderr) => {
      resolve({ status: error ? (error.code ?? error.signal ?? 1) : 0, output: stdout + stderr })
    })
  })
}

async function must(command, limit) {
  const { status, output } = await shell(command, limit)
  if (status !== 0) throw new Error(`${command.slice(0, 200)} ended with ${status}\n${output}`)
  return output
}

// ---- what is built once
async function buildAll() {
  mkdirSync(folder, { recursive: true })
  const options = '-DADJOINT_ADDON=OFF -DADJOINT_SELFTEST=ON -DADJOINT_EMULATION=ON'
  await must(`cmake -S "${root}" -B . -G Ninja ${options}`)
  await must('cmake --build . --parallel --target selftest_races', 3600)
  const link = (await must('ninja -t commands selftest_races')).trim().split('\n').pop()
  const units = JSON.parse(readFileSync(path.join(folder, 'compile_commands.json'), 'utf8'))
    .filter(({ file, command }) => file.endsWith('.cu') && command.includes('adjoint_watched'))
    .filter(({ file }) => path.dirname(file) === kernels)
    .map(({ file, command }) => {
      const object = / -o (\S+)/.exec(command)[1]
      const stem = path.parse(file).name
      const dependencies = spawnSync('ninja', ['-t', 'deps', object], { cwd: folder }).stdout
      const text = readFileSync(file, 'utf8')
      return { file, stem, command, object, dependencies: String(dependencies), text }
    })
  return { link, units }
}

/** The files of kernels that compile the barrier, those that name its function first. */
function unitsOf(units, barrier) {
  const users = units.filter(
    ({ file, dependencies }) =>
      path.basename(file) === barrier.file || dependencies.includes(`cuda/${barrier.file}`),
  )
  const rank = ({ text }) => (text.includes(barrier.within) ? 0 : 1e9) + text.length
  return users.filter(({ stem }) => suitesOf(stem).length > 0).sort((a, b) => rank(a) - rank(b))
}

// ---- a mutant
/** The first test that failed, and by what. */
function verdictOf({ status, output }) {
  const test = /^\[ {2}FAILED {2}\] (?:\w+\/)?([\w.]+)/m.exec(output)?.[1]
  const how = [
    [/data race/, 'race detector'],
    [/divergent|deadlock/, 'threads that do not meet'],
    [/Failure$/m, 'values'],
  ].find(([pattern]) => pattern.test(output))?.[1]
  return { isKilled: status !== 0, how: how ?? `ended with ${status}`, test: test ?? 'a test' }
}

async function testsOf(program, unit) {
  const filter = suitesOf(unit.stem).map((suite) => `*${suite}.*`)
  return verdictOf(
    await shell(
      `"${program}" --gtest_brief=1 --gtest_fail_fast --gtest_filter=${filter.join(':')}`,
    ),
  )
}

async function tryUnit({ link }, barrier, unit, id) {
  const where = path.join(folder, 'mutants', id)
  const mutant = path.join(where, 'cuda', barrier.file)
  mkdirSync(path.dirname(mutant), { recursive: true })
  writeFileSync(mutant, without(sources.get(barrier.file), barrier))
  const object = path.join(where, `${unit.stem}.o`)
  const program = path.join(where, 'selftest')
  const source = barrier.file === path.basename(unit.file) ? mutant : unit.file
  const launcher = process.env.CMAKE_CXX_COMPILER_LAUNCHER
  // The mutant's folder is the first that headers are looked for in.
  const compile = unit.command
    .replace(' -I', ` -I${where} -I`)
    .replace(/ -o \S+ -c \S+/, ` -o "${object}" -c "${source}"`)
  await must(launcher && !compile.startsWith(launcher) ? `${launcher} ${compile}` : compile)
  await must(link.replace(unit.object, object).replace(/ -o selftest_races /, ` -o "${program}" `))
  const verdict = await testsOf(program, unit)
  rmSync(where, { recursive: true })
  return { ...verdict, stem: unit.stem }
}

async function tryBarrier(built, barrier) {
  const id = `${barrier.file}:${barrier.within}:${barrier.nth}`
  const tried = []
  for (const unit of unitsOf(built.units, barrier)) {
    const verdict = await tryUnit(built, barrier, unit, id.replace(/\W/g, '-'))
    if (verdict.isKilled) return { id, barrier, ...verdict }
    tried.push(unit.stem)
  }
  return { id, barrier, isKilled: false, stem: tried.join(', ') }
}

function lineOf({ barrier, isKilled, how, test, stem, why }) {
  const { file, line, within, text } = barrier
  const fate = isKilled
    ? `${test} (${how})`
    : why
      ? `not seen: ${why}`
      : `SURVIVED the tests of ${stem || 'no family'}`
  return `| ${file}:${line} | \`${within}\` | \`${text.slice(0, -1)}\` | ${fate} |`
}

function writeReport(results) {
  const count = (test) => results.filter(test).length
  const text = `# Barriers, deleted one at a time

\`npm run cuda:mutations -- --write\` deletes each barrier of \`native/cuda\` and each wait for an asynchronous copy, one at a time, and runs the tests of one family after another that compiles it, on the emulated device under the race detector, in three orders of threads, until one fails. Of ${results.length}, a test sees that ${count((r) => r.isKilled)} are gone; ${count((r) => !r.isKilled)} cannot be seen, for the reason in the table.

| place | function | deleted | seen by |
| --- | --- | --- | --- |
${results.map(lineOf).join('\n')}
`
  writeFileSync(path.join(root, 'docs', 'cuda-mutations.md'), text)
}

// ---- what is run
// As they are now, whatever is edited meanwhile.
const sources = new Map(
  readdirSync(kernels)
    .filter((name) => /\.(cu|h)$/.test(name))
    .map((name) => [name, readFileSync(path.join(kernels, name), 'utf8')]),
)
const all = [...sources].flatMap(([name, source]) => barriersOf(source, name))
const idOf = ({ file, within, nth }) => `${file}:${within}:${nth}`
const stale = Object.keys(UNSEEN).filter((id) => !all.some((barrier) => idOf(barrier) === id))
const chosen = all.filter((barrier) => new RegExp(values.filter).test(idOf(barrier)))
const built = await buildAll()
let failed = stale.length
for (const id of stale) console.log(`FAILED  ${id}: no such barrier any more`)

const healthy = new Set(chosen.flatMap((barrier) => unitsOf(built.units, barrier)))
for (const unit of healthy) {
  const { isKilled } = await testsOf(path.join(folder, 'selftest_races'), unit)
  if (isKilled) throw new Error(`the tests of ${unit.stem} fail without any mutation`)
}

const results = new Array(chosen.length)
let next = 0
async function work() {
  while (next < chosen.length) {
    const i = next++
    const result = await tryBarrier(built, chosen[i])
    result.why = UNSEEN[result.id]
    results[i] = result
    const isGood = result.isKilled === !result.why
    if (!isGood) failed++
    console.log(`${isGood ? 'ok    ' : 'FAILED'}  ${lineOf(result).slice(2, -2)}`)
  }
}
await Promise.all(Array.from({ length: Number(values.jobs) }, work))
if (values.write && values.filter === '') writeReport(results)
console.log(`\n${chosen.length - failed} passed, ${failed} failed`)
process.exit(failed === 0 && chosen.length > 0 ? 0 : 1)
