// Run with ADJOINT_GC_STRESS=1: every allocation collects first. Optimised code keeps only the
// handle of an input alive while the call runs; what the call has not pinned would be freed.
import { full, noGrad, tensor } from '../../src/index.js'

function sumOfDying(i: number): number {
  // Nothing refers to the two tensors once their handles are in the call.
  return full([4], i)
    .add(full([4], 1))
    .sum()
    .item()
}

for (let i = 0; i < 3000; i++) {
  const value = noGrad(() => sumOfDying(i))
  if (value !== 4 * (i + 1)) throw new Error(`step ${i}: expected ${4 * (i + 1)}, got ${value}`)
}

const w = tensor([1, 2, 3, 4]).requiresGrad_()
function gradientOfDying(i: number): number {
  w.grad = null
  // The tape alone keeps the saved operand.
  w.mul(full([4], i))
    .exp()
    .log()
    .sum()
    .backward()
  return (w.grad as unknown as { sum(): { item(): number } }).sum().item()
}
for (let i = 0; i < 500; i++) {
  const value = gradientOfDying(i % 7)
  const expected = 4 * (i % 7)
  if (Math.abs(value - expected) > 1e-3) throw new Error(`expected ${expected}, got ${value}`)
}
console.log('pinned')
