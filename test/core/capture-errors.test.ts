import { describe, expect, it, test } from 'vitest'
import {
  AutogradError,
  CaptureError,
  capture,
  DeviceError,
  DisposedError,
  DTypeError,
  Generator,
  getRandomState,
  IndexError,
  manualSeed,
  memoryStats,
  randn,
  ShapeError,
  setFloat32MatmulPrecision,
  type Tensor,
  tensor,
  useDeterministicAlgorithms,
  zeros,
} from '../../src/index.js'
import * as nn from '../../src/nn/index.js'
import { AdamW, clipGradNorm_, SGD, StepLR } from '../../src/optim/index.js'
import { testCuda } from '../support/cuda.js'
import { runScript } from '../support/run.js'

const { crossEntropy } = nn.functional
const x = tensor([[1, 2, 3]])
const y = tensor([1n])

/** Calls the step until it is recorded, and once more. */
function recorded<R>(step: (a: Tensor) => R): (a: Tensor) => R {
  const captured = capture(step)
  for (let i = 0; i < 3; i++) captured(x)
  return captured
}

describe('what cannot be captured is an error that names it, and then all goes on', () => {
  const generator = new Generator({ seed: 1 })
  const inner = capture((a: Tensor) => a.add(1))
  const optimizer = new SGD([zeros([1]).requiresGrad_()], { lr: 1 })
  const schedule = new StepLR(optimizer, { stepSize: 1 })
  const cases: Record<string, [(a: Tensor) => unknown, RegExp]> = {
    item: [(a) => a.sum().item(), /^item: /],
    itemBigInt: [(a) => a.long().sum().itemBigInt(), /^itemBigInt: /],
    dataSync: [(a) => a.dataSync(), /^data: /],
    copyTo: [(a) => a.copyTo(new Float32Array(3)), /^data: /],
    toArray: [(a) => a.toArray(), /^toArray: /],
    printing: [(a) => `${a}`, /^toString: /],
    manualSeed: [() => manualSeed(0), /^manualSeed: /],
    getRandomState: [() => getRandomState(), /^getState: /],
    setState: [() => generator.setState({ seed: 1n, offset: 0n }), /^manualSeed: /],
    Generator: [() => new Generator(), /^Generator: /],
    precision: [() => setFloat32MatmulPrecision('high'), /^setFloat32MatmulPrecision: /],
    determinism: [() => useDeterministicAlgorithms(true), /^useDeterministicAlgorithms: /],
    schedule: [() => schedule.step(), /^StepLR.step: /],
    'another captured step': [(a) => inner(a), /^capture: .* another captured step/],
    'another recording': [(a) => capture((b: Tensor) => b.add(1))(a), /^capture: /],
  }
  for (const [name, [body, message]] of Object.entries(cases)) {
    test(name, () => {
      const step = capture((a: Tensor) => {
        body(a)
        return a.add(1)
      })
      // What reads values may do so in the warm-up; other captured steps may not be called there.
      if (!message.source.startsWith('^capture')) expect(() => step(x)).not.toThrow()
      setFloat32MatmulPrecision('highest')
      useDeterministicAlgorithms(false)
      for (let i = 0; i < 2; i++) {
        expect(() => step(x)).toThrow(CaptureError)
        expect(() => step(x)).toThrow(message)
      }
      expect(x.add(1).toArray()).toEqual([[2, 3, 4]])
      expect(recorded((a) => a.mul(2))(x).toArray()).toEqual([[2, 4, 6]])
    })
  }

  it('a function that returns a promise, or something else than tensors', () => {
    expect(() => capture(async (a: Tensor) => a.add(1))(x)).toThrow(/^capture: .*promise/)
    for (const result of [new Map(), new Set(), () => 1, new Date()]) {
      expect(() => capture((_: Tensor) => result)(x)).toThrow(
        /^capture: expected a function that returns/,
      )
    }
  })

  it('an error of the function, in the warm-up or while recording', () => {
    let calls = 0
    const step = capture((a: Tensor) => {
      if (++calls % 2 === 0) throw new RangeError('of the user')
      return a.mul(3)
    })
    step(x)
    expect(() => step(x)).toThrow('of the user')
    expect(step.isRecorded).toBe(false)
    for (let i = 0; i < 3; i++) expect(step(x).toArray()).toEqual([[3, 6, 9]])
    expect(calls).toBe(3)
  })

  it('the first step of a parameter', () => {
    const net = new nn.Linear(3, 2)
    const adam = new AdamW(net.parameters())
    const step = capture(
      (a: Tensor) => {
        adam.zeroGrad()
        crossEntropy(net.forward(a), y).backward()
        adam.step()
      },
      { warmUp: 0 },
    )
    expect(() => step(x)).toThrow(/^AdamW.step: .*first step/)
  })

  it('clipping that reads the norm', () => {
    const net = new nn.Linear(3, 2)
    const step = capture((a: Tensor) => {
      net.zeroGrad()
      crossEntropy(net.forward(a), y).backward()
      clipGradNorm_(net.parameters(), 1, { errorIfNonfinite: true })
    })
    step(x)
    expect(() => step(x)).toThrow(/^item: /)
  })
})

describe('a replay that cannot go right is an error', () => {
  test('inputs that are not like the first', () => {
    const step = capture((a: Tensor, b: Tensor) => a.add(b))
    const wrong: [Tensor[], new (m: string) => Error, RegExp][] = [
      [[x, zeros([3])], ShapeError, /^capture: expected input 1 of shape \[1, 3\]/],
      [[x.double(), x], DTypeError, /^capture: expected input 0 of dtype float32/],
      [[x, zeros([1, 3]).requiresGrad_()], AutogradError, /^capture: .*input 1/],
      [[x], Error, /^capture: expected 2 inputs/],
    ]
    for (let i = 0; i < 4; i++) {
      expect(step(x, x).toArray()).toEqual([[2, 4, 6]])
      for (const [inputs, kind, message] of wrong) {
        expect(() => step(...(inputs as [Tensor, Tensor]))).toThrow(kind)
        expect(() => step(...(inputs as [Tensor, Tensor]))).toThrow(message)
      }
    }
  })

  test('a tensor of the step that was disposed', () => {
    const w = randn([3])
    const input = tensor([[1, 1, 1]])
    const step = capture((a: Tensor) => a.mul(w))
    step(input)
    const expected = step(input).toArray()
    input.dispose()
    expect(step(tensor([[1, 1, 1]])).toArray()).toEqual(expected)
    w.dispose()
    for (let i = 0; i < 2; i++) expect(() => step(x)).toThrow(DisposedError)
  })

  test('a parameter that moved to another dtype', () => {
    const net = new nn.Linear(3, 2)
    const step = recorded((a) => net.forward(a))
    net.to('float64')
    expect(() => step(x)).toThrow(DisposedError)
  })

  const training = () => {
    const net = new nn.Linear(3, 2)
    const adam = new AdamW(net.parameters(), { lr: 1e-2 })
    const step = recorded((a) => {
      adam.zeroGrad()
      const loss = crossEntropy(net.forward(a), y)
      loss.backward()
      adam.step()
      return loss
    })
    return { net, adam, step }
  }

  test('an optimizer with other settings or another state', () => {
    const changes: ((adam: AdamW) => void)[] = [
      (adam) => {
        adam.paramGroups[0].weightDecay = 0
      },
      (adam) => {
        adam.paramGroups[0].betas = [0.5, 0.9]
      },
      (adam) => adam.addParamGroup({ params: [zeros([1]).requiresGrad_()] }),
      (adam) => adam.loadStateDict(adam.stateDict()),
    ]
    for (const change of changes) {
      const { adam, step } = training()
      change(adam)
      const { step: before } = adam.stateDict().state[0]
      for (let i = 0; i < 2; i++) expect(() => step(x)).toThrow(/^AdamW.step: .*capture the step/)
      expect(adam.stateDict().state[0].step).toBe(before)
    }
  })

  test('gradients that are not those of the recording', () => {
    const net = new nn.Linear(3, 2)
    const adds = recorded((a) => {
      crossEntropy(net.forward(a), y).backward()
    })
    net.weight.grad = zeros([2, 3])
    expect(() => adds(x)).toThrow(/^capture: expected the gradients/)

    const starts = capture((a: Tensor) => {
      crossEntropy(net.forward(a), y).backward()
    })
    net.zeroGrad()
    starts(x)
    net.zeroGrad()
    starts(x)
    expect(() => starts(x)).toThrow(/^capture: expected no gradients/)
    net.zeroGrad()
    expect(() => starts(x)).not.toThrow()

    const adam = new SGD(net.parameters(), { lr: 1 })
    const moves = recorded(() => adam.step())
    net.zeroGrad()
    expect(() => moves(x)).toThrow(/^capture: expected the gradients/)
  })

  test('an index outside of its axis: then the next step goes on', () => {
    const net = new nn.Linear(3, 2)
    const adam = new AdamW(net.parameters(), { lr: 1e-2 })
    const step = capture((a: Tensor, labels: Tensor) => {
      adam.zeroGrad()
      const loss = crossEntropy(net.forward(a), labels)
      loss.backward()
      adam.step()
      return loss
    })
    for (let i = 0; i < 3; i++) step(x, y)
    for (let i = 0; i < 2; i++) {
      expect(() => step(x, tensor([7n])).item()).toThrow(IndexError)
    }
    step(x, y)
    // A GPU finds it while it computes: by then the step has been taken.
    expect(adam.stateDict().state[0].step).toBe(x.device.type === 'cpu' ? 4 : 6)
  })

  test('a disposed step, also in its own function', () => {
    const step = recorded((a) => a.add(1)) as ReturnType<typeof capture>
    step.dispose()
    step.dispose()
    expect(() => step(x)).toThrow(DisposedError)
    const own: { step?: ReturnType<typeof capture> } = {}
    own.step = capture((a: Tensor) => {
      own.step?.dispose()
      return a.add(1)
    }) as never
    expect(() => own.step?.(x)).toThrow(CaptureError)
    expect(() => own.step?.(x)).toThrow(CaptureError)
  })

  test('a step inside of itself', () => {
    const own: { step?: (a: Tensor) => Tensor } = {}
    own.step = capture((a: Tensor): Tensor => (own.step as (a: Tensor) => Tensor)(a))
    expect(() => own.step?.(x)).toThrow(CaptureError)
  })
})

describe('other devices', () => {
  const cuda = testCuda()
  const here = tensor([[1, 2, 3]], { device: 'cpu' })

  test('have the CPU do no work in their steps', () => {
    const there = zeros([3], { device: cuda })
    const step = capture((a: Tensor) => {
      here.add(1)
      return a.add(1)
    })
    step(there)
    expect(() => step(there)).toThrow(/^binary: .*cpu/)
    expect(there.add(1).toArray()).toEqual([1, 1, 1])
  })

  test('do no work in a step of the CPU', () => {
    const there = zeros([3], { device: cuda })
    const step = capture((a: Tensor) => {
      there.add(1)
      return a.add(1)
    })
    step(here)
    expect(() => step(here)).toThrow(/^binary: .*cuda/)
    expect(() => step(there.add(1))).toThrow(DeviceError)
    const moves = capture((a: Tensor) => a.to('cuda'))
    moves(here)
    expect(() => moves(here)).toThrow(/^to: /)
    expect(there.add(1).toArray()).toEqual([1, 1, 1])
  })
})

test('a captured step works in a worker and cannot be sent to one', () => {
  expect(() => structuredClone(capture((a: Tensor) => a))).toThrow()
  const done = runScript('test/memory/capture.script.ts', ['worker'])
  expect(done.stderr).toBe('')
  expect(done.stdout).toBe('captured\n')
})

test('collections before every allocation change nothing', () => {
  const done = runScript('test/memory/capture.script.ts', [], { ADJOINT_GC_STRESS: '1' })
  expect(done.stderr).toBe('')
  expect(done.stdout).toBe('captured\n')
  expect(memoryStats().liveBytes).toBeGreaterThan(0)
})
