import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { ArgumentError, FileError } from '../../src/core/errors.js'
import { writeFileAtomic } from '../../src/io/atomic.js'
import {
  type RawTensor,
  readSafetensorsFile,
  SafetensorsFile,
  writeSafetensorsFile,
} from '../../src/io/safetensors-file.js'
import {
  HeaderOffence,
  ITEM_BYTES,
  parseHeader,
  type SafetensorsDType,
} from '../../src/io/safetensors-header.js'

const folder = mkdtempSync(join(tmpdir(), 'adjoint-safetensors-'))
afterAll(() => rmSync(folder, { recursive: true }))

const SHARED = join(import.meta.dirname, '../../../shared/data')

// A file with any header and any data; `length` overrides the true length of the header.
function makeFile(header: string | Uint8Array, dataBytes = 0, length?: bigint): string {
  const json = typeof header === 'string' ? new TextEncoder().encode(header) : header
  const prefix = Buffer.alloc(8)
  prefix.writeBigUInt64LE(length ?? BigInt(json.length))
  const path = join(folder, 'made.safetensors')
  writeFileSync(path, Buffer.concat([prefix, json, new Uint8Array(dataBytes)]))
  return path
}

function raw(dtype: SafetensorsDType, shape: number[], bytes: ArrayLike<number>): RawTensor {
  return { dtype, shape, bytes: Uint8Array.from(bytes) }
}

function count(n: number): number[] {
  return Array.from({ length: n }, (_, i) => i % 251)
}

describe('writing and reading', () => {
  it('gives back every dtype, shape, value and all metadata', () => {
    const path = join(folder, 'all.safetensors')
    const tensors = new Map<string, RawTensor>()
    for (const [i, dtype] of (Object.keys(ITEM_BYTES) as SafetensorsDType[]).entries()) {
      const shape = [[], [3], [2, 0], [2, 1, 3]][i % 4]
      const n = shape.reduce((a, b) => a * b, 1) * ITEM_BYTES[dtype]
      tensors.set(`layer.${dtype}`, raw(dtype, shape, count(n)))
    }
    tensors.set('__proto__', raw('U8', [2], [1, 2]))
    tensors.set('Größe "ü" \\ \n', raw('BOOL', [], [1]))
    const metadata = new Map([
      ['__proto__', 'kept'],
      ['format', 'adjoint'],
    ])
    writeSafetensorsFile(path, tensors, metadata)

    const back = readSafetensorsFile(path)
    expect(back.metadata).toEqual(metadata)
    expect(new Set(back.tensors.keys())).toEqual(new Set(tensors.keys()))
    for (const [name, tensor] of tensors) expect(back.tensors.get(name)).toEqual(tensor)
  })

  it('aligns the data and each tensor to its elements', () => {
    const path = join(folder, 'aligned.safetensors')
    const tensors = new Map([
      ['a', raw('U8', [1], [1])],
      ['b', raw('F64', [1], count(8))],
      ['c', raw('F16', [1], count(2))],
    ])
    writeSafetensorsFile(path, tensors)
    expect(Number(readFileSync(path).readBigUInt64LE(0)) % 8).toBe(0)
    const file = new SafetensorsFile(path)
    expect([...file.tensors.keys()]).toEqual(['b', 'c', 'a'])
    for (const { dtype, begin } of file.tensors.values()) expect(begin % ITEM_BYTES[dtype]).toBe(0)
    file.close()
  })

  it('holds no tensors at all', () => {
    const path = join(folder, 'empty.safetensors')
    writeSafetensorsFile(path, new Map())
    expect(readSafetensorsFile(path).tensors.size).toBe(0)
  })

  it('refuses tensors whose bytes, shape or name cannot be written, and writes nothing', () => {
    const path = join(folder, 'refused.safetensors')
    const bad: [string, RawTensor, RegExp][] = [
      ['x', raw('F32', [2], count(7)), /'x' of shape \[2\]: expected 8 bytes, got 7/],
      ['x', raw('F32', [-1], []), /impossible shape \[-1\]/],
      ['x', raw('F32', [0.5], []), /impossible shape \[0.5\]/],
      ['__metadata__', raw('U8', [], [0]), /"__metadata__" is reserved/],
    ]
    for (const [name, tensor, message] of bad) {
      const write = () => writeSafetensorsFile(path, new Map([[name, tensor]]))
      expect(write).toThrow(ArgumentError)
      expect(write).toThrow(message)
    }
    expect(readdirSync(folder).filter((f) => f.includes('refused'))).toEqual([])
  })

  it('reads names the file does not have as an ArgumentError', () => {
    const file = new SafetensorsFile(makeFile('{}'))
    expect(() => file.read('toString')).toThrow(ArgumentError)
    file.close()
  })
})

describe('writeFileAtomic', () => {
  it('is closed once, and then reads no more', () => {
    const path = join(folder, 'closed')
    writeSafetensorsFile(path, new Map([['a', raw('U8', [1], [7])]]))
    const file = new SafetensorsFile(path)
    file.close()
    const other = new SafetensorsFile(path)
    file.close()
    expect(() => file.read('a')).toThrow(ArgumentError)
    expect(other.read('a').bytes[0]).toBe(7)
    other.close()
  })

  it('leaves the old file and no temporary one when writing fails', () => {
    const path = join(folder, 'atomic.bin')
    writeFileAtomic(path, (append) => append(Buffer.from('old')))
    expect(() =>
      writeFileAtomic(path, (append) => {
        append(Buffer.from('new'))
        throw new Error('half way')
      }),
    ).toThrow('half way')
    expect(readFileSync(path, 'utf8')).toBe('old')
    expect(readdirSync(folder).filter((f) => f.endsWith('.tmp'))).toEqual([])
  })

  it('names the file that cannot be written', () => {
    const path = join(folder, 'no/such/folder/x.bin')
    const write = () => writeFileAtomic(path, () => {})
    expect(write).toThrow(FileError)
    expect(write).toThrow(`${path}: cannot be written (ENOENT`)
    // The target is a folder: only the rename fails, and the temporary file goes.
    expect(() => writeFileAtomic(folder, () => {})).toThrow(FileError)
    expect(readdirSync(dirname(folder)).filter((f) => f.endsWith('.tmp'))).toEqual([])
  })
})

describe('broken and hostile files', () => {
  const f32 = (offsets: string, shape = '[1]') =>
    `{"dtype":"F32","shape":${shape},"data_offsets":${offsets}}`

  const offences: [string, string | Uint8Array, number, RegExp][] = [
    ['no JSON', 'hello', 0, /expected '{' at 0/],
    ['a blank before the brace', ' {}', 0, /expected '{' at 0/],
    ['an empty header', '', 0, /expected '{' at 0, got its end/],
    ['an unfinished object', '{"x":', 0, /expected '{' at 5, got its end/],
    ['an unfinished string', '{"x', 0, /expected a string at 1/],
    ['a string that ends in a backslash', '{"x\\', 0, /expected a string at 1/],
    ['an unknown escape', '{"\\x":{}}', 0, /expected a string at 1/],
    ['text after the object', '{}x', 0, /expected the end of the header at 2/],
    ['a trailing comma', `{"x":${f32('[0,4]')},}`, 4, /expected a string/],
    ['invalid UTF-8', Uint8Array.of(0x7b, 0xff, 0x7d), 0, /not valid UTF-8/],
    ['a byte order mark', '\ufeff{}', 0, /expected '{' at 0/],
    ['a tensor that is a list', '{"x":[]}', 0, /expected '{'/],
    ['a key twice', `{"x":${f32('[0,4]')},"x":${f32('[0,4]')}}`, 4, /"x" is there twice/],
    ['a field twice', '{"x":{"dtype":"F32","dtype":"F32"}}', 4, /"dtype" is there twice/],
    ['a metadata key twice', '{"__metadata__":{"a":"","a":""}}', 0, /"a" is there twice/],
    ['metadata that is a number', '{"__metadata__":{"a":1}}', 0, /expected a string at 21/],
    ['metadata that nests', '{"__metadata__":{"a":{}}}', 0, /expected a string/],
    ['metadata that is null', '{"__metadata__":null}', 0, /expected '{'/],
    ['no dtype', '{"x":{"shape":[1],"data_offsets":[0,4]}}', 4, /"x" has no dtype/],
    ['no shape', '{"x":{"dtype":"F32","data_offsets":[0,4]}}', 4, /"x" has no shape/],
    ['no offsets', '{"x":{"dtype":"F32","shape":[1]}}', 4, /"x" has no data_offsets/],
    ['an unknown field', '{"x":{"__proto__":[1]}}', 4, /unknown field "__proto__"/],
    [
      'an unknown dtype',
      '{"x":{"dtype":"toString","shape":[],"data_offsets":[0,1]}}',
      1,
      /"toString"/,
    ],
    ['one offset', `{"x":${f32('[0]')}}`, 4, /1 data_offsets, expected 2/],
    ['a negative size', `{"x":${f32('[0,4]', '[-1]')}}`, 4, /integer from 0 to 2\^53 - 1 at .*"-1/],
    ['a fractional size', `{"x":${f32('[0,4]', '[1.5]')}}`, 4, /integer from 0/],
    ['an exponent', `{"x":${f32('[0,4]', '[1e0]')}}`, 4, /integer from 0/],
    ['a huge size', `{"x":${f32('[0,4]', '[18446744073709551616]')}}`, 4, /integer from 0/],
    ['a size of text', `{"x":${f32('[0,4]', '["1"]')}}`, 4, /integer from 0/],
    [
      'a product past 2^53',
      `{"x":${f32('[0,4]', '[4294967296,4294967296]')}}`,
      4,
      /more than 2\^53/,
    ],
    ['offsets backwards', `{"x":${f32('[4,0]')}}`, 4, /\[4, 0\] are outside/],
    ['offsets past the data', `{"x":${f32('[0,4]')}}`, 3, /outside the 3 bytes/],
    ['a size that is not the shape', `{"x":${f32('[0,8]')}}`, 8, /\[1\] has 4 bytes, got/],
    ['an overlap', `{"x":${f32('[0,4]')},"y":${f32('[2,6]')}}`, 6, /"y".* overlap/],
    ['the same bytes twice', `{"x":${f32('[0,4]')},"y":${f32('[0,4]')}}`, 4, /overlap/],
    ['a gap', `{"x":${f32('[0,4]')},"y":${f32('[5,9]')}}`, 9, /"y".* leave a gap/],
    ['a gap at the start', `{"x":${f32('[1,5]')}}`, 5, /leave a gap/],
    ['data after the last tensor', `{"x":${f32('[0,4]')}}`, 5, /end at byte 4 of 5/],
    ['data and no tensor', '{}', 1, /end at byte 0 of 1/],
  ]
  it.each(offences)('%s', (_, header, dataBytes, message) => {
    const path = makeFile(header, dataBytes)
    const read = () => readSafetensorsFile(path)
    expect(read).toThrow(FileError)
    expect(read).toThrow(message)
    expect(read).toThrow(path)
  })

  it('a length beyond the file, over the limit or cut short', () => {
    expect(() => readSafetensorsFile(makeFile('{}', 0, 3n))).toThrow(/beyond the end of the file/)
    expect(() => readSafetensorsFile(makeFile('{}', 0, 2n ** 64n - 1n))).toThrow(
      /at most 100000000/,
    )
    const path = join(folder, 'short.safetensors')
    writeFileSync(path, Buffer.alloc(7))
    expect(() => readSafetensorsFile(path)).toThrow(/expected at least 8 bytes, got 7/)
    expect(() => readSafetensorsFile(folder)).toThrow(/is not a file/)
    expect(() => readSafetensorsFile(join(folder, 'none'))).toThrow(/none: cannot be read \(ENOENT/)
  })

  it('survives 20,000 mutations: each is refused or describes all data', () => {
    const good = `{"__metadata__":{"a":"b"},"x":${f32('[0,4]')},"y":${f32('[4,12]', '[2,1]')}}  `
    const seed = new TextEncoder().encode(good)
    const splices = ['"', '{', '}', '[', ']', ',', ':', '\\', '-', '9', '1e9', '"x":', ' ', '\0']
    let state = 12345
    const random = (n: number) => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0
      return Math.floor((state / 2 ** 32) * n)
    }
    let refused = 0
    for (let i = 0; i < 20_000; i++) {
      let text = Array.from(seed)
      for (let edits = 1 + random(3); edits > 0; edits--) {
        const at = random(text.length)
        const kind = random(4)
        if (kind === 0) text[at] = random(256)
        else if (kind === 1) text.splice(at, 1 + random(6))
        else if (kind === 2) text.splice(at, 0, ...Buffer.from(splices[random(splices.length)]))
        else text = text.slice(0, at).concat(text.slice(random(text.length)))
      }
      try {
        const header = parseHeader(Uint8Array.from(text), 12)
        let bytes = 0
        for (const { dtype, shape, begin, end } of header.tensors.values()) {
          expect(end - begin).toBe(shape.reduce((a, b) => a * b, ITEM_BYTES[dtype] as number))
          bytes += end - begin
        }
        expect(bytes).toBe(12)
      } catch (error) {
        if (!(error instanceof HeaderOffence)) throw error
        refused++
      }
    }
    expect(refused).toBeGreaterThan(10_000)
    expect(refused).toBeLessThan(20_000)
  })
})

const samples = join(SHARED, 'formats/safetensors')
describe.runIf(existsSync(samples))('files by other writers', () => {
  // The last letter is numpy's code of the type.
  const codes: Record<string, (b: Uint8Array) => ArrayLike<number | bigint>> = {
    b: (b) => new Int8Array(b.buffer),
    h: (b) => new Int16Array(b.buffer),
    i: (b) => new Int32Array(b.buffer),
    f: (b) => new Float32Array(b.buffer),
    d: (b) => new Float64Array(b.buffer),
  }
  it.each(Object.keys(codes))('sample of type %s holds -3 … 2', (code) => {
    const file = readdirSync(samples).find((f) => f.endsWith(`_l${code}.safetensors`))
    expect(file).toBeDefined()
    const { tensors } = readSafetensorsFile(join(samples, file as string))
    expect(tensors.size).toBe(1)
    const [tensor] = tensors.values()
    expect(Array.from(codes[code](tensor.bytes))).toEqual([-3, -2, -1, 0, 1, 2])
  })

  it('reads every file there, and writes it back to the same tensors', () => {
    const files = readdirSync(samples).filter((f) => f.endsWith('.safetensors'))
    expect(files.length).toBeGreaterThan(5)
    const path = join(folder, 'again.safetensors')
    for (const file of files) {
      const { tensors, metadata } = readSafetensorsFile(join(samples, file))
      writeSafetensorsFile(path, tensors, metadata)
      const again = readSafetensorsFile(path)
      expect(again.metadata).toEqual(metadata)
      expect(Object.fromEntries(again.tensors)).toEqual(Object.fromEntries(tensors))
    }
  })

  it('reads the codes and the published network', () => {
    const codesFile = readSafetensorsFile(join(samples, 'encodec_jfk-codes.safetensors'))
    expect(codesFile.tensors.get('codes')).toMatchObject({ dtype: 'I64', shape: [1, 2, 828] })
    const { tensors } = readSafetensorsFile(join(SHARED, 'pretrained/burn_mnist_cnn.safetensors'))
    const weight = [...tensors.values()].find((t) => t.shape.join() === '8,1,3,3')
    expect(weight?.dtype).toBe('F32')
  })
})
