import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { gzipSync } from 'node:zlib'
import { type DigitPart, drawDigits } from '../../src/data/index.js'

function writeIdx(file: string, sizes: number[], elements: Uint8Array): void {
  const header = Buffer.alloc(4 + 4 * sizes.length)
  header[2] = 8
  header[3] = sizes.length
  for (const [i, size] of sizes.entries()) header.writeUInt32BE(size, 4 + 4 * i)
  writeFileSync(`${file}.gz`, gzipSync(Buffer.concat([header, elements])))
}

/** Few images in the form in which MNIST is published, so that a run takes seconds. */
export function writeDigits(folder: string, counts: Record<DigitPart, number>): void {
  for (const [part, prefix] of [
    ['train', 'train'],
    ['test', 't10k'],
  ] as const) {
    const count = counts[part]
    const { images, labels } = drawDigits(part, { count })
    writeIdx(path.join(folder, `${prefix}-images-idx3-ubyte`), [count, 28, 28], images)
    writeIdx(path.join(folder, `${prefix}-labels-idx1-ubyte`), [count], labels)
  }
}
