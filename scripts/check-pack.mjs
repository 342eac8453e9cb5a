// Tries the package as a new user would: packs it, installs the tarball into an empty project, and
// imports it as an ES module, from CommonJS and from workers, with types; then the same where
// install scripts are blocked, from the error that says what to do to the build that it names.
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')
const require = createRequire(import.meta.url)
const MAX_ADDON_BYTES = 10_000_000

/** What the tarball may hold … */
const ALLOWED = [
  /^package\.json$/,
  /^(README|CHANGELOG|THIRD_PARTY_NOTICES)\.md$/,
  /^LICENSE$/,
  /^CMakeLists\.txt$/,
  /^dist\/.*\.(js|mjs|d\.ts|d\.mts)$/,
  /^native\/(contract\.h|(addon|cpu|shared|cuda)\/.*\.(h|cpp|cu)|binding\.gyp|cuda\/build\.cmake)$/,
  /^scripts\/(install|build-native|cuda-toolkit)\.mjs$/,
]
/** … and must hold. */
const REQUIRED = [
  'package.json',
  'README.md',
  'LICENSE',
  'CHANGELOG.md',
  'THIRD_PARTY_NOTICES.md',
  'CMakeLists.txt',
  'native/contract.h',
  'native/binding.gyp',
  'native/cuda/build.cmake',
  'scripts/install.mjs',
  'scripts/cuda-toolkit.mjs',
  'dist/cli/main.js',
]

class Failure extends Error {}

function expect(condition, message) {
  if (!condition) throw new Failure(message)
}

/** Runs a command without a shell and returns what it printed; `status` is the one expected. */
function run(command, args, { cwd, status = 0 }) {
  const done = spawnSync(command, args, {
    cwd,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    timeout: 600_000,
  })
  const output = `${done.stdout}${done.stderr}`
  const got = done.error?.message ?? done.status ?? done.signal
  expect(got === status, `${command} ${args.join(' ')}: expected ${status}, got ${got}\n${output}`)
  return { stdout: done.stdout, output }
}

function pack(folder) {
  const { stdout } = run(
    'npm',
    ['pack', '--ignore-scripts', '--json', '--pack-destination', folder],
    {
      cwd: root,
    },
  )
  const [{ filename, files }] = Object.values(JSON.parse(stdout))
  const names = files.map((file) => file.path)
  const strange = names.filter((name) => !ALLOWED.some((pattern) => pattern.test(name)))
  expect(strange.length === 0, `the tarball holds what nobody needs: ${strange.join(', ')}`)
  const entries = Object.values(JSON.parse(readFileSync(path.join(root, 'package.json'))).exports)
    .filter((entry) => typeof entry === 'object')
    .flatMap((entry) => [entry.import, entry.require].flatMap((way) => Object.values(way)))
    .map((file) => path.posix.normalize(file))
  const missing = [...REQUIRED, ...entries].filter((name) => !names.includes(name))
  expect(missing.length === 0, `the tarball lacks ${missing.join(', ')}`)
  console.log(`packed ${names.length} files`)
  return path.join(folder, filename)
}

function emptyProject(folder) {
  mkdirSync(folder)
  writeFileSync(path.join(folder, 'package.json'), '{ "name": "consumer", "private": true }\n')
  return folder
}

const USE = `
  const y = tensor([1, 2, 3]).add(tensor([10, 20, 30]))
  if (y.toArray().join() !== '11,22,33') throw new Error('got ' + y.toArray())
`
const SUBPATHS = ['nn', 'optim', 'data', 'train', 'io']

const SCRIPTS = {
  'esm.mjs': `
    import { createRequire } from 'node:module'
    import { Tensor, tensor } from 'adjoint'
    ${SUBPATHS.map((name) => `import * as ${name} from 'adjoint/${name}'`).join('\n')}
    ${USE}
    for (const space of [${SUBPATHS}]) {
      if (Object.keys(space).length === 0) throw new Error('an entry exports nothing')
    }
    const other = createRequire(import.meta.url)('adjoint')
    if (other.Tensor !== Tensor || !(other.tensor([1]) instanceof Tensor)) {
      throw new Error('two Tensor classes')
    }
    console.log('esm ok')`,
  'common.cjs': `
    const { tensor } = require('adjoint')
    ${USE}
    for (const name of ${JSON.stringify(SUBPATHS)}) {
      if (Object.keys(require('adjoint/' + name)).length === 0) throw new Error(name + ' is empty')
    }
    console.log('cjs ok')`,
  'worker.mjs': `
    import { Worker, isMainThread } from 'node:worker_threads'
    if (isMainThread) {
      const ended = (worker) => new Promise((resolve, reject) => {
        worker.once('error', reject)
        worker.once('exit', (code) => code === 0 ? resolve() : reject(new Error('exit ' + code)))
      })
      const file = new URL(import.meta.url)
      await Promise.all([new Worker(file), new Worker(file), new Worker('./common.cjs')].map(ended))
      console.log('worker ok')
    } else {
      const { tensor } = await import('adjoint')
      ${USE}
    }`,
}

const TYPED = `
  import { tensor, type Tensor } from 'adjoint'
  ${SUBPATHS.map((name) => `import * as ${name} from 'adjoint/${name}'`).join('\n')}
  export const x: Tensor = tensor([1, 2]).add(1)
  export const spaces = [${SUBPATHS}]
  // @ts-expect-error a shape is an array
  tensor([1]).reshape('2')
`

function tryImports(project) {
  for (const [name, text] of Object.entries(SCRIPTS)) writeFileSync(path.join(project, name), text)
  for (const [name, says] of [
    ['esm.mjs', 'esm ok'],
    ['common.cjs', 'cjs ok'],
    ['worker.mjs', 'worker ok'],
  ]) {
    const { output } = run(process.execPath, [name], { cwd: project })
    expect(output.includes(says), `${name} printed ${output}`)
    console.log(says)
  }
}

function tryTypes(project) {
  writeFileSync(path.join(project, 'typed.mts'), TYPED)
  writeFileSync(path.join(project, 'typed.cts'), TYPED)
  const options = ['--noEmit', '--strict', '--module', 'nodenext', '--target', 'es2022']
  // As in any TypeScript project for Node; our own declarations are checked too.
  const nodeTypes = ['--typeRoots', path.join(root, 'node_modules', '@types'), '--types', 'node']
  const tsc = require.resolve('typescript/bin/tsc')
  run(process.execPath, [tsc, ...options, ...nodeTypes, 'typed.mts', 'typed.cts'], { cwd: project })
  console.log('types ok')
}

function tryDoctor(project) {
  const { output } = run('npx', ['--no-install', 'adjoint', 'doctor'], { cwd: project })
  for (const fact of ['simd', 'threads', 'adjoint_cpu.node', process.version]) {
    expect(output.toLowerCase().includes(fact), `doctor does not tell ${fact}:\n${output}`)
  }
  console.log('doctor ok')
}

/** Every path tried, why it failed, and the command to run, in one error. */
function tryWithoutAddon(project) {
  const use = "require('adjoint').tensor([1, 2]).toArray()"
  const { output } = run(process.execPath, ['-e', use], { cwd: project, status: 1 })
  for (const part of ['adjoint_cpu.node', 'no such file', 'npx adjoint build']) {
    expect(output.includes(part), `the error does not name ${part}:\n${output}`)
  }
  console.log('error without an addon ok')
}

const folder = mkdtempSync(path.join(os.tmpdir(), 'adjoint-pack-'))
try {
  const tarball = pack(folder)
  const install = ['install', '--no-audit', '--no-fund', '--prefer-offline']

  const project = emptyProject(path.join(folder, 'plain'))
  run('npm', [...install, tarball], { cwd: project })
  const addon = path.join(project, 'node_modules/adjoint/build/Release/adjoint_cpu.node')
  const { size } = statSync(addon)
  expect(size < MAX_ADDON_BYTES, `the addon has ${size} bytes, more than ${MAX_ADDON_BYTES}`)
  console.log(`the addon has ${size} bytes`)
  tryImports(project)
  tryTypes(project)
  tryDoctor(project)

  const blocked = emptyProject(path.join(folder, 'blocked'))
  run('npm', [...install, '--ignore-scripts', tarball], { cwd: blocked })
  tryWithoutAddon(blocked)
  run('npx', ['--no-install', 'adjoint', 'build'], { cwd: blocked })
  tryImports(blocked)
} catch (error) {
  if (!(error instanceof Failure)) throw error
  console.error(error.message)
  process.exitCode = 1
} finally {
  rmSync(folder, { recursive: true, force: true })
}
