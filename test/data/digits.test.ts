import { createHash } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { ArgumentError } from '../../src/core/errors.js'
import { DIGIT_SIZE, drawDigits } from '../../src/data/digits.js'

const PIXELS = DIGIT_SIZE * DIGIT_SIZE
const hash = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex').slice(0, 16)

describe('drawDigits', () => {
  it('draws the same bytes everywhere and at any time', () => {
    expect(hash(drawDigits('train', { count: 500 }).images)).toBe('a7dfd6e0c115714d')
    expect(hash(drawDigits('test', { count: 500, seed: 1 }).images)).toBe('aa380d7ac6aa073f')
  })

  it('makes image i a function of seed, part and i, not of the count', () => {
    const few = drawDigits('train', { count: 10, seed: 4 })
    const more = drawDigits('train', { count: 30, seed: 4 })
    expect(more.images.subarray(0, few.images.length)).toEqual(few.images)
    expect(more.labels.subarray(0, 10)).toEqual(few.labels)
  })

  it('repeats no image, within a part, across the parts or across seeds', () => {
    const seen = new Set<string>()
    let images = 0
    for (const part of ['train', 'test'] as const) {
      for (const seed of [0, 1]) {
        const drawn = drawDigits(part, { count: 200, seed })
        for (let i = 0; i < 200; i++) {
          seen.add(hash(drawn.images.subarray(i * PIXELS, (i + 1) * PIXELS)))
          images++
        }
      }
    }
    expect(seen.size).toBe(images)
  })

  it('has sizes by default, as many of each digit, and dark borders round bright strokes', () => {
    const { images, labels } = drawDigits('test')
    expect(labels.length).toBe(4000)
    expect(images.length).toBe(4000 * PIXELS)
    for (let digit = 0; digit < 10; digit++) {
      expect(labels.filter((label) => label === digit).length).toBe(400)
    }
    let borderInk = 0
    for (let i = 0; i < 4000; i++) {
      const image = images.subarray(i * PIXELS, (i + 1) * PIXELS)
      expect(Math.max(...image)).toBeGreaterThan(100)
      expect(image.filter((v) => v > 0).length).toBeLessThan(PIXELS / 2)
      borderInk += image.subarray(0, DIGIT_SIZE).some((v) => v > 0) ? 1 : 0
    }
    expect(borderInk / 4000).toBeLessThan(0.05)
  })

  it('can be told apart, but not easily: by the nearest class mean between 60 and 90 %', () => {
    const train = drawDigits('train', { count: 5000 })
    const test = drawDigits('test', { count: 1000 })
    const means = Array.from({ length: 10 }, () => new Float64Array(PIXELS))
    for (const [i, label] of train.labels.entries()) {
      for (let p = 0; p < PIXELS; p++) means[label][p] += train.images[i * PIXELS + p] / 500
    }
    let right = 0
    for (const [i, label] of test.labels.entries()) {
      const distances = means.map((mean) =>
        mean.reduce((sum, m, p) => sum + (m - test.images[i * PIXELS + p]) ** 2, 0),
      )
      if (distances.indexOf(Math.min(...distances)) === label) right++
    }
    expect(right / 1000).toBeGreaterThan(0.6)
    expect(right / 1000).toBeLessThan(0.9)
  })

  it('refuses impossible counts and seeds', () => {
    for (const bad of [-1, 0.5, Number.NaN, 2 ** 32]) {
      expect(() => drawDigits('train', { count: bad })).toThrow(ArgumentError)
    }
    for (const bad of [-1, 0.5, 2 ** 53]) {
      expect(() => drawDigits('train', { count: 1, seed: bad })).toThrow(ArgumentError)
    }
  })
})
