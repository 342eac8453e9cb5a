// A CUDA toolkit from NVIDIA's own packages on PyPI, in a virtual environment: nothing else of the
// machine is touched. `npx adjoint build --cuda --toolkit DIR` makes it where DIR has none.
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import path from 'node:path'

// What the build reads and the addon loads: compiler, headers, cuBLAS, cuDNN, NVRTC, and the tools
// that look into compiled code. About 1.2 GB to download.
const PACKAGES = [
  'nvidia-cuda-nvcc>=13,<14',
  'nvidia-cuda-crt>=13,<14',
  'nvidia-nvvm>=13,<14',
  'nvidia-cuda-runtime>=13,<14',
  'nvidia-cuda-cccl>=13,<14',
  'nvidia-cuda-nvrtc>=13,<14',
  'nvidia-cuda-cuobjdump>=13,<14',
  'nvidia-cuda-nvdisasm>=13,<14',
  'nvidia-cublas>=13,<14',
  'nvidia-cudnn-cu13>=9,<10',
  'nvidia-cudnn-frontend>=1.14,<2',
]

/** The compiler of a toolkit or of an environment that holds one; undefined if there is none. */
export function nvccOf(folder) {
  const plain = path.join(folder, 'bin', 'nvcc')
  if (existsSync(plain)) return plain
  const lib = path.join(folder, 'lib')
  if (!existsSync(lib)) return undefined
  return readdirSync(lib)
    .filter((name) => name.startsWith('python3'))
    .flatMap((name) =>
      ['cu13', 'cu12'].map((cuda) =>
        path.join(lib, name, 'site-packages', 'nvidia', cuda, 'bin', 'nvcc'),
      ),
    )
    .find((file) => existsSync(file))
}

function run(command, args) {
  const done = spawnSync(command, args, { stdio: 'inherit' })
  if (done.error) throw new Error(`${command}: ${done.error.message}`)
  if (done.status !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${done.status}`)
}

/** Puts packages into a virtual environment in `folder`. Needs Python 3 with venv. */
function addPackages(folder, packages) {
  const python = path.join(folder, 'bin', 'python')
  if (!existsSync(python)) run('python3', ['-m', 'venv', folder])
  // Without their dependencies: the packages name more than is needed here.
  const options = ['--quiet', '--disable-pip-version-check', '--no-deps']
  run(python, ['-m', 'pip', 'install', ...options, ...packages])
}

/** Makes a toolkit in `folder` unless one is there. */
export function makeToolkit(folder) {
  if (nvccOf(folder)) return
  addPackages(folder, PACKAGES)
  if (!nvccOf(folder)) throw new Error(`the packages brought no nvcc into ${folder}`)
}

// PyPI has no compiler of CUDA 12.
const PACKAGES_OF_12 = [
  'nvidia-cuda-nvcc-cu12>=12.9,<13',
  'nvidia-cuda-runtime-cu12>=12.9,<13',
  'nvidia-cuda-cccl-cu12>=12.9,<13',
  'nvidia-cuda-nvrtc-cu12>=12.9,<13',
  'nvidia-cublas-cu12>=12.9,<13',
  'nvidia-cudnn-cu12>=9,<10',
  'nvidia-cudnn-frontend>=1.14,<2',
]

/** The headers of CUDA 12 and its static runtime, in an environment of their own. */
export function headersOfCuda12(folder) {
  const find = () =>
    existsSync(path.join(folder, 'lib'))
      ? readdirSync(path.join(folder, 'lib'))
          .map((name) => path.join(folder, 'lib', name, 'site-packages'))
          .find((packages) => existsSync(path.join(packages, 'nvidia', 'cuda_runtime')))
      : undefined
  if (!find()) addPackages(folder, PACKAGES_OF_12)
  const packages = find()
  const parts = ['cuda_nvcc', 'cuda_runtime', 'cublas', 'cuda_nvrtc', 'cudnn', 'cuda_cccl']
  return {
    includes: [
      ...parts.map((part) => path.join(packages, 'nvidia', part, 'include')),
      path.join(packages, 'include'),
    ],
    runtime: path.join(packages, 'nvidia', 'cuda_runtime', 'lib', 'libcudart_static.a'),
  }
}
