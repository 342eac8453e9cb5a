// Run with ADJOINT_TRACE_LEAKS=1: the list at exit names the lines whose tensors are still alive.
import { liveTensors, tensor, zeros } from '../../src/index.js'

function forgotten(): unknown {
  return zeros([3, 2])
}

export const held: unknown[] = []
for (let i = 0; i < 3; i++) held.push(forgotten())
held.push(tensor([1, 2]))
for (let i = 0; i < 100; i++) zeros([8]).add(1)
console.log(JSON.stringify(liveTensors()))
