import { describe, expect, it, test } from 'vitest'
import {
  autocast,
  capture,
  dropout,
  Generator,
  manualSeed,
  noGrad,
  randint,
  randn,
  type Tensor,
  tensor,
  tidy,
  zeros,
} from '../../src/index.js'
import * as nn from '../../src/nn/index.js'
import {
  AdamW,
  CosineAnnealingLR,
  clipGradNorm_,
  clipGradValue_,
  SGD,
} from '../../src/optim/index.js'
import { SmallGpt, SmallLstm } from '../support/small-networks.js'
import { bits, expectSameBits, type Program } from '../support/twins.js'

const { crossEntropy, relu } = nn.functional

const STEPS = 6
const batches = (draw: () => Tensor[]): Tensor[][] => {
  manualSeed(11)
  return Array.from({ length: STEPS }, draw)
}

/** A step of an optimizer on cross-entropy. */
function classifier(
  network: nn.Layer,
  makeOptimizer: (network: nn.Layer) => Program['optimizer'],
  clip: (params: Tensor[]) => Tensor | undefined = () => undefined,
): Program {
  const optimizer = makeOptimizer(network)
  const step = (x: Tensor, y: Tensor): Tensor[] => {
    optimizer?.zeroGrad()
    const logits = network.forward(x)
    const loss = crossEntropy(logits, y)
    loss.backward()
    const norm = clip(network.parameters())
    optimizer?.step()
    return norm ? [loss, logits, norm] : [loss, logits]
  }
  return { network, optimizer, step }
}

const vectors = batches(() => [randn([5, 8]), randint(0, 4, [5])])
const mlp = () =>
  new nn.Sequential(new nn.Linear(8, 16), new nn.ReLU(), new nn.Dropout(0.4), new nn.Linear(16, 4))

describe('a captured training step leaves the same bits as an eager one', () => {
  test('MLP with dropout, AdamW with amsgrad, clipped by norm', () => {
    expectSameBits(
      () =>
        classifier(
          mlp(),
          (network) => new AdamW(network.parameters(), { lr: 1e-2, amsgrad: true }),
          (params) => clipGradNorm_(params, 0.1),
        ),
      vectors,
    )
  })

  test('SGD with momentum, Nesterov and weight decay, clipped by value', () => {
    expectSameBits(
      () =>
        classifier(
          mlp(),
          (network) =>
            new SGD(network.parameters(), {
              lr: 0.1,
              momentum: 0.9,
              nesterov: true,
              weightDecay: 0.01,
            }),
          (params) => {
            clipGradValue_(params, 0.05)
            return undefined
          },
        ),
      vectors,
    )
  })

  test('plain SGD', () => {
    expectSameBits(
      () => classifier(mlp(), (network) => new SGD(network.parameters(), { lr: 0.1 })),
      vectors,
    )
  })

  test('several groups, a schedule', () => {
    expectSameBits(() => {
      const network = mlp()
      const [w1, b1, w2, b2] = network.parameters()
      const optimizer = new AdamW(
        [{ params: [w1, w2] }, { params: [b1, b2], lr: 1e-3, weightDecay: 0 }],
        { lr: 1e-2 },
      )
      const schedule = new CosineAnnealingLR(optimizer, { tMax: STEPS })
      return { ...classifier(network, () => optimizer), between: () => schedule.step() }
    }, vectors)
  })

  test('convolution, batch norm, pooling', () => {
    const images = batches(() => [randn([4, 2, 9, 9]), randint(0, 3, [4])])
    expectSameBits(() => {
      const network = new nn.Sequential(
        new nn.Conv2d(2, 6, 3, { padding: 1 }),
        new nn.BatchNorm2d(6),
        new nn.ReLU(),
        new nn.MaxPool2d(2),
        new nn.Conv2d(6, 5, 3),
        new nn.BatchNorm2d(5),
        new nn.Flatten(),
        new nn.Linear(20, 3),
      )
      return classifier(network, (n) => new SGD(n.parameters(), { lr: 0.05, momentum: 0.9 }))
    }, images)
  })

  const tokens = batches(() => [randint(0, 11, [3, 7]), randint(0, 11, [21])])

  test('LSTM', () => {
    expectSameBits(
      () => classifier(new SmallLstm(11), (n) => new AdamW(n.parameters(), { lr: 1e-2 })),
      tokens,
    )
  })

  const gpt = () => new SmallGpt(11, 7)

  test('GPT, clipped by norm', () => {
    expectSameBits(
      () =>
        classifier(
          gpt(),
          (n) => new AdamW(n.parameters(), { lr: 1e-3 }),
          (params) => clipGradNorm_(params, 0.5),
        ),
      tokens,
    )
  })

  test('GPT under autocast, around the step and inside of it', () => {
    for (const around of [true, false]) {
      expectSameBits(() => {
        const network = gpt()
        const optimizer = new AdamW(network.parameters(), { lr: 1e-3 })
        const half = <T>(body: () => T): T => autocast('bfloat16', body)
        const step = (x: Tensor, y: Tensor): Tensor[] => {
          optimizer.zeroGrad()
          const forward = () => crossEntropy(network.forward(x), y)
          const loss = around ? forward() : half(forward)
          loss.backward()
          optimizer.step()
          return [loss]
        }
        return { network, optimizer, step }
      }, tokens)
    }
  })

  test('one autocast around all steps', () => {
    const train = (isCaptured: boolean) => {
      manualSeed(7)
      const program = classifier(gpt(), (n) => new AdamW(n.parameters(), { lr: 1e-2 }))
      const step = isCaptured ? capture(program.step) : program.step
      return autocast('bfloat16', () => tokens.map((batch) => step(...batch)[0].item()))
    }
    expect(train(true)).toEqual(train(false))
  })

  test('several generators', () => {
    const generators: Generator[] = []
    expectSameBits(() => {
      const network = new nn.Linear(8, 4)
      const own = [new Generator({ seed: 3 }), new Generator({ seed: 4 })]
      generators.splice(0, 2, ...own)
      const optimizer = new SGD(network.parameters(), { lr: 0.1 })
      const step = (x: Tensor, y: Tensor): Tensor[] => {
        optimizer.zeroGrad()
        const noise = randn([5, 8], { generator: own[0] }).add(randn([5, 8]))
        const h = dropout(x.add(noise), 0.3, { generator: own[1] })
        const loss = crossEntropy(network.forward(h), y)
        loss.backward()
        optimizer.step()
        return [loss, noise]
      }
      return { network, optimizer, step, states: () => own.map((g) => g.getState()) }
    }, vectors)
  })

  test('two steps of one optimizer in a captured one', () => {
    expectSameBits(() => {
      const program = classifier(mlp(), (n) => new AdamW(n.parameters(), { lr: 1e-2 }))
      const step = (x: Tensor, y: Tensor) => [...program.step(x, y), ...program.step(x, y)]
      return { ...program, step }
    }, vectors)
  })

  test('an average of the weights, kept by hand', () => {
    expectSameBits(() => {
      const program = classifier(mlp(), (n) => new SGD(n.parameters(), { lr: 0.1 }))
      const averages = program.network.parameters().map((p) => p.detach().clone())
      const step = (x: Tensor, y: Tensor) => {
        const results = program.step(x, y)
        noGrad(() => {
          program.network.parameters().forEach((p, i) => {
            averages[i].mul_(0.9).add_(p.mul(0.1))
          })
        })
        return results
      }
      return { ...program, step, states: () => averages.map(bits) }
    }, vectors)
  })
})

describe('gradients', () => {
  const network = () => new nn.Linear(8, 4)
  const gradients = (x: Tensor, y: Tensor, n: nn.Layer) => {
    const loss = crossEntropy(n.forward(x), y)
    loss.backward()
    return [loss]
  }

  test('that are never cleared add up', () => {
    expectSameBits(() => {
      const n = network()
      return { network: n, step: (x: Tensor, y: Tensor) => gradients(x, y, n) }
    }, vectors)
  })

  test('that are cleared outside start anew', () => {
    for (const isCleared of [() => true, (i: number) => i % 2 === 1]) {
      expectSameBits(() => {
        const n = network()
        const between = (i: number) => {
          if (isCleared(i)) n.zeroGrad()
        }
        return { network: n, step: (x: Tensor, y: Tensor) => gradients(x, y, n), between }
      }, vectors)
    }
  })

  test('that are cleared at the end are gone', () => {
    expectSameBits(() => {
      const n = network()
      const optimizer = new SGD(n.parameters(), { lr: 0.1 })
      const step = (x: Tensor, y: Tensor): Tensor[] => {
        const results = gradients(x, y, n)
        optimizer.step()
        optimizer.zeroGrad()
        return results
      }
      return { network: n, optimizer, step }
    }, vectors)
  })

  test('that are zeroed in place', () => {
    expectSameBits(() => {
      const n = network()
      const step = (x: Tensor, y: Tensor): Tensor[] => {
        noGrad(() => {
          for (const p of n.parameters()) p.grad?.zero_()
        })
        return gradients(x, y, n)
      }
      return { network: n, step }
    }, vectors)
  })

  test('are there again after they were set to null, disposed or changed', () => {
    const n = network()
    const step = capture((x: Tensor, y: Tensor) => {
      n.zeroGrad()
      return gradients(x, y, n)
    })
    const [x, y] = vectors[0]
    step(x, y)
    step(x, y)
    const expected = bits(n.weight.grad as Tensor)
    const mischief = [
      () => {
        n.weight.grad = null
      },
      () => n.weight.grad?.dispose(),
      () => n.zeroGrad(),
      () => {
        n.weight.grad = zeros([4, 8])
      },
      () => noGrad(() => n.weight.grad?.mul_(3)),
    ]
    for (const change of mischief) {
      change()
      step(x, y)
      expect(bits(n.weight.grad as Tensor)).toEqual(expected)
    }
  })
})

describe('what a captured step takes and returns', () => {
  it('returns the structure of the function, on the same memory each time', () => {
    const step = capture((a: Tensor, b: Tensor) => ({
      sum: a.add(b),
      list: [a.mul(b), { none: null, kind: 'product' }] as const,
    }))
    const [two, three] = [tensor([2, 2]), tensor([3, 4])]
    for (let i = 0; i < 3; i++) {
      const { sum, list } = step(two, three)
      expect(sum.toArray()).toEqual([5, 6])
      expect(list[0].toArray()).toEqual([6, 8])
      expect(list[1]).toEqual({ none: null, kind: 'product' })
    }
    const before = step(two, three).sum
    expect(step(three, three).sum).toBe(before)
    expect(before.toArray()).toEqual([6, 8])
    const { version } = before
    step(two, two)
    expect(before.version).toBeGreaterThan(version)
  })

  it('returns results again that were disposed', () => {
    const step = capture((a: Tensor) => a.mul(2))
    for (let i = 0; i < 4; i++) {
      expect(tidy(() => step(tensor([i])).item())).toBe(2 * i)
      step(tensor([i])).dispose()
    }
  })

  it('reads inputs of any layout, and leaves them alone', () => {
    const step = capture((a: Tensor, b: Tensor) => a.mul_(2).add(b))
    for (let i = 0; i < 4; i++) {
      const a = randn([4, 3]).transpose(0, 1)
      const b = randn([4]).expand([3, 4])
      const expected = a.mul(2).add(b).toArray()
      const given = a.toArray()
      expect(step(a, b).toArray()).toEqual(expected)
      expect(a.toArray()).toEqual(given)
    }
  })

  it('takes its own results', () => {
    const step = capture((a: Tensor) => a.add(1))
    let x: Tensor = zeros([3])
    for (let i = 0; i < 5; i++) x = step(x)
    expect(x.toArray()).toEqual([5, 5, 5])
  })

  it('takes no inputs, empty ones and those without axes', () => {
    const count = zeros([])
    const counter = capture(() => count.add_(1).mul(10))
    for (let i = 1; i < 5; i++) expect(counter().item()).toBe(10 * i)
    const empty = capture((a: Tensor, s: Tensor) => [a.mul(s).sum(), s.mul(2)])
    for (let i = 0; i < 4; i++) {
      const [sum, double] = empty(zeros([0, 3]), tensor(i))
      expect([sum.item(), double.item()]).toEqual([0, 2 * i])
    }
  })

  it('makes tensors of values of JavaScript anew each time, as they were recorded', () => {
    let calls = 0
    const step = capture((a: Tensor) => {
      calls++
      const sums = tensor([calls, 0])
      return sums.add_(a)
    })
    const results = Array.from({ length: 5 }, () => step(tensor([1, 1])).toArray())
    expect(results).toEqual([
      [2, 1],
      [3, 1],
      [3, 1],
      [3, 1],
      [3, 1],
    ])
    expect(calls).toBe(2)
  })

  it('records after as many calls as asked for', () => {
    for (const warmUp of [0, 1, 3]) {
      let calls = 0
      const step = capture(
        (a: Tensor) => {
          calls++
          return relu(a)
        },
        { warmUp },
      )
      for (let i = 0; i < 6; i++) {
        expect(step.isRecorded).toBe(i > warmUp)
        expect(step(tensor([-1, i])).toArray()).toEqual([0, i])
      }
      expect(calls).toBe(warmUp + 1)
    }
  })

  it('has results outside of graphs', () => {
    const w = tensor([3]).requiresGrad_()
    const step = capture((a: Tensor) => w.mul(a))
    for (let i = 0; i < 3; i++) expect(step(tensor([1])).requiresGrad).toBe(false)
  })
})
