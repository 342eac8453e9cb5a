// The smallest network that learns something: 10-10-1 with a sigmoid loss tells two noisy classes
// apart that no plane separates.
//   npx tsx examples/two-classes.mts --check
import { parseArgs } from 'node:util'
import { Generator, manualSeed, noGrad, rand, randn, type Tensor } from 'adjoint'
import * as nn from 'adjoint/nn'
import { Adam } from 'adjoint/optim'

const { values } = parseArgs({
  options: {
    check: { type: 'boolean', default: false },
    steps: { type: 'string', default: '1500' },
  },
})
const STATED = 0.9
const NOISE = 0.03

/** Points in ten dimensions; the class is whether their first two coordinates have one sign. */
function sample(count: number, generator: Generator): { x: Tensor; y: Tensor } {
  const x = randn([count, 10], { generator })
  const same = x
    .index(':', [0, 1])
    .mul(x.index(':', [1, 2]))
    .gt(0)
  // A few labels are wrong.
  const flipped = rand([count, 1], { generator }).lt(NOISE)
  return { x, y: same.logicalXor(flipped).float() }
}

manualSeed(0)
const train = sample(4000, new Generator({ seed: 1 }))
const unseen = sample(2000, new Generator({ seed: 2 }))
const net = new nn.Sequential(new nn.Linear(10, 10), new nn.ReLU(), new nn.Linear(10, 1))
const optimizer = new Adam(net.parameters(), { lr: 2e-2 })
for (let step = 0; step < Number(values.steps); step++) {
  optimizer.zeroGrad()
  const loss = nn.functional.binaryCrossEntropyWithLogits(net.forward(train.x), train.y)
  loss.backward()
  optimizer.step()
  if (step % 250 === 0) console.log(`step ${step}  loss ${loss.item().toFixed(4)}`)
}
const right = noGrad(() => net.forward(unseen.x).gt(0).eq(unseen.y.gt(0.5)))
const accuracy = right.float().mean().item()
console.log(`accuracy on unseen points ${(100 * accuracy).toFixed(1)} %, stated ${100 * STATED} %`)
if (values.check && accuracy < STATED) process.exitCode = 1
