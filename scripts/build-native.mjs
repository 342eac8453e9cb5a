// Builds adjoint_cpu.node into build/Release: with CMake (cmake-js), or where CMake is missing with
// node-gyp from the same sources. `npm install` and `npx adjoint build` both end here.
import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')
const require = createRequire(import.meta.url)
export const addonPath = path.join(root, 'build', 'Release', 'adjoint_cpu.node')

function runNode(args) {
  const done = spawnSync(process.execPath, args, { cwd: root, stdio: 'inherit' })
  if (done.error) throw done.error
  if (done.status !== 0) throw new Error(`${path.basename(args[0])} ended with ${done.status}`)
}

const hasCMake = () => spawnSync('cmake', ['--version'], { stdio: 'ignore' }).status === 0

/** node-gyp: a dependency, the one npm runs this script with, or the one inside npm. */
function findNodeGyp() {
  const candidates = [
    process.env.npm_config_node_gyp,
    path.join(
      path.dirname(process.execPath),
      '../lib/node_modules/npm/node_modules/node-gyp/bin/node-gyp.js',
    ),
  ]
  try {
    candidates.unshift(require.resolve('node-gyp/bin/node-gyp.js'))
  } catch {
    // Not installed here.
  }
  return candidates.find((file) => file && existsSync(file))
}

function buildWithCMake(jobs, definitions) {
  const cmakeJs = require.resolve('cmake-js/bin/cmake-js')
  const extra = definitions.map((definition) => `--CD${definition}`)
  runNode([cmakeJs, 'compile', '--parallel', String(jobs), ...extra])
}

function buildWithNodeGyp(jobs) {
  const nodeGyp = findNodeGyp()
  if (!nodeGyp) throw new Error('neither cmake nor node-gyp was found; install CMake')
  // Node's own headers where they lie beside it, so that nothing is downloaded.
  const prefix = path.resolve(path.dirname(process.execPath), '..')
  const headers = existsSync(path.join(prefix, 'include/node/node_api.h'))
    ? [`--nodedir=${prefix}`]
    : []
  runNode([nodeGyp, 'rebuild', '--directory=native', `--jobs=${jobs}`, ...headers])
  mkdirSync(path.dirname(addonPath), { recursive: true })
  copyFileSync(path.join(root, 'native/build/Release/adjoint_cpu.node'), addonPath)
}

/** @param {{ tool?: 'cmake' | 'node-gyp', definitions?: string[] }} options */
export function buildNative({ tool, definitions = [] } = {}) {
  const jobs = Math.max(1, os.availableParallelism())
  if (tool === 'cmake' || (tool === undefined && hasCMake())) buildWithCMake(jobs, definitions)
  else buildWithNodeGyp(jobs)
  if (!existsSync(addonPath)) throw new Error(`the build made no ${addonPath}`)
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const tool = process.argv.includes('--node-gyp') ? 'node-gyp' : undefined
  try {
    buildNative({ tool })
  } catch (error) {
    console.error(`adjoint: the native build failed: ${error.message}`)
    process.exitCode = 1
  }
}
