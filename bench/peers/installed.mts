import { createRequire } from 'node:module'
import path from 'node:path'
import { PeerError } from './torch.mjs'

/**
 * A package that the person has installed here or in the folder that ADJOINT_PEERS names.
 * @throws PeerError where it is missing
 */
export function installed<T>(name: string): { module: T; file: string } {
  const folder = process.env.ADJOINT_PEERS ?? process.cwd()
  const require = createRequire(path.join(path.resolve(folder), 'package.json'))
  try {
    return { module: require(name) as T, file: require.resolve(name) }
  } catch {
    throw new PeerError(`${name} is not installed (npm install --no-save ${name})`)
  }
}
