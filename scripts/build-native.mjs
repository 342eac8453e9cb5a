// Builds adjoint_cpu.node into build/Release: with CMake (cmake-js), or where CMake is missing with
// node-gyp from the same sources. `npm install` and `npx adjoint build` both end here. With --cuda,
// adjoint_cuda.node too.
import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import { makeToolkit } from './cuda-toolkit.mjs'

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')
const require = createRequire(import.meta.url)
export const addonPath = path.join(root, 'build', 'Release', 'adjoint_cpu.node')
export const cudaAddonPath = path.join(root, 'build', 'Release', 'adjoint_cuda.node')

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

function buildWithCMake(parallel, definitions) {
  const cmakeJs = require.resolve('cmake-js/bin/cmake-js')
  const extra = definitions.map((definition) => `--CD${definition}`)
  runNode([cmakeJs, 'compile', '--parallel', String(parallel), ...extra])
}

function buildWithNodeGyp(parallel) {
  const nodeGyp = findNodeGyp()
  if (!nodeGyp) throw new Error('neither cmake nor node-gyp was found; install CMake')
  // Node's own headers where they lie beside it, so that nothing is downloaded.
  const prefix = path.resolve(path.dirname(process.execPath), '..')
  const headers = existsSync(path.join(prefix, 'include/node/node_api.h'))
    ? [`--nodedir=${prefix}`]
    : []
  runNode([nodeGyp, 'rebuild', '--directory=native', `--jobs=${parallel}`, ...headers])
  mkdirSync(path.dirname(addonPath), { recursive: true })
  copyFileSync(path.join(root, 'native/build/Release/adjoint_cpu.node'), addonPath)
}

const jobs = () => Math.max(1, os.availableParallelism())

/** @param {{ tool?: 'cmake' | 'node-gyp', definitions?: string[] }} options */
export function buildNative({ tool, definitions = [] } = {}) {
  if (tool === 'cmake' || (tool === undefined && hasCMake())) buildWithCMake(jobs(), definitions)
  else buildWithNodeGyp(jobs())
  if (!existsSync(addonPath)) throw new Error(`the build made no ${addonPath}`)
}

/** Whether this machine has an NVIDIA driver that sees a card. */
export const hasCard = () => spawnSync('nvidia-smi', ['-L'], { stdio: 'ignore' }).status === 0

/**
 * Builds adjoint_cuda.node, in a folder of its own, so that a failure leaves the CPU's addon alone.
 * @param {{ toolkit?: string, architectures?: string }} options  toolkit: a CUDA toolkit or a
 *   virtual environment, which is made if it is missing; architectures: '75;90', say
 */
export function buildCuda({ toolkit, architectures } = {}) {
  if (!hasCMake()) throw new Error('the CUDA backend needs CMake')
  if (toolkit) makeToolkit(toolkit)
  const folder = path.join(root, 'build', 'cuda')
  const definitions = ['ADJOINT_CUDA=ON']
  if (toolkit) definitions.push(`ADJOINT_CUDA_TOOLKIT=${path.resolve(toolkit)}`)
  if (architectures) definitions.push(`ADJOINT_CUDA_ARCHITECTURES=${architectures}`)
  const options = definitions.map((definition) => `--CD${definition}`)
  const target = ['--out', folder, '--target', 'adjoint_cuda', '--parallel', String(jobs())]
  runNode([require.resolve('cmake-js/bin/cmake-js'), 'compile', ...target, ...options])
  mkdirSync(path.dirname(cudaAddonPath), { recursive: true })
  copyFileSync(path.join(folder, 'Release', 'adjoint_cuda.node'), cudaAddonPath)
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  try {
    const { values } = parseArgs({
      options: {
        'node-gyp': { type: 'boolean' },
        cuda: { type: 'boolean' },
        toolkit: { type: 'string' },
        architectures: { type: 'string' },
      },
    })
    if (values.cuda) buildCuda(values)
    else buildNative({ tool: values['node-gyp'] ? 'node-gyp' : undefined })
  } catch (error) {
    console.error(`adjoint: the native build failed: ${error.message}`)
    process.exitCode = 1
  }
}
