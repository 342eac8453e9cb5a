// Guards the objects that are compiled once per SIMD level: every symbol that others can see lies in
// the level's own namespace, and none is weak. Of several weak copies of, say, an inline function of
// the standard library, the linker keeps any one: it may be the AVX-512 one, for every processor.
// And no code touches the MMX registers: they are the x87 stack's, and nothing would clear them.
//   node scripts/check-symbols.mjs [build folder]
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import path from 'node:path'

const build = path.resolve(process.argv[2] ?? 'build')
const PREFIX = 'adjoint_kernels_'

/** @returns {string[]} the object files below a folder */
function objectsBelow(folder) {
  return readdirSync(folder, { recursive: true })
    .filter((file) => file.endsWith('.o'))
    .map((file) => path.join(folder, file))
}

/** nm's lines are "address type name", or "type name" for what is undefined. */
function symbolsOf(object) {
  const done = spawnSync('nm', ['--demangle', object], { encoding: 'utf8', maxBuffer: 1 << 28 })
  if (done.status !== 0) throw new Error(`nm ${object}: ${done.error?.message ?? done.stderr}`)
  return done.stdout
    .split('\n')
    .map((line) => /^(?:[0-9a-f]+)?\s*([A-Za-z]) (.*)$/.exec(line))
    .filter((match) => match !== null)
    .map(([, type, name]) => ({ type, name }))
}

/** Functions of an object with instructions on %mm0 to %mm7. */
function usersOfMmx(object) {
  const done = spawnSync('objdump', ['-d', '--no-show-raw-insn', object], {
    encoding: 'utf8',
    maxBuffer: 1 << 30,
  })
  if (done.status !== 0) throw new Error(`objdump ${object}: ${done.error?.message ?? done.stderr}`)
  const users = new Set()
  let name = ''
  for (const line of done.stdout.split('\n')) {
    name = /^[0-9a-f]+ <(.*)>:$/.exec(line)?.[1] ?? name
    if (/%mm[0-7]\b/.test(line)) users.add(name)
  }
  return [...users]
}

function faultOf({ type, name }, level) {
  if ('VWu'.includes(type)) return 'weak'
  if ('TDRBSGC'.includes(type) && !name.includes(`adjoint::cpu::${level}::`)) {
    return `outside adjoint::cpu::${level}`
  }
  return undefined
}

const folder = path.join(build, 'CMakeFiles')
const levels = existsSync(folder)
  ? readdirSync(folder)
      .filter((name) => name.startsWith(PREFIX) && name.endsWith('.dir'))
      .map((name) => name.slice(PREFIX.length, -'.dir'.length))
  : []

let objects = 0
let faults = 0
for (const level of levels) {
  for (const object of objectsBelow(path.join(folder, `${PREFIX}${level}.dir`))) {
    objects++
    for (const name of usersOfMmx(object)) {
      faults++
      console.error(`${path.relative(build, object)}: uses MMX registers: ${name}`)
    }
    for (const symbol of symbolsOf(object)) {
      const fault = faultOf(symbol, level)
      if (!fault) continue
      faults++
      console.error(`${path.relative(build, object)}: ${fault}: ${symbol.name}`)
    }
  }
}
if (levels.length < 2 || objects < levels.length) {
  console.error(`expected objects of at least two SIMD levels below ${folder}, got ${objects}`)
  process.exitCode = 1
} else {
  console.log(`${objects} objects of ${levels.join(', ')}: ${faults} faults`)
  if (faults > 0) process.exitCode = 1
}
