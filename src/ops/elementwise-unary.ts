import type { BinaryOpcode, UnaryOpcode } from '../bindings/opcodes.js'
import { from, type Rule, type Sampler, type Value } from '../core/op.js'
import type { Tensor } from '../core/tensor.js'
import { binary, type ResultKind, unary } from './elementwise.js'

interface UnaryRule {
  readonly kind: ResultKind
  readonly x: Rule<void> | null
  readonly samples: ((s: Sampler) => Tensor[]) | null
}

const b = (name: BinaryOpcode) => (x: Value, y: Value) => binary(name, x, y)
const u = (name: UnaryOpcode) => (x: Tensor) => unary(name, x)
const [add, sub, mul, div] = [b('add'), b('sub'), b('mul'), b('div')]
const [exp, square, sqrt] = [u('exp'), u('square'), u('sqrt')]

const anywhere = (s: Sampler) => [s.normal([2, 3]), s.normal([])]
const smooth = (s: Sampler) => [s.awayFromZero([2, 3])]
const positive = (s: Sampler) => [s.uniform([2, 3], 0.3, 3)]
const inside = (s: Sampler) => [s.uniform([2, 3], -0.8, 0.8)]
const beyondOne = (s: Sampler) => [s.uniform([2, 3], 1.3, 3)]

function float(x: Rule<void>, samples: (s: Sampler) => Tensor[] = anywhere): UnaryRule {
  return { kind: 'float', x, samples }
}

function same(x: Rule<void>, samples: (s: Sampler) => Tensor[] = anywhere): UnaryRule {
  return { kind: 'same', x, samples }
}

const test: UnaryRule = { kind: 'bool', x: null, samples: null }
const flat: UnaryRule = same(
  // constant between its steps
  from([], ({ dy }) => mul(dy, 0)),
  (s) => [s.uniform([2, 3], 0.1, 0.4)],
)

/** dx from dy, by opcode: the derivative stands above each. */
export const unaryRules: Record<UnaryOpcode, UnaryRule> = {
  // -1
  neg: same(from([], ({ dy }) => unary('neg', dy))),
  // sign(x)
  abs: same(
    from(['x'], ({ dy, x }) => mul(dy, unary('sign', x))),
    smooth,
  ),
  sign: { ...flat, samples: smooth },
  // 2x
  square: same(from(['x'], ({ dy, x }) => mul(mul(dy, x), 2))),
  // 1 / (2y)
  sqrt: float(
    from(['y'], ({ dy, y }) => div(mul(dy, 0.5), y)),
    positive,
  ),
  // -y³ / 2
  rsqrt: float(
    from(['y'], ({ dy, y }) => mul(mul(dy, -0.5), mul(y, square(y)))),
    positive,
  ),
  // -y²
  reciprocal: float(
    from(['y'], ({ dy, y }) => unary('neg', mul(dy, square(y)))),
    positive,
  ),
  // y
  exp: float(from(['y'], ({ dy, y }) => mul(dy, y))),
  // y ln 2
  exp2: float(from(['y'], ({ dy, y }) => mul(mul(dy, y), Math.LN2))),
  // y + 1
  expm1: float(from(['y'], ({ dy, y }) => mul(dy, add(y, 1)))),
  // 1 / x
  log: float(
    from(['x'], ({ dy, x }) => div(dy, x)),
    positive,
  ),
  // 1 / (x ln 2)
  log2: float(
    from(['x'], ({ dy, x }) => div(dy, mul(x, Math.LN2))),
    positive,
  ),
  // 1 / (x ln 10)
  log10: float(
    from(['x'], ({ dy, x }) => div(dy, mul(x, Math.LN10))),
    positive,
  ),
  // 1 / (1 + x)
  log1p: float(
    from(['x'], ({ dy, x }) => div(dy, add(x, 1))),
    positive,
  ),
  // cos x
  sin: float(from(['x'], ({ dy, x }) => mul(dy, unary('cos', x)))),
  // -sin x
  cos: float(from(['x'], ({ dy, x }) => unary('neg', mul(dy, unary('sin', x))))),
  // 1 + y²
  tan: float(
    from(['y'], ({ dy, y }) => mul(dy, add(square(y), 1))),
    inside,
  ),
  // 1 / √(1 - x²)
  asin: float(
    from(['x'], ({ dy, x }) => div(dy, sqrt(sub(1, square(x))))),
    inside,
  ),
  // -1 / √(1 - x²)
  acos: float(
    from(['x'], ({ dy, x }) => unary('neg', div(dy, sqrt(sub(1, square(x)))))),
    inside,
  ),
  // 1 / (1 + x²)
  atan: float(from(['x'], ({ dy, x }) => div(dy, add(square(x), 1)))),
  // cosh x
  sinh: float(from(['x'], ({ dy, x }) => mul(dy, unary('cosh', x)))),
  // sinh x
  cosh: float(from(['x'], ({ dy, x }) => mul(dy, unary('sinh', x)))),
  // 1 - y²
  tanh: float(from(['y'], ({ dy, y }) => binary('tanhBackward', dy, y))),
  // 1 / √(x² + 1)
  asinh: float(from(['x'], ({ dy, x }) => div(dy, sqrt(add(square(x), 1))))),
  // 1 / √(x² - 1)
  acosh: float(
    from(['x'], ({ dy, x }) => div(dy, sqrt(sub(square(x), 1)))),
    beyondOne,
  ),
  // 1 / (1 - x²)
  atanh: float(
    from(['x'], ({ dy, x }) => div(dy, sub(1, square(x)))),
    inside,
  ),
  floor: flat,
  ceil: flat,
  round: flat,
  trunc: flat,
  // 2/√π e^(-x²)
  erf: float(
    from(['x'], ({ dy, x }) => mul(dy, mul(exp(unary('neg', square(x))), 2 / Math.sqrt(Math.PI)))),
  ),
  // -2/√π e^(-x²)
  erfc: float(
    from(['x'], ({ dy, x }) => mul(dy, mul(exp(unary('neg', square(x))), -2 / Math.sqrt(Math.PI)))),
  ),
  // y (1 - y)
  sigmoid: float(from(['y'], ({ dy, y }) => binary('sigmoidBackward', dy, y))),
  // σ(x)
  softplus: float(from(['x'], ({ dy, x }) => mul(dy, unary('sigmoid', x)))),
  // [y > 0]
  relu: same(
    from(['y'], ({ dy, y }) => binary('reluBackward', dy, y)),
    smooth,
  ),
  // Φ(x) + x φ(x) (Hendrycks & Gimpel 2016)
  gelu: float(from(['x'], ({ dy, x }) => binary('geluBackward', dy, x))),
  geluTanh: float(from(['x'], ({ dy, x }) => binary('geluTanhBackward', dy, x))),
  // σ(x) (1 + x (1 - σ(x))) (Elfwing et al. 2018)
  silu: float(from(['x'], ({ dy, x }) => binary('siluBackward', dy, x))),
  isnan: test,
  isinf: test,
  isfinite: test,
  logicalNot: test,
  bitwiseNot: { kind: 'same', x: null, samples: null },
}
