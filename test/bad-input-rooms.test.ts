import { rmSync } from 'node:fs'
import { afterAll, describe, expect, test } from 'vitest'
import * as data from '../src/data/index.js'
import * as adjoint from '../src/index.js'
import * as io from '../src/io/index.js'
import * as nn from '../src/nn/index.js'
import * as optim from '../src/optim/index.js'
import * as train from '../src/train/index.js'
import './bad-input-options.table.js'
import { calls, folder, wrong } from './bad-input-rooms.table.js'

afterAll(() => rmSync(folder, { recursive: true }))

/** Bases of others, what tests of files cover, and what prints. */
const ELSEWHERE = ['Optimizer', 'LRScheduler', 'loadMnist', 'Progress']

test('every export has a row', () => {
  const { functional, init, ...layers } = nn
  const named = new Set(calls.map(({ name }) => name.split(/[. ]/)[0]))
  const exported = [layers, optim, data, train, io].flatMap((room) => Object.keys(room))
  expect(exported.filter((name) => !named.has(name) && !ELSEWHERE.includes(name))).toEqual([])
  const initialised = Object.keys(init).filter(
    (name) => !calls.some((c) => c.name === `init.${name}`),
  )
  expect(initialised).toEqual([])
  // These have theirs in the table of `adjoint`.
  const inBoth = new Set<unknown>(Object.values(adjoint))
  const own = Object.entries(functional).filter(([, f]) => !inBoth.has(f))
  expect(own.map(([name]) => name)).toEqual([])
})

describe.each(calls)('$name', ({ run, good }) => {
  test('takes what it should, and refuses the rest with a typed error', async () => {
    await run(...good.map((value) => value()))
    const untyped: string[] = []
    for (const i of good.keys()) {
      for (const [label, value] of wrong) {
        const values = good.map((one, at) => (at === i ? value : one)())
        try {
          await run(...values)
          adjoint.synchronize()
        } catch (error) {
          if (!(error instanceof adjoint.AdjointError)) untyped.push(`${label} as ${i}: ${error}`)
        }
      }
    }
    expect(untyped).toEqual([])
  })
})
