// Training on the second of two GPUs, on each of them, and on both at once.
import { describe, expect, test } from 'vitest'
import type { Device } from '../../src/core/device.js'
import {
  CaptureError,
  capture,
  DeviceError,
  manualSeed,
  ones,
  randn,
  type Tensor,
} from '../../src/index.js'
import * as nn from '../../src/nn/index.js'
import { AdamW, clipGradNorm_, clipGradValue_, GradScaler, SGD } from '../../src/optim/index.js'
import { elements } from '../support/accuracy.js'
import { twoCards } from '../support/cuda.js'
import { runScript } from '../support/run.js'
import { errorOf } from '../support/values.js'

const { hasTwo, first, second } = twoCards()
const cards = [first, second]

describe.skipIf(!hasTwo)('training', () => {
  const network = () =>
    new nn.Sequential(
      new nn.Linear(6, 32),
      new nn.BatchNorm1d(32),
      new nn.ReLU(),
      new nn.Dropout(0.2),
      new nn.Linear(32, 16),
      new nn.GELU(),
      new nn.Linear(16, 3),
    )
  const classes = (x: Tensor) => x.slice(1, 0, 3).argmax(1)

  function train(at: Device): number[] {
    manualSeed(3)
    const x = randn([64, 6])
    const net = network().to(at)
    for (const t of [...net.parameters(), ...net.buffers()]) expect(t.device).toBe(at)
    const optimizer = new AdamW(net.parameters(), { lr: 1e-2 })
    manualSeed(4)
    const [inputs, targets] = [x.to(at), classes(x).to(at)]
    const losses: Tensor[] = []
    for (let step = 0; step < 25; step++) {
      optimizer.zeroGrad()
      const loss = nn.functional.crossEntropy(net.forward(inputs), targets)
      loss.backward()
      optimizer.step()
      losses.push(loss.detach())
    }
    return losses.map((loss) => loss.item())
  }

  test('on the second card gives the losses of the first, bit for bit', () => {
    const there = train(second)
    expect(there).toEqual(train(first))
    expect(there[24]).toBeLessThan(0.7 * there[0])
  })

  test('of two networks at once, one on each', () => {
    const nets = cards.map((card) => {
      manualSeed(5)
      return network().to(card)
    })
    const optimizers = nets.map((net) => new SGD(net.parameters(), { lr: 0.1, momentum: 0.9 }))
    const x = randn([32, 6])
    manualSeed(6)
    for (let step = 0; step < 5; step++) {
      cards.forEach((card, i) => {
        optimizers[i].zeroGrad()
        const loss = nn.functional.crossEntropy(nets[i].forward(x.to(card)), classes(x).to(card))
        loss.backward()
        optimizers[i].step()
      })
    }
    const [a, b] = nets.map((net) => [...net.parameters()].map(elements))
    expect(b).toEqual(a)
  })

  /** Half of the network on each of two devices, which may be the same one. */
  function trainSplit(front: Device, back: Device) {
    manualSeed(7)
    const a = new nn.Sequential(new nn.Linear(6, 24), new nn.Tanh()).to(front)
    const b = new nn.Sequential(new nn.Linear(24, 16), new nn.ReLU(), new nn.Linear(16, 3)).to(back)
    const parameters = [...a.parameters(), ...b.parameters()]
    const optimizer = new AdamW(parameters, { lr: 1e-2 })
    const scaler = new GradScaler({ initScale: 8 })
    const x = randn([64, 6])
    const [inputs, targets] = [x.to(front), classes(x).to(back)]
    const norms: Tensor[] = []
    const losses: Tensor[] = []
    for (let step = 0; step < 15; step++) {
      optimizer.zeroGrad()
      const loss = nn.functional.crossEntropy(b.forward(a.forward(inputs).to(back)), targets)
      scaler.scale(loss).backward()
      scaler.unscale_(optimizer)
      norms.push(clipGradNorm_(parameters, 0.3))
      clipGradValue_(parameters, 0.2)
      expect(scaler.step(optimizer)).toBe(true)
      scaler.update()
      losses.push(loss.detach())
    }
    for (const p of parameters) expect(p.grad?.device).toBe(p.device)
    const state = optimizer.stateDict()
    return {
      losses: losses.map((loss) => loss.item()),
      norms: norms.map((norm) => norm.item()),
      weights: parameters.map(elements),
      moments: Object.values(state.state).map((s) => elements(s.exp_avg as Tensor)),
    }
  }

  test('of a network that is split over both, with one optimizer, is that of one card', () => {
    const split = trainSplit(first, second)
    const whole = trainSplit(first, first)
    // The norm of all gradients is that of two norms here, which rounds once more.
    for (const part of ['losses', 'norms', 'weights', 'moments'] as const) {
      const [got, want] = [split, whole].map((run) => run[part].flat())
      const largest = Math.max(...want.map(Math.abs))
      const error = Math.max(...got.map((x, i) => Math.abs(x - want[i])))
      expect(error, part).toBeLessThan(1e-4 * largest)
    }
    expect(split.losses[14]).toBeLessThan(split.losses[0])
  })

  test('in several threads, on either card', () => {
    const done = runScript('test/cuda/worker.script.ts', [], { ADJOINT_EMULATION_DEVICES: '2' })
    expect(done.stderr).toBe('')
    expect(done.stdout).toBe('agreed\n')
  }, 60_000)

  test('goes on elsewhere from a state', () => {
    const net = network().to(first)
    const other = network().to(second)
    other.loadStateDict(net.stateDict())
    const [a, b] = [net, other].map((n) => [...n.parameters(), ...n.buffers()].map(elements))
    expect(b).toEqual(a)
    for (const p of other.parameters()) expect(p.device).toBe(second)
  })
})

describe.skipIf(!hasTwo)('captured steps', () => {
  test('run on the second card as graphs', () => {
    const results = cards.map((card) => {
      manualSeed(8)
      const net = new nn.Sequential(new nn.Linear(4, 8), new nn.Dropout(0.3), new nn.Linear(8, 1))
      net.to(card)
      const optimizer = new AdamW(net.parameters(), { lr: 1e-2 })
      const x = Array.from({ length: 6 }, () => randn([16, 4]))
      manualSeed(9)
      const step = capture((input: Tensor) => {
        optimizer.zeroGrad()
        const loss = net.forward(input).square().mean()
        loss.backward()
        optimizer.step()
        return loss
      })
      const losses = x.map((batch) => step(batch.to(card)).item())
      expect(step.replayedBy).toBe('graph')
      return losses
    })
    expect(results[1]).toEqual(results[0])
  })

  test('stay on one card', () => {
    const w = ones([2], { device: first })
    const step = capture((x: Tensor) => {
      w.add(1)
      return x.mul(2)
    })
    const x = ones([2], { device: second })
    step(x)
    expect(errorOf(CaptureError, () => step(x))).toMatch(/being captured, got a call on cuda:0/)
    const copying = capture((y: Tensor) => y.to(first))
    copying(x)
    expect(errorOf(CaptureError, () => copying(x))).toMatch(/^to: .*a copy to another device/)
    const input = capture((a: Tensor, b: Tensor) => a.add(b.to(a.device)))
    expect(errorOf(DeviceError, () => input(x, w))).toMatch(/inputs on cuda:1, got one on cuda:0/)
  })
})
