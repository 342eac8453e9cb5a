// The MNIST network that burn publishes, trained in PyTorch, with its weights as they are.
import { existsSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { expect, test } from 'vitest'
import { loadMnist } from '../../src/data/index.js'
import { noGrad, type Tensor } from '../../src/index.js'
import { loadSafetensors } from '../../src/io/index.js'
import * as nn from '../../src/nn/index.js'
import { root } from '../support/run.js'
import { values } from '../support/values.js'

const data = path.join(root, '..', 'shared', 'data')
const weights = path.join(data, 'pretrained', 'burn_mnist_cnn.safetensors')
const mnist = path.join(data, 'mnist')

class BurnMnist extends nn.Module {
  conv1 = new nn.Conv2d(1, 8, 3)
  conv2 = new nn.Conv2d(8, 16, 3)
  conv3 = new nn.Conv2d(16, 24, 3)
  norm1 = new nn.BatchNorm2d(24)
  fc1 = new nn.Linear(11616, 32)
  fc2 = new nn.Linear(32, 10)
  norm2 = new nn.BatchNorm1d(10)

  /** x [N, 1, 28, 28] to log-probabilities [N, 10] */
  override forward(x: Tensor): Tensor {
    const a = this.conv2.forward(this.conv1.forward(x).relu()).relu()
    const b = this.norm1.forward(this.conv3.forward(a).relu())
    return this.norm2.forward(this.fc2.forward(this.fc1.forward(b.flatten(1)).relu())).logSoftmax(1)
  }
}

test.runIf(existsSync(weights) && existsSync(mnist))('9,917 of 10,000 are right', () => {
  const net = new BurnMnist()
  net.loadStateDict(loadSafetensors(weights))
  net.eval()
  const [images, labels] = loadMnist(mnist, 'test').tensors
  let right = 0
  let first: number[] = []
  for (let i = 0; i < images.length; i += 500) {
    const x = images
      .slice(0, i, i + 500)
      .float()
      .div(255)
      .sub(0.1307)
      .div(0.3081)
    const y = noGrad(() => net.forward(x))
    if (i === 0) first = values(y.slice(0, 0, 8))
    right += y
      .argmax(1)
      .eq(labels.slice(0, i, i + 500))
      .sum()
      .item()
  }
  expect(right).toBe(9917)
  const expected = JSON.parse(
    readFileSync(path.join(data, 'pretrained', 'burn_mnist_cnn_expected.json'), 'utf8'),
  )
  expected.safetensors_first_log_probs_of_images_0_7.flat().forEach((v: number, i: number) => {
    expect(Math.abs(first[i] - v)).toBeLessThan(2e-5)
  })
})
