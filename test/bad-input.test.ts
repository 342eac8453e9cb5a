import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { describe, expect, test } from 'vitest'
import * as adjoint from '../src/index.js'
import type { Outcome } from './bad-input.script.js'
import { methodTable, names, table } from './bad-input.table.js'
import { runScript } from './support/run.js'

// In a process of its own: no input may crash it, and a crash is to be a failure that names it.
const folder = mkdtempSync(path.join(tmpdir(), 'adjoint-'))
const report = path.join(folder, 'calls.jsonl')
const done = runScript('test/bad-input.script.ts', [report, adjoint.defaultDevice().type])
const lines = readFileSync(report, 'utf8')
  .split('\n')
  .filter(Boolean)
  .map((line) => JSON.parse(line) as Outcome & { done?: boolean })
rmSync(folder, { recursive: true })
const outcomes = lines.filter((line) => 'error' in line)

test('the process outlives every call', () => {
  expect(
    { status: done.status, signal: done.signal, stderr: done.stderr },
    JSON.stringify(lines.at(-1)),
  ).toEqual({
    status: 0,
    signal: null,
    stderr: '',
  })
  expect(lines.at(-1)).toEqual({ done: true })
})

test('every public function has a row', () => {
  const isClass = (f: unknown) => /^class\b/.test(String(f))
  const functions = Object.entries(adjoint).filter(
    ([, f]) => typeof f === 'function' && !isClass(f),
  )
  expect(functions.map(([name]) => name).filter((name) => !(name in table))).toEqual([])
  expect(Object.keys(table).filter((name) => !(name in adjoint))).toEqual([])
})

test('every method of Tensor has a row, here or as a function', () => {
  const { prototype } = adjoint.Tensor
  // What a disposed tensor can do too, and what the library alone calls.
  const harmless = ['constructor', 'toString', 'dispose', 'dense', 'gradEdge', 'takeOver']
  const methods = Object.getOwnPropertyNames(prototype)
    .filter((name) => typeof Object.getOwnPropertyDescriptor(prototype, name)?.value === 'function')
    .filter((name) => !harmless.includes(name))
  expect(methods.filter((name) => !(name in table || name in methodTable))).toEqual([])
  expect(Object.keys(methodTable).filter((name) => !methods.includes(name))).toEqual([])
})

describe.each(names)('%s', (name) => {
  const own = outcomes.filter((outcome) => outcome.name === name)

  test('takes the good arguments of its row', () => {
    expect(own.filter(({ label, error }) => label === 'good' && error !== null)).toEqual([])
    expect(own.some(({ label }) => label === 'good')).toBe(true)
  })

  test('refuses each wrong one with a typed error: the op, what was expected, what came', () => {
    const accepted = own.filter(({ label, error }) => label !== 'good' && error === null)
    expect(accepted.map(({ label }) => label)).toEqual([])
    const grammar = /^\w+: expected .+, got ./s
    const untyped = own.filter(
      ({ label, typed, message }) => label !== 'good' && !(typed && grammar.test(message)),
    )
    expect(untyped.map(({ label, error, message }) => `${label}: ${error}: ${message}`)).toEqual([])
  })
})
