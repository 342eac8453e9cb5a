// Holds the README to its word: its scripts run and type-check, its commands and options exist, its
// environment variables are read somewhere, its links lead to files.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')
const require = createRequire(import.meta.url)
const readme = readFileSync(path.join(root, 'README.md'), 'utf8')
const { scripts } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'))

const faults = []
let checks = 0
function check(condition, fault) {
  checks++
  if (!condition) faults.push(fault)
}

function run(args) {
  const done = spawnSync(process.execPath, args, { cwd: root, encoding: 'utf8', timeout: 300_000 })
  return { status: done.status, output: `${done.stdout}${done.stderr}` }
}

const tsx = (...args) => run(['--import', 'tsx', ...args])
const blocks = [...readme.matchAll(/^```(\w*)\n(.*?)^```/gms)]
const inline = [...readme.matchAll(/`((?:npm|npx) [^`]+)`/g)].map((match) => match[1])
const commands = blocks
  .filter(([, language]) => language === '' || language === 'sh')
  .flatMap(([, , text]) => text.split(/\n|&&/))
  .concat(inline)
  .map((line) => line.trim())
  .filter((line) => line !== '')

// ---- commands
const NPM_COMMANDS = ['install', 'test', 'run']
const commandsOfAdjoint = () => tsx('src/cli/main.ts', '--help').output
for (const command of commands) {
  const [program, verb, name, ...rest] = command.split(/\s+/)
  if (program === 'npm') {
    check(NPM_COMMANDS.includes(verb), `${command}: unknown to npm`)
    if (verb !== 'run') continue
    check(name in scripts, `${command}: package.json has no such script`)
    const options = rest.filter((word) => word.startsWith('--') && word !== '--')
    if (options.length === 0) continue
    const file = (scripts[name] ?? '').split(' ').at(-1)
    const help = tsx(file, '--help')
    check(help.status === 0, `${file} --help: ended with ${help.status}\n${help.output}`)
    for (const option of options) {
      check(help.output.includes(option), `${command}: ${file} --help does not name ${option}`)
    }
  } else if (program === 'npx' && verb === 'adjoint') {
    check(
      new RegExp(`^  ${name} `, 'm').test(commandsOfAdjoint()),
      `${command}: adjoint --help does not name it`,
    )
  } else {
    check(false, `${command}: expected npm or npx adjoint`)
  }
}
check(commands.length > 0, 'README.md has no commands')

// ---- links and variables
for (const [, target] of readme.matchAll(/\]\(([^)#:]+)\)/g)) {
  check(existsSync(path.join(root, target)), `link to ${target}, which is not there`)
}
const sources = ['src', 'native', 'scripts']
  .flatMap((folder) =>
    readdirSync(path.join(root, folder), { recursive: true }).map((file) =>
      path.join(folder, file),
    ),
  )
  .filter((file) => /\.(ts|mjs|cpp|h|cu)$/.test(file) && !file.endsWith('check-readme.mjs'))
  .map((file) => readFileSync(path.join(root, file), 'utf8'))
  .join('\n')
for (const [variable] of readme.matchAll(/\bADJOINT_[A-Z_]+/g)) {
  check(sources.includes(variable), `${variable} is read nowhere`)
}

// ---- scripts: inside the package `adjoint` names itself, by the entries that users have too
const folder = path.join(root, '.cache', 'readme')
rmSync(folder, { recursive: true, force: true })
mkdirSync(folder, { recursive: true })
const files = blocks
  .filter(([, language]) => language === 'ts')
  .map(([, , text], index) => {
    const file = path.join(folder, `script${index + 1}.mts`)
    writeFileSync(file, text)
    return file
  })
check(files.length > 0, 'README.md has no script')
for (const file of files) {
  const { status, output } = tsx(file)
  check(status === 0 && output !== '', `${path.basename(file)}: ended with ${status}\n${output}`)
}
const options = '--noEmit --strict --skipLibCheck --module nodenext --target es2022 --types node'
const types = run([require.resolve('typescript/bin/tsc'), ...options.split(' '), ...files])
check(types.status === 0, `types of README.md's scripts:\n${types.output}`)

for (const fault of faults) console.error(fault)
console.log(`${checks} checks of README.md, ${faults.length} faults`)
if (faults.length > 0) process.exitCode = 1
