// Compiles src to dist: CommonJS with types, and for every entry of package.json's `exports` an ES
// module that re-exports it by name, so that both worlds share one implementation.
import { spawnSync } from 'node:child_process'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')
const require = createRequire(import.meta.url)

rmSync(path.join(root, 'dist'), { recursive: true, force: true })
const tsc = spawnSync(process.execPath, [require.resolve('typescript/bin/tsc'), '-p', root], {
  stdio: 'inherit',
})
if (tsc.status !== 0) process.exit(tsc.status ?? 1)

const { exports } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'))
for (const entry of Object.values(exports)) {
  const file = entry.require?.default
  if (!file) continue
  const base = path.join(root, file.replace(/\.js$/, ''))
  const name = `./${path.basename(base)}.js`
  const names = Object.keys(require(`${base}.js`)).filter((key) => key !== '__esModule')
  const lines = names.map((key) => `export const ${key} = implementation.${key}`)
  writeFileSync(`${base}.mjs`, `import implementation from '${name}'\n${lines.join('\n')}\n`)
  writeFileSync(`${base}.d.mts`, `export * from '${name}'\n`)
}
