// npm run gpu:pack [-- --out FOLDER] [-- --toolkit DIR]: everything that a machine with an NVIDIA GPU
// needs to prove the CUDA backend, for one that has CUDA (nvcc, cuBLAS, cuDNN) and perhaps PyTorch, but
// neither Node.js nor a network. There:  bash FOLDER/run.sh  (run.sh says what it does).
// With --toolkit the addon and the self-test are built here, for --architectures, and come along;
// without, that machine builds them.
import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, readdirSync, rmSync, statSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { makeToolkit } from '../cuda-toolkit.mjs'

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..', '..')
const MOST_BYTES = 60e6
// What only a developer's machine needs, or a browser.
const LEFT_OUT = [
  ...['@biomejs', '@types', 'typescript', 'node-gyp', 'cmake-js', '*.map'],
  ...['echarts/dist', 'echarts/i18n', 'echarts/types', 'zrender/dist'],
]

const { values } = parseArgs({
  options: {
    out: { type: 'string', default: path.join(root, 'build-gpu') },
    toolkit: { type: 'string' },
    architectures: { type: 'string', default: '75;80;90' },
  },
})
const out = path.resolve(values.out)

function run(command, args, options = {}) {
  const done = spawnSync(command, args, { cwd: root, stdio: 'inherit', ...options })
  if (done.error) throw done.error
  if (done.status !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${done.status}`)
}

/** Whether an archive of what npm has brought is there and new enough. */
function isCurrent(file) {
  const made = path.join(out, file)
  const lock = path.join(root, 'package-lock.json')
  return existsSync(made) && statSync(made).mtimeMs > statSync(lock).mtimeMs
}

/** tar and xz: both are wherever there is a shell. */
function archive(file, folder, names, ...options) {
  const env = { ...process.env, XZ_OPT: '-6 -T0' }
  run('tar', ['-cJf', path.join(out, file), '-C', folder, ...options, ...names], { env })
}

mkdirSync(out, { recursive: true })
rmSync(path.join(out, 'prebuilt.tar.xz'), { force: true })
run(process.execPath, ['scripts/build-ts.mjs'])

if (!isCurrent('node.tar.xz')) archive('node.tar.xz', path.dirname(process.execPath), ['node'])
const listed = spawnSync('git', ['ls-files', '-z'], { cwd: root, encoding: 'utf8' })
const sources = listed.stdout
  .split('\0')
  .filter((name) => name && existsSync(path.join(root, name)))
const addon = path.join('build', 'Release', 'adjoint_cpu.node')
archive('sources.tar.xz', root, [...sources, 'dist', addon])
if (!isCurrent('packages.tar.xz')) {
  archive(
    'packages.tar.xz',
    root,
    ['node_modules'],
    ...LEFT_OUT.map((name) => `--exclude=node_modules/${name}`),
    '--dereference',
  )
}

if (values.toolkit) {
  makeToolkit(values.toolkit)
  const folder = path.join(root, 'build', 'gpu')
  run('cmake', [
    ...['-S', root, '-B', folder, '-DCMAKE_BUILD_TYPE=Release', '-DADJOINT_SELFTEST=ON'],
    ...['-DADJOINT_CUDA=ON', `-DADJOINT_CUDA_TOOLKIT=${path.resolve(values.toolkit)}`],
    `-DADJOINT_CUDA_ARCHITECTURES=${values.architectures}`,
  ])
  run('cmake', ['--build', folder, '--parallel', '--target', 'adjoint_cuda', 'selftest_cuda'])
  const prebuilt = path.join(folder, 'prebuilt')
  mkdirSync(prebuilt, { recursive: true })
  copyFileSync(
    path.join(folder, 'Release', 'adjoint_cuda.node'),
    path.join(prebuilt, 'adjoint_cuda.node'),
  )
  copyFileSync(path.join(folder, 'selftest_cuda'), path.join(prebuilt, 'selftest_cuda'))
  run('strip', [path.join(prebuilt, 'selftest_cuda')])
  archive('prebuilt.tar.xz', prebuilt, ['adjoint_cuda.node', 'selftest_cuda'])
}
copyFileSync(path.join(root, 'scripts', 'gpu', 'run.sh'), path.join(out, 'run.sh'))

let total = 0
for (const name of readdirSync(out)) {
  const { size } = statSync(path.join(out, name))
  total += size
  console.log(`${(size / 1e6).toFixed(1).padStart(6)} MB  ${name}`)
}
console.log(
  `${(total / 1e6).toFixed(1).padStart(6)} MB in ${out}. On the machine with the GPU:  bash run.sh`,
)
if (total > MOST_BYTES) throw new Error(`expected at most ${MOST_BYTES / 1e6} MB`)
