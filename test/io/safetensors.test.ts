import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { dtypes } from '../../src/core/dtype.js'
import { ArgumentError, DisposedError, FileError } from '../../src/core/errors.js'
import {
  loadSafetensors,
  loadSafetensorsMetadata,
  loadState,
  saveSafetensors,
  saveState,
  writeSafetensorsFile,
} from '../../src/io/index.js'
import { tensor } from '../../src/ops/index.js'

const SHARED = join(import.meta.dirname, '../../../shared/data/formats/safetensors')
const folder = mkdtempSync(join(tmpdir(), 'adjoint-io-'))
afterAll(() => rmSync(folder, { recursive: true }))
const path = join(folder, 'x.safetensors')

describe('saveSafetensors and loadSafetensors', () => {
  it.each(dtypes)('keep shape and values of %s, of views too', (dtype) => {
    const values = tensor([
      [-2, -1, 0],
      [1, 2, 3],
    ]).to(dtype)
    const tensors = {
      whole: values,
      transposed: values.t(),
      column: values.slice(1, 1, 2),
      scalar: values.select(0, 1).select(0, 2),
      empty: values.slice(0, 1, 1),
    }
    saveSafetensors(path, tensors)
    const back = loadSafetensors(path)
    expect(Object.keys(back).sort()).toEqual(Object.keys(tensors).sort())
    for (const [name, t] of Object.entries(tensors)) {
      expect(back[name].dtype).toBe(dtype)
      expect(back[name].shape).toEqual(t.shape)
      expect(back[name].toArray()).toEqual(t.toArray())
    }
  })

  it('keep NaN, infinities and minus zero, and any name', () => {
    const x = tensor([Number.NaN, Number.POSITIVE_INFINITY, -0])
    saveSafetensors(
      path,
      new Map([
        ['__proto__', x],
        ['a.b/c é', x],
      ]),
    )
    const back = loadSafetensors(path)
    expect(Object.keys(back)).toEqual(['__proto__', 'a.b/c é'])
    expect(Object.values(back)[0].toArray()).toEqual([Number.NaN, Number.POSITIVE_INFINITY, -0])
  })

  it('keep metadata', () => {
    saveSafetensors(path, {}, { metadata: { format: 'pt', note: 'ä' } })
    expect(loadSafetensorsMetadata(path)).toEqual({ format: 'pt', note: 'ä' })
  })

  it('refuse what is no tensor, a disposed one, metadata that is no text', () => {
    const dead = tensor([1])
    dead.dispose()
    expect(() => saveSafetensors(path, { dead })).toThrow(DisposedError)
    expect(() => saveSafetensors(path, { x: [1] as never })).toThrow(ArgumentError)
    expect(() => saveSafetensors(path, {}, { metadata: { n: 1 as never } })).toThrow(ArgumentError)
  })

  it('refuse dtypes and shapes that tensors do not have, by name', () => {
    const raw = (dtype: 'U16' | 'U8', shape: number[]) =>
      new Map([['odd', { dtype, shape, bytes: new Uint8Array(2) }]])
    writeSafetensorsFile(path, raw('U16', [1]))
    expect(() => loadSafetensors(path)).toThrow(
      `${path}: tensor "odd": no tensor can hold dtype U16`,
    )
    writeSafetensorsFile(path, raw('U8', [1, 1, 1, 1, 1, 1, 1, 1, 2]))
    expect(() => loadSafetensors(path)).toThrow(FileError)
  })

  it('read any byte but 0 of a bool as true', () => {
    const bytes = Uint8Array.of(0, 1, 2, 255)
    writeSafetensorsFile(path, new Map([['b', { dtype: 'BOOL', shape: [4], bytes }]]))
    expect(loadSafetensors(path).b.toArray()).toEqual([false, true, true, true])
    expect(loadSafetensors(path).b.sum().item()).toBe(3)
  })

  it.runIf(existsSync(SHARED))('read what other writers wrote', () => {
    for (const file of readdirSync(SHARED).filter((f) => /sample_l\w\.safetensors/.test(f))) {
      const [t] = Object.values(loadSafetensors(join(SHARED, file)))
      expect(t.double().toArray()).toEqual([-3, -2, -1, 0, 1, 2])
    }
  })
})

describe('saveState and loadState', () => {
  const kind = { kind: 'test data', version: 3 }

  it('keep plain data of every sort, and the tensors in it', () => {
    const state = {
      texts: ['', 'ü', '$x'],
      numbers: [
        0,
        -0,
        0.1,
        1e-300,
        Number.NaN,
        Number.POSITIVE_INFINITY,
        -Number.POSITIVE_INFINITY,
      ],
      big: -(2n ** 70n),
      flags: [true, false, null],
      nested: { $tensor: 'no tensor', $$: { $number: '1' }, empty: {}, list: [[]] },
      gone: undefined as never,
    }
    const weight = tensor([
      [1, 2],
      [3, 4],
    ])
    saveState(path, kind, { ...state, model: { 'fc.weight': weight }, fc: { list: [weight.t()] } })
    const back = loadState(path, kind) as typeof state & {
      model: { 'fc.weight': typeof weight }
      fc: { list: (typeof weight)[] }
    }
    const { model, fc, ...plain } = back
    const { gone, ...kept } = state
    expect(plain).toEqual(kept)
    expect(Object.is(plain.numbers[1], -0)).toBe(true)
    expect(model['fc.weight'].toArray()).toEqual([
      [1, 2],
      [3, 4],
    ])
    expect(fc.list[0].toArray()).toEqual([
      [1, 3],
      [2, 4],
    ])
    // Any safetensors reader finds the tensors under their places.
    expect(Object.keys(loadSafetensors(path)).sort()).toEqual(['fc.list.0', 'model.fc.weight'])
  })

  it('keep tensors apart whose places have the same name', () => {
    const state = { 'a.b': tensor([1]), a: { b: tensor([2]) } }
    saveState(path, kind, state)
    const back = loadState(path, kind) as typeof state
    expect([back['a.b'].item(), back.a.b.item()]).toEqual([1, 2])
  })

  it('refuse functions, class instances and cycles', () => {
    const cycle: { self?: unknown } = {}
    cycle.self = cycle
    for (const bad of [() => 1, new Date(), cycle, Symbol('x'), new Uint8Array(1)]) {
      expect(() => saveState(path, kind, { bad } as never)).toThrow(ArgumentError)
    }
    expect(() => saveState(path, kind, { a: [cycle] } as never)).toThrow(/a cycle at a.0.self/)
    const shared = [1]
    saveState(path, kind, { one: shared, two: shared })
    expect(loadState(path, kind)).toEqual({ one: [1], two: [1] })
  })

  it('refuse files of another kind or version, and broken ones', () => {
    saveState(path, kind, {})
    const load = (metadata?: Record<string, string>) => {
      if (metadata) saveSafetensors(path, {}, { metadata })
      return () => loadState(path, kind)
    }
    expect(() => loadState(path, { ...kind, kind: 'other' })).toThrow(/is not other, but test data/)
    expect(() => loadState(path, { ...kind, version: 4 })).toThrow(
      /expected version 4 of test data, got "3"/,
    )
    expect(load({})).toThrow(/is not test data$/)
    const head = { 'adjoint.kind': 'test data', 'adjoint.version': '3' }
    for (const json of ['', '{', '{"$tensor":"none"}', '{"$bigint":"x"}', '{"$other":"x"}']) {
      const broken = load({ ...head, 'adjoint.state': json })
      expect(broken).toThrow(FileError)
      expect(broken).toThrow(`${path}: its state is broken`)
    }
    const hostile = load({ ...head, 'adjoint.state': '{"__proto__":{"polluted":1}}' })() as object
    expect(Object.hasOwn(hostile, '__proto__')).toBe(true)
    expect(({} as Record<string, unknown>).polluted).toBeUndefined()
  })
})
