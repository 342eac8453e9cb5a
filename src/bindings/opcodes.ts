/** The opcodes of `native/shared/opcodes.h`, in its order; checked against the addon at load. */
export const opcodes = {
  unary: [
    'neg',
    'abs',
    'sign',
    'square',
    'sqrt',
    'rsqrt',
    'reciprocal',
    'exp',
    'exp2',
    'expm1',
    'log',
    'log2',
    'log10',
    'log1p',
    'sin',
    'cos',
    'tan',
    'asin',
    'acos',
    'atan',
    'sinh',
    'cosh',
    'tanh',
    'asinh',
    'acosh',
    'atanh',
    'floor',
    'ceil',
    'round',
    'trunc',
    'erf',
    'erfc',
    'sigmoid',
    'softplus',
    'relu',
    'gelu',
    'geluTanh',
    'silu',
    'isnan',
    'isinf',
    'isfinite',
    'logicalNot',
    'bitwiseNot',
  ],
  binary: [
    'add',
    'sub',
    'mul',
    'div',
    'floorDivide',
    'remainder',
    'fmod',
    'pow',
    'atan2',
    'hypot',
    'maximum',
    'minimum',
    'eq',
    'ne',
    'lt',
    'le',
    'gt',
    'ge',
    'logicalAnd',
    'logicalOr',
    'logicalXor',
    'bitwiseAnd',
    'bitwiseOr',
    'bitwiseXor',
    'shiftLeft',
    'shiftRight',
    'reluBackward',
    'sigmoidBackward',
    'tanhBackward',
    'geluBackward',
    'geluTanhBackward',
    'siluBackward',
  ],
  reduce: ['sum', 'mean', 'prod', 'amax', 'amin', 'any', 'all'],
  arg: ['argmax', 'argmin'],
  random: ['uniform', 'normal', 'bernoulli', 'randint'],
  activation: ['none', 'relu', 'gelu', 'geluTanh'],
} as const

export type Opcodes = typeof opcodes
export type UnaryOpcode = Opcodes['unary'][number]
export type BinaryOpcode = Opcodes['binary'][number]
export type ReduceOpcode = Opcodes['reduce'][number]
export type ArgOpcode = Opcodes['arg'][number]
export type RandomOpcode = Opcodes['random'][number]
export type ActivationOpcode = Opcodes['activation'][number]

/** Name to number, for one family. */
export function numberOpcodes<Name extends string>(names: readonly Name[]): Record<Name, number> {
  return Object.fromEntries(names.map((name, code) => [name, code])) as Record<Name, number>
}

/** A sentence that says where the addon's list differs from this one, or null. */
export function opcodeMismatch(
  native: Readonly<Record<string, Readonly<Record<string, number>>>>,
): string | null {
  for (const [family, names] of Object.entries(opcodes)) {
    const theirs = native[family] ?? {}
    if (Object.keys(theirs).length !== names.length) {
      return `expected ${names.length} ${family} opcodes, got ${Object.keys(theirs).length}`
    }
    for (const [code, name] of names.entries()) {
      if (theirs[name] !== code) {
        return `expected ${family} opcode ${name} to be ${code}, got ${theirs[name]}`
      }
    }
  }
  return null
}
