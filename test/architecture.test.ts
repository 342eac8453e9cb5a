import { readFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, test } from 'vitest'
import { filesBelow } from './support/rooms.js'
import { root } from './support/run.js'

const read = (file: string) => readFileSync(path.join(root, file), 'utf8')

interface Room {
  readonly name: string
  readonly mayImport: readonly string[]
}

/**
 * The rooms of src in the order of docs/architecture.md's table, from the top, each with the rooms
 * that its row allows. Rooms of one row do not import one another.
 */
function roomsOfTheTable(): Room[] {
  const rows = read('docs/architecture.md')
    .split('\n')
    .filter((line) => line.startsWith('| `src/'))
    .map((line) => line.split('|').map((cell) => cell.trim()))
    .map(([, names, , allowed]) => ({
      names: [...names.matchAll(/`src\/([\w.]+?)(?:\/|\.ts)`/g)].map(([, name]) => name),
      allowed,
    }))
  return rows.flatMap(({ names, allowed }, i) => {
    const below = rows.slice(i + 1).flatMap((row) => row.names)
    const direct = /below/.test(allowed)
      ? below
      : below.filter((name) => new RegExp(`\\b${name}\\b`).test(allowed))
    // What an allowed room may import is allowed too.
    const reach = new Set(direct)
    rows.slice(i + 1).forEach((row) => {
      if (row.names.some((name) => reach.has(name))) {
        for (const name of below) if (new RegExp(`\\b${name}\\b`).test(row.allowed)) reach.add(name)
      }
    })
    return names.map((name) => ({ name, mayImport: [...reach] }))
  })
}

const rooms = roomsOfTheTable()

/** The room of a file of src: its folder, or `index` for src/index.ts. */
const roomOf = (file: string) => path.relative('src', file).split(path.sep)[0].replace(/\.ts$/, '')

function importsOf(file: string): string[] {
  return [...read(file).matchAll(/(?:from|import|require)\s*\(?\s*'(\.[^']+)'/g)].map(
    ([, target]) => path.normalize(path.join(path.dirname(file), target)),
  )
}

const sources = filesBelow('src', /\.ts$/)

describe('rooms', () => {
  test('the table names every room, and its rows allow only what stands below them', () => {
    const named = rooms.map((room) => room.name)
    expect([...new Set(sources.map(roomOf))].filter((name) => !named.includes(name))).toEqual([])
    expect(rooms.find(({ name }) => name === 'core')?.mayImport).toEqual(['bindings'])
    expect(rooms.find(({ name }) => name === 'bindings')?.mayImport).toEqual([])
  })

  test.each(sources)('%s imports downward alone', (file) => {
    const own = roomOf(file)
    const allowed = new Set([own, ...(rooms.find(({ name }) => name === own)?.mayImport ?? [])])
    const upward = importsOf(file).filter((target) => !allowed.has(roomOf(target)))
    expect(upward).toEqual([])
  })

  test('bindings alone knows the native module', () => {
    const loaders = sources.filter((file) => /dlopen|\.node['"`]/.test(read(file)))
    expect(loaders.map(roomOf).filter((room) => room !== 'bindings')).toEqual([])
  })
})

describe('files', () => {
  const code = [
    ...sources,
    ...filesBelow('test', /\.ts$/),
    ...filesBelow('native', /\.(?:cpp|cu|h)$/),
  ]
  const LINES = 470

  test(`have about 400 lines at most (${LINES})`, () => {
    const long = code
      .map((file) => ({ file, lines: read(file).split('\n').length }))
      .filter(({ lines }) => lines > LINES)
    expect(long).toEqual([])
  })

  test('leave nothing to be done later', () => {
    const marks = /\b(?:TODO|FIXME|XXX|HACK)\b|(?:test|it|describe)\.(?:skip|only|todo)\b/
    const own = path.join('test', 'architecture.test.ts')
    expect(code.filter((file) => file !== own && marks.test(read(file)))).toEqual([])
  })
})

describe('a family of kernels has one stem in every room', () => {
  const stemOf = (file: string) => path.basename(file).replace(/\.\w+$/, '')
  const families = filesBelow('native/addon/families', /\.cpp$/).map(stemOf)
  const has = (folder: string, name: string) =>
    filesBelow(folder, /./).some((file) => path.basename(file) === name)

  test('there are families', () => {
    expect(families).toContain('elementwise')
  })

  test.each(families)('%s', (stem) => {
    const kebab = stem.replaceAll('_', '-')
    expect({
      'native/cpu': has('native/cpu', `${stem}.cpp`),
      'native/selftest': has('native/selftest', `${stem}_test.cpp`),
      'src/ops or src/optim': has('src/ops', `${kebab}.ts`) || has('src/optim', `${kebab}.ts`),
    }).toEqual({ 'native/cpu': true, 'native/selftest': true, 'src/ops or src/optim': true })
  })
})
