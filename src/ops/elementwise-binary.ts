import type { BinaryOpcode, UnaryOpcode } from '../bindings/opcodes.js'
import { from, type Rule, type Sampler, type Value } from '../core/op.js'
import type { Tensor } from '../core/tensor.js'
import { binary, type ResultKind, unary } from './elementwise.js'
import { where } from './where.js'

interface BinaryRule {
  readonly kind: ResultKind
  readonly a: Rule<void> | null
  readonly b: Rule<void> | null
  readonly samples: ((s: Sampler) => [Value, Value][]) | null
}

const bin = (name: BinaryOpcode) => (x: Value, y: Value) => binary(name, x, y)
const un = (name: UnaryOpcode) => (x: Tensor) => unary(name, x)
const [add, sub, mul, div] = [bin('add'), bin('sub'), bin('mul'), bin('div')]
const [exp, square, neg, sigmoid] = [un('exp'), un('square'), un('neg'), un('sigmoid')]

const broadcast = (s: Sampler): [Value, Value][] => [
  [s.normal([2, 3]), s.normal([3])],
  [s.normal([2, 1]), s.normal([1, 3])],
  [s.normal([3]), 1.5],
]
const nonzero = (s: Sampler): [Value, Value][] => [
  [s.normal([2, 3]), s.awayFromZero([3], 0.5)],
  [2, s.awayFromZero([3], 0.5)],
]
const powers = (s: Sampler): [Value, Value][] => [
  [s.uniform([2, 3], 0.5, 2), s.normal([3])],
  [s.uniform([3], 0.5, 2), 3],
  [2, s.normal([3])],
]
const apart = (s: Sampler): [Value, Value][] => [[s.distinct([2, 3]), s.normal([2, 1])]]
const backward = (s: Sampler): [Value, Value][] => [[s.normal([2, 3]), s.awayFromZero([2, 3])]]

function none(kind: ResultKind): BinaryRule {
  return { kind, a: null, b: null, samples: null }
}

const compare = none('bool')
const bits = none('same')

/** A comparison as numbers of the gradient's dtype: bool is promoted by the product. */
const maskRule = (strict: BinaryOpcode, loose: BinaryOpcode): Rule<void> =>
  // half to each where they are equal, as in PyTorch
  from(['a', 'b'], ({ dy, a, b }) =>
    mul(dy, mul(add(add(binary(strict, a, b), 0), binary(loose, a, b)), 0.5)),
  )

const SQRT_TWO_OVER_PI = Math.sqrt(2 / Math.PI)
const CUBIC = 0.044715

/** da and db from dy, by opcode, with the formulas above. */
export const binaryRules: Record<BinaryOpcode, BinaryRule> = {
  // 1; 1
  add: {
    kind: 'same',
    a: from([], ({ dy }) => dy),
    b: from([], ({ dy }) => dy),
    samples: broadcast,
  },
  // 1; -1
  sub: {
    kind: 'same',
    a: from([], ({ dy }) => dy),
    b: from([], ({ dy }) => neg(dy)),
    samples: broadcast,
  },
  // b; a
  mul: {
    kind: 'same',
    a: from(['b'], ({ dy, b }) => mul(dy, b)),
    b: from(['a'], ({ dy, a }) => mul(dy, a)),
    samples: broadcast,
  },
  // 1 / b; -a / b²
  div: {
    kind: 'float',
    a: from(['b'], ({ dy, b }) => div(dy, b)),
    b: from(['a', 'b'], ({ dy, a, b }) => neg(mul(dy, div(div(a, b), b)))),
    samples: nonzero,
  },
  floorDivide: none('same'),
  // a - b ⌊a / b⌋: 1; -⌊a / b⌋
  remainder: {
    kind: 'same',
    a: from([], ({ dy }) => dy),
    b: from(['a', 'b'], ({ dy, a, b }) => neg(mul(dy, unary('floor', div(a, b))))),
    samples: (s) => [[s.uniform([2, 3], 2.1, 2.9), s.uniform([3], 0.8, 1)]],
  },
  // a - b trunc(a / b): 1; -trunc(a / b)
  fmod: {
    kind: 'same',
    a: from([], ({ dy }) => dy),
    b: from(['a', 'b'], ({ dy, a, b }) => neg(mul(dy, unary('trunc', div(a, b))))),
    samples: (s) => [[s.uniform([2, 3], 2.1, 2.9), s.uniform([3], 0.8, 1)]],
  },
  // b a^(b-1), 0 where b = 0; aᵇ ln a, 0 where a = 0 and b >= 0
  pow: {
    kind: 'same',
    a: from(['a', 'b'], ({ dy, a, b }) =>
      typeof b === 'number'
        ? b === 0
          ? mul(dy, 0)
          : mul(dy, mul(binary('pow', a, b - 1), b))
        : mul(dy, where(binary('eq', b, 0), 0, mul(b, binary('pow', a, sub(b, 1))))),
    ),
    b: from(['a', 'b', 'y'], ({ dy, a, b, y }) => {
      if (typeof a === 'number') return a === 0 ? mul(dy, 0) : mul(dy, mul(y, Math.log(a)))
      const vanishing = binary('logicalAnd', binary('eq', a, 0), binary('ge', b, 0))
      return mul(dy, where(vanishing, 0, mul(y, unary('log', a))))
    }),
    samples: powers,
  },
  // b / (a² + b²); -a / (a² + b²)
  atan2: {
    kind: 'float',
    a: from(['a', 'b'], ({ dy, a, b }) => mul(dy, div(b, sumOfSquares(a, b)))),
    b: from(['a', 'b'], ({ dy, a, b }) => neg(mul(dy, div(a, sumOfSquares(a, b))))),
    samples: (s) => [[s.awayFromZero([2, 3]), s.awayFromZero([3])]],
  },
  // a / y; b / y
  hypot: {
    kind: 'float',
    a: from(['a', 'y'], ({ dy, a, y }) => mul(dy, div(a, y))),
    b: from(['b', 'y'], ({ dy, b, y }) => mul(dy, div(b, y))),
    samples: (s) => [[s.awayFromZero([2, 3]), s.awayFromZero([3])]],
  },
  // [a > b]; [b > a]
  maximum: {
    kind: 'same',
    a: maskRule('gt', 'ge'),
    b: maskRule('lt', 'le'),
    samples: apart,
  },
  // [a < b]; [b < a]
  minimum: {
    kind: 'same',
    a: maskRule('lt', 'le'),
    b: maskRule('gt', 'ge'),
    samples: apart,
  },
  eq: compare,
  ne: compare,
  lt: compare,
  le: compare,
  gt: compare,
  ge: compare,
  logicalAnd: compare,
  logicalOr: compare,
  logicalXor: compare,
  bitwiseAnd: bits,
  bitwiseOr: bits,
  bitwiseXor: bits,
  shiftLeft: bits,
  shiftRight: bits,
  // dx = dy [y > 0]: linear in dy, flat in y
  reluBackward: {
    kind: 'same',
    a: from(['b'], ({ dy, b }) => binary('reluBackward', dy, b)),
    b: from([], ({ dy }) => mul(dy, 0)),
    samples: backward,
  },
  // dx = dy y (1 - y): y (1 - y); dy (1 - 2y)
  sigmoidBackward: {
    kind: 'same',
    a: from(['b'], ({ dy, b }) => binary('sigmoidBackward', dy, b)),
    b: from(['a', 'b'], ({ dy, a, b }) => mul(mul(dy, a), sub(1, mul(b, 2)))),
    samples: backward,
  },
  // dx = dy (1 - y²): 1 - y²; -2 dy y
  tanhBackward: {
    kind: 'same',
    a: from(['b'], ({ dy, b }) => binary('tanhBackward', dy, b)),
    b: from(['a', 'b'], ({ dy, a, b }) => mul(mul(mul(dy, a), b), -2)),
    samples: backward,
  },
  // dx = dy (Φ(x) + x φ(x)); by x: dy φ(x) (2 - x²)
  geluBackward: {
    kind: 'float',
    a: from(['b'], ({ dy, b }) => binary('geluBackward', dy, b)),
    b: from(['a', 'b'], ({ dy, a, b }) => {
      const density = mul(exp(mul(square(b), -0.5)), 1 / Math.sqrt(2 * Math.PI))
      return mul(mul(dy, a), mul(density, sub(2, square(b))))
    }),
    samples: backward,
  },
  // f = x (1 + t) / 2 with t = tanh u, u = √(2/π) (x + c x³):
  // f'' = (1 - t²) (u' + x (u'' / 2 - t u'²))
  geluTanhBackward: {
    kind: 'float',
    a: from(['b'], ({ dy, b }) => binary('geluTanhBackward', dy, b)),
    b: from(['a', 'b'], ({ dy, a, b: x }) => {
      const u = mul(mul(x, add(mul(square(x), CUBIC), 1)), SQRT_TWO_OVER_PI)
      const du = mul(add(mul(square(x), 3 * CUBIC), 1), SQRT_TWO_OVER_PI)
      const ddu = mul(x, 6 * CUBIC * SQRT_TWO_OVER_PI)
      const t = unary('tanh', u)
      const inner = add(du, mul(x, sub(mul(ddu, 0.5), mul(t, square(du)))))
      return mul(mul(dy, a), mul(sub(1, square(t)), inner))
    }),
    samples: backward,
  },
  // dx = dy σ (1 + x (1 - σ)); by x: dy σ (1 - σ) (2 + x (1 - 2σ))
  siluBackward: {
    kind: 'float',
    a: from(['b'], ({ dy, b }) => binary('siluBackward', dy, b)),
    b: from(['a', 'b'], ({ dy, a, b: x }) => {
      const s = sigmoid(x)
      const second = mul(mul(s, sub(1, s)), add(mul(x, sub(1, mul(s, 2))), 2))
      return mul(mul(dy, a), second)
    }),
    samples: backward,
  },
}

function sumOfSquares(a: Value, b: Value): Tensor {
  return add(mul(a, a), mul(b, b))
}
