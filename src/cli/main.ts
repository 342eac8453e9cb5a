#!/usr/bin/env node
import { spawnSync } from 'node:child_process'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { packageRoot } from '../bindings/locate.js'
import { doctor } from './doctor.js'

const USAGE = `usage: adjoint <command>

  doctor   prints what was found on this machine, and why something was not
  build    builds the native addon from source (CMake, or node-gyp where CMake is missing)
`

function main(): number {
  let command: string | undefined
  try {
    const { positionals, values } = parseArgs({
      allowPositionals: true,
      options: { help: { type: 'boolean', short: 'h' } },
    })
    command = values.help ? 'help' : positionals[0]
    if (positionals.length > 1) throw new Error(`unexpected argument ${positionals[1]}`)
  } catch (error) {
    process.stderr.write(`adjoint: ${(error as Error).message}\n${USAGE}`)
    return 2
  }
  switch (command) {
    case 'doctor':
      return doctor(process.stdout)
    case 'build': {
      const script = path.join(packageRoot, 'scripts', 'build-native.mjs')
      return spawnSync(process.execPath, [script], { stdio: 'inherit' }).status ?? 1
    }
    case 'help':
      process.stdout.write(USAGE)
      return 0
    default:
      process.stderr.write(command ? `adjoint: no such command: ${command}\n${USAGE}` : USAGE)
      return 2
  }
}

process.exitCode = main()
