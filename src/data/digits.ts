// Handwritten digits that need no download: the strokes of strokes.ts under random elastic and
// affine distortion (after P. Simard, D. Steinkraus & J. Platt 2003, "Best practices for
// convolutional neural networks applied to visual document analysis"), drawn with a pen of random
// width into 28 x 28 grey pixels, as in MNIST white on black.
// Image i of a part is a pure function of seed, part and i. To be the same on every machine and
// version of Node it uses only + - * / and sqrt, which IEEE 754 rounds exactly, never sin or exp.
import { ArgumentError, checkOptions, describe } from '../core/errors.js'
import { allocate } from '../core/heap.js'
import { checkSeed, RandomStream } from './random.js'
import { DIGIT_GLYPHS, type Glyph, type Stroke } from './strokes.js'

export const DIGIT_SIZE = 28
const PIXELS = DIGIT_SIZE * DIGIT_SIZE

export type DigitPart = 'train' | 'test'

export interface DigitImages {
  /** [count, 28, 28], 0 … 255 */
  readonly images: Uint8Array
  /** [count], 0 … 9, as many of each as the count allows */
  readonly labels: Uint8Array
}

export interface DigitOptions {
  /** Default 20,000 for 'train', 4,000 for 'test'. */
  count?: number
  /** Default 0. */
  seed?: number
}

/** @internal */
export function checkPart(op: string, part: unknown): void {
  if (part !== 'train' && part !== 'test') {
    throw new ArgumentError(`${op}: expected 'train' or 'test', got ${describe(part)}`)
  }
}

/** Draws `count` digits. The two parts share no image, whatever the seed and the counts. */
export function drawDigits(part: DigitPart, options: DigitOptions = {}): DigitImages {
  checkPart('drawDigits', part)
  checkOptions('drawDigits', options)
  const { count = part === 'train' ? 20_000 : 4_000, seed = 0 } = options
  if (!Number.isSafeInteger(count) || count < 0 || count >= 2 ** 32) {
    throw new ArgumentError(`drawDigits: expected a count of 0 or more, got ${describe(count)}`)
  }
  checkSeed('drawDigits', seed)
  const images = allocate('drawDigits', `${count} images`, () => new Uint8Array(count * PIXELS))
  const labels = new Uint8Array(count)
  for (let i = 0; i < count; i++) {
    labels[i] = i % DIGIT_GLYPHS.length
    const random = new RandomStream(seed, i, part === 'train' ? 0 : 1)
    drawDigit(images.subarray(i * PIXELS, (i + 1) * PIXELS), labels[i], random)
  }
  return { images, labels }
}

function drawDigit(image: Uint8Array, label: number, random: RandomStream): void {
  const ways = DIGIT_GLYPHS[label]
  const glyph: Glyph = ways[random.below(ways.length)]
  const place = randomPlacement(random)
  const radius = random.between(0.6, 1.6)
  const softness = random.between(0.9, 1.6)
  const ink = random.between(200, 255)
  for (const stroke of glyph) {
    const path = samplePath(stroke)
    // The pen is lifted between strokes and comes down where it may.
    const liftX = glyph.length > 1 ? random.around(1) : 0
    const liftY = glyph.length > 1 ? random.around(1) : 0
    for (let i = 0; i < path.length; i += 2) {
      place(path, i)
      path[i] += liftX
      path[i + 1] += liftY
    }
    const taper = random.around(0.4)
    for (let i = 0; i + 3 < path.length; i += 2) {
      const along = i / path.length - 0.5
      drawSegment(image, path, i, radius * (1 + taper * along), softness, ink)
    }
  }
}

/** Moves the point at path[i], path[i + 1] from the digit's unit box to pixels. */
type Placement = (path: Float64Array, i: number) => void

// pixel = centre + A (p - 1/2 + elastic(p)), with A = rotation · shear · scale.
function randomPlacement(random: RandomStream): Placement {
  const elastic = elasticField(random)
  const width = random.between(13, 21)
  const height = random.between(15, 21)
  const shear = random.around(0.55)
  // With t = tan(angle / 2): cos = (1 - t²) / (1 + t²), sin = 2 t / (1 + t²).
  const t = random.around(0.18)
  const cos = (1 - t * t) / (1 + t * t)
  const sin = (2 * t) / (1 + t * t)
  const centreX = DIGIT_SIZE / 2 + random.around(2.6)
  const centreY = DIGIT_SIZE / 2 + random.around(2.6)
  return (path, i) => {
    elastic(path, i)
    const y = (path[i + 1] - 0.5) * height
    const x = (path[i] - 0.5) * width - shear * y
    path[i] = centreX + cos * x - sin * y
    path[i + 1] = centreY + sin * x + cos * y
  }
}

// Simard et al. smooth a field of random displacements with a Gaussian of 4 pixels. A cubic
// B-spline over random coefficients every third of the box is as smooth (its deviation is 0.58 of
// the spacing, 4 of 20 pixels) and is evaluated at the points of the strokes alone.
const CELLS = 3
const COEFFICIENTS = CELLS + 3
const ELASTICITY = 0.25

function elasticField(random: RandomStream): Placement {
  const dx = Float64Array.from({ length: COEFFICIENTS ** 2 }, () => random.around(ELASTICITY))
  const dy = Float64Array.from({ length: COEFFICIENTS ** 2 }, () => random.around(ELASTICITY))
  const weightsX = new Float64Array(4)
  const weightsY = new Float64Array(4)
  return (path, i) => {
    const column = splineWeights(path[i] * CELLS, weightsX)
    const row = splineWeights(path[i + 1] * CELLS, weightsY)
    let moveX = 0
    let moveY = 0
    for (let r = 0; r < 4; r++) {
      for (let c = 0; c < 4; c++) {
        const weight = weightsY[r] * weightsX[c]
        const k = (row + r) * COEFFICIENTS + column + c
        moveX += weight * dx[k]
        moveY += weight * dy[k]
      }
    }
    path[i] += moveX
    path[i + 1] += moveY
  }
}

// The uniform cubic B-spline at u in [0, CELLS]: returns the first of its four coefficients and
// sets their weights.
function splineWeights(u: number, weights: Float64Array): number {
  const cell = Math.min(CELLS - 1, Math.max(0, Math.floor(u)))
  const t = u - cell
  const s = 1 - t
  weights[0] = (s * s * s) / 6
  weights[1] = (4 - 6 * t * t + 3 * t * t * t) / 6
  weights[2] = (4 - 6 * s * s + 3 * s * s * s) / 6
  weights[3] = (t * t * t) / 6
  return cell
}

// The stroke as short straight pieces, x0, y0, x1, y1, … in the unit box: Catmull-Rom splines
// through its points, broken at the corners.
const PIECES = 8

function samplePath(stroke: Stroke): Float64Array {
  const path: number[] = [stroke[0] / 100, stroke[1] / 100]
  const last = stroke.length - 2
  // The neighbour beyond an end or a corner is the point itself.
  const neighbour = (from: number, to: number) => (to < 0 || to > last ? from : to)
  for (let b = 0; b < last; b += 2) {
    const c = b + 2
    if (stroke[b] === stroke[c] && stroke[b + 1] === stroke[c + 1]) continue
    const a = neighbour(b, b - 2)
    const d = neighbour(c, c + 2)
    for (let piece = 1; piece <= PIECES; piece++) {
      const t = piece / PIECES
      path.push(catmullRom(stroke, a, b, c, d, t) / 100)
      path.push(catmullRom(stroke, a + 1, b + 1, c + 1, d + 1, t) / 100)
    }
  }
  return Float64Array.from(path)
}

// p(t) = b + t/2 ((c - a) + t ((2a - 5b + 4c - d) + t (3b - a - 3c + d))), from b at 0 to c at 1
function catmullRom(
  stroke: Stroke,
  ia: number,
  ib: number,
  ic: number,
  id: number,
  t: number,
): number {
  const a = stroke[ia]
  const b = stroke[ib]
  const c = stroke[ic]
  const d = stroke[id]
  return b + (t / 2) * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * b - a - 3 * c + d)))
}

// Draws the segment from path[i] to path[i + 2] with a round pen: a pixel at distance d from it
// gets ink · clamp((radius - d) / softness + 1/2), if that is more than it has.
function drawSegment(
  image: Uint8Array,
  path: Float64Array,
  i: number,
  radius: number,
  softness: number,
  ink: number,
): void {
  const [x0, y0, x1, y1] = path.subarray(i, i + 4)
  const reach = radius + softness / 2
  const left = Math.max(0, Math.ceil(Math.min(x0, x1) - reach - 0.5))
  const right = Math.min(DIGIT_SIZE - 1, Math.floor(Math.max(x0, x1) + reach - 0.5))
  const top = Math.max(0, Math.ceil(Math.min(y0, y1) - reach - 0.5))
  const bottom = Math.min(DIGIT_SIZE - 1, Math.floor(Math.max(y0, y1) + reach - 0.5))
  const dx = x1 - x0
  const dy = y1 - y0
  const squared = dx * dx + dy * dy
  for (let row = top; row <= bottom; row++) {
    for (let column = left; column <= right; column++) {
      const px = column + 0.5 - x0
      const py = row + 0.5 - y0
      const along = squared > 0 ? (px * dx + py * dy) / squared : 0
      const nearest = Math.min(1, Math.max(0, along))
      const ex = px - nearest * dx
      const ey = py - nearest * dy
      const distance = Math.sqrt(ex * ex + ey * ey)
      const cover = Math.min(1, Math.max(0, (radius - distance) / softness + 0.5))
      const k = row * DIGIT_SIZE + column
      image[k] = Math.max(image[k], Math.floor(ink * cover + 0.5))
    }
  }
}
