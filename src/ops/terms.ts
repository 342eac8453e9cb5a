import type { Tensor } from '../core/tensor.js'
import { binary, unary } from './elementwise.js'

// The arithmetic of gradient rules, whose operands need no checks.
export const add = (a: Tensor, b: Tensor | number): Tensor => binary('add', a, b)
export const sub = (a: Tensor, b: Tensor | number): Tensor => binary('sub', a, b)
export const mul = (a: Tensor, b: Tensor | number): Tensor => binary('mul', a, b)
export const div = (a: Tensor, b: Tensor | number): Tensor => binary('div', a, b)
export const neg = (a: Tensor): Tensor => unary('neg', a)
