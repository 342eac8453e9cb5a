// npm's prepare step, which runs in a clone and never for those who depend on the package: compiles
// the TypeScript, and fails where the install step could not build the addon.
import { existsSync } from 'node:fs'
import { addonPath } from './build-native.mjs'
import './build-ts.mjs'

if (!existsSync(addonPath) && process.env.ADJOINT_SKIP_BUILD !== '1') {
  console.error(`adjoint: expected ${addonPath}; run: npm run build:native`)
  process.exitCode = 1
}
