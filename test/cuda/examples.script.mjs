// Trains the small networks of the examples for a few steps on the default device, and prints their
// losses as JSON. Plain JavaScript, since the types of 'adjoint' come only with dist.
import { manualSeed, randint, randn, tensor } from 'adjoint'
import * as nn from 'adjoint/nn'
import { AdamW } from 'adjoint/optim'
import { CharLstm } from '../../examples/support/char-lstm.mts'
import { Gpt } from '../../examples/support/gpt.mts'
import { lenetWithBatchNorm, mlpWithDropout } from '../../examples/support/networks.mts'

const TEXT = 'the quick brown fox jumps over the lazy dog '.repeat(4)
const LETTERS = [...new Set(TEXT)].sort()
const STEPS = 6

/** Tokens [4, 16] of the text and those that follow [64]. */
function sequences() {
  const tokens = Array.from(TEXT, (letter) => BigInt(LETTERS.indexOf(letter)))
  const rows = (shift) =>
    [0, 17, 34, 51].map((start) => tokens.slice(start + shift, start + shift + 16))
  return { x: tensor(rows(0)), y: tensor(rows(1)).flatten() }
}

function images() {
  return { x: randn([8, 1, 28, 28]), y: randint(0, 10, [8]) }
}

function losses(make, data) {
  manualSeed(3)
  const net = make()
  const { x, y } = data()
  const optimizer = new AdamW(net.parameters(), { lr: 3e-3 })
  return Array.from({ length: STEPS }, () => {
    optimizer.zeroGrad()
    const loss = nn.functional.crossEntropy(net.forward(x), y)
    loss.backward()
    optimizer.step()
    return loss.item()
  })
}

const vocabulary = LETTERS.length
const size = { vocabulary, context: 16, layers: 2, heads: 2, width: 16 }
process.stdout.write(
  JSON.stringify({
    'char-lstm': losses(() => new CharLstm(vocabulary, 8, 24, 2), sequences),
    gpt: losses(() => new Gpt(size), sequences),
    'mlp with dropout': losses(() => mlpWithDropout(0.2), images),
    'lenet with batch norm': losses(lenetWithBatchNorm, images),
  }),
)
