#!/usr/bin/env node
import { spawnSync } from 'node:child_process'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { packageRoot } from '../bindings/locate.js'
import { doctor } from './doctor.js'

const USAGE = `usage: adjoint <command>

  doctor   prints what was found on this machine, and why something was not
  build    builds the native addon from source (CMake, or node-gyp where CMake is missing)
    --cuda             the CUDA addon instead (needs CMake and a CUDA toolkit)
    --toolkit DIR      the toolkit; where DIR has none, one is made from NVIDIA's packages on PyPI
    --architectures L  compute capabilities, such as '75;90'; those of this machine's cards if left
                       out, or all from 7.5 to 12.0 where it has none
`

function main(): number {
  let command: string | undefined
  const buildOptions: string[] = []
  try {
    const { positionals, values } = parseArgs({
      allowPositionals: true,
      options: {
        help: { type: 'boolean', short: 'h' },
        cuda: { type: 'boolean' },
        toolkit: { type: 'string' },
        architectures: { type: 'string' },
      },
    })
    command = values.help ? 'help' : positionals[0]
    if (positionals.length > 1) throw new Error(`unexpected argument ${positionals[1]}`)
    const { cuda, toolkit, architectures } = values
    if ((toolkit || architectures) && !cuda) throw new Error('expected --cuda with its options')
    if (cuda && command !== 'build') throw new Error('--cuda is an option of build')
    if (cuda) buildOptions.push('--cuda')
    if (toolkit) buildOptions.push('--toolkit', toolkit)
    if (architectures) buildOptions.push('--architectures', architectures)
  } catch (error) {
    process.stderr.write(`adjoint: ${(error as Error).message}\n${USAGE}`)
    return 2
  }
  switch (command) {
    case 'doctor':
      return doctor(process.stdout)
    case 'build': {
      const script = path.join(packageRoot, 'scripts', 'build-native.mjs')
      return (
        spawnSync(process.execPath, [script, ...buildOptions], { stdio: 'inherit' }).status ?? 1
      )
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
