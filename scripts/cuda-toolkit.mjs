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

/** Makes a toolkit in `folder` unless one is there. Needs Python 3 with venv. */
export function makeToolkit(folder) {
  if (nvccOf(folder)) return
  const python = path.join(folder, 'bin', 'python')
  if (!existsSync(python)) run('python3', ['-m', 'venv', folder])
  // Without their dependencies: the packages name more than is needed here.
  run(python, [
    '-m',
    'pip',
    'install',
    '--quiet',
    '--disable-pip-version-check',
    '--no-deps',
    ...PACKAGES,
  ])
  if (!nvccOf(folder)) throw new Error(`the packages brought no nvcc into ${folder}`)
}
