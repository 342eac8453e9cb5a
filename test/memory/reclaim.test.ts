import { describe, expect, it } from 'vitest'
import {
  collectGarbage,
  customFunction,
  grad,
  memoryStats,
  noGrad,
  randn,
  type Tensor,
  tensor,
  tidy,
  zeros,
} from '../../src/index.js'
import { SGD } from '../../src/optim/index.js'
import { leftBy, live, nothing } from '../support/live.js'
import { runScript } from '../support/run.js'

describe('reclamation', () => {
  it('pins the inputs of a call before it allocates', () => {
    const done = runScript('test/memory/pinning.script.ts', [], { ADJOINT_GC_STRESS: '1' })
    expect(done.stderr).toBe('')
    expect(done.stdout).toBe('pinned\n')
    expect(done.status).toBe(0)
  })

  it('frees what a loop drops, without dispose and without await', () => {
    const megabyte = 1 << 18
    let peak = 0
    const left = leftBy(() => {
      let x = zeros([megabyte])
      for (let i = 0; i < 2000; i++) {
        x = x.add(1)
        peak = Math.max(peak, memoryStats().liveBytes)
      }
      expect(x.index(0).item()).toBe(2000)
    })
    expect(left).toEqual(nothing)
    expect(peak).toBeLessThan(256 * 2 ** 20)
  })

  it('frees what a training loop drops, with gradients', () => {
    let peak = 0
    const left = leftBy(() => {
      const w = randn([256, 256], { requiresGrad: true })
      for (let i = 0; i < 500; i++) {
        const loss = randn([64, 256]).matmul(w).tanh().square().mean()
        loss.backward()
        noGrad(() => w.sub_((w.grad as Tensor).mul(0.01)))
        w.grad = null
        peak = Math.max(peak, memoryStats().liveBytes)
      }
    })
    expect(left).toEqual(nothing)
    expect(peak).toBeLessThan(128 * 2 ** 20)
  })

  // Activations of 4 MB each; between steps there are 12.
  it.each([5, 9, 14, 20, 27])('frees the %i activations of a step before the next', (depth) => {
    const mega = 2 ** 20
    const left = leftBy(() => {
      const x = randn([mega])
      const w = randn([mega], { requiresGrad: true })
      const optimizer = new SGD([w], { lr: 0.1 })
      const before = memoryStats().liveBytes
      for (let i = 0; i < 20; i++) {
        optimizer.zeroGrad()
        let y: Tensor = x.mul(w)
        for (let k = 0; k < depth; k++) y = y.tanh()
        expect(memoryStats().liveBytes - before).toBeLessThan((4 * depth + 40) * mega)
        y.mean().backward()
        optimizer.step()
        expect(memoryStats().liveBytes - before).toBeLessThan(20 * mega)
      }
    })
    expect(left).toEqual(nothing)
  })

  it('frees the views that a loop drops, though they allocate nothing', () => {
    let most = 0
    const left = leftBy(() => {
      const x = zeros([4])
      for (let i = 0; i < 50_000; i++) {
        x.reshape([2, 2])
        most = Math.max(most, memoryStats().liveTensors)
      }
    })
    expect(left).toEqual(nothing)
    expect(most).toBeLessThan(40_000)
  })

  it('leaves gradients alone after a backward pass that threw, and frees them when dropped', () => {
    const left = leftBy(() => {
      const w = tensor([1, 2, 3], { requiresGrad: true })
      const fails = customFunction({
        forward: (_, x: Tensor) => x.mul(2),
        backward: () => {
          throw new Error('stop')
        },
      })
      for (let i = 0; i < 100; i++) {
        const y = w.exp()
        expect(() => y.mul(w).add(fails(y)).sum().backward()).toThrow('stop')
      }
    })
    expect(left).toEqual(nothing)
  })

  it('keeps what a hook keeps of a backward pass', () => {
    const kept: Tensor[] = []
    const w = tensor([1, 2, 3], { requiresGrad: true })
    for (let i = 0; i < 3; i++) {
      const y = w.exp()
      y.registerHook((dy) => void kept.push(dy, dy.mul(2)))
      y.mul(w).sum().backward()
    }
    collectGarbage()
    for (const [i, dy] of kept.entries()) {
      expect(Array.from(dy.dataSync(), Number)).toEqual([1, 2, 3].map((x) => x * (1 + (i % 2))))
    }
  })

  it('frees a graph that is dropped without backward', () => {
    const left = leftBy(() => {
      const w = randn([512], { requiresGrad: true })
      for (let i = 0; i < 200; i++) w.exp().mul(w).tanh().sum()
    })
    expect(left).toEqual(nothing)
  })

  it('frees what a step held when an exception ends it', () => {
    const left = leftBy(() => {
      const w = randn([512], { requiresGrad: true })
      for (let i = 0; i < 100; i++) {
        expect(() =>
          w
            .exp()
            .mul(w)
            .matmul(zeros([3])),
        ).toThrow(/inner sizes/)
      }
    })
    expect(left).toEqual(nothing)
  })

  it('keeps a tensor that a closure holds, and frees it with the closure', () => {
    let hold: (() => number) | null = null
    const before = live()
    ;(() => {
      const kept = tensor([1, 2, 3])
      hold = () => kept.sum().item()
    })()
    expect(live().tensors).toBe(before.tensors + 1)
    expect((hold as unknown as () => number)()).toBe(6)
    hold = null
    expect(live()).toEqual(before)
  })

  it('keeps saved values after the tensors are gone, until backward', () => {
    const left = leftBy(() => {
      const w = tensor([1, 2, 3], { requiresGrad: true })
      const loss = (() => w.exp().mul(w.mul(2)).sum())()
      collectGarbage()
      expect(memoryStats().liveNodes).toBeGreaterThan(0)
      const [dw] = grad(loss, [w])
      const expected = [1, 2, 3].map((x) => 2 * Math.exp(x) * (x + 1))
      Array.from(dw.dataSync(), Number).forEach((value, i) => {
        expect(value).toBeCloseTo(expected[i], 3)
      })
    })
    expect(left).toEqual(nothing)
  })

  it('frees at once on dispose, however many views there are', () => {
    const before = live()
    const x = zeros([1024])
    const y = x.reshape([32, 32])
    x.dispose()
    x.dispose()
    expect(memoryStats().liveBytes).toBe(before.bytes + 4096)
    y.dispose()
    expect(memoryStats().liveBytes).toBe(before.bytes)
    expect(() => x.add(1)).toThrow(/expected a live tensor, got a disposed one/)
    expect(x.isDisposed).toBe(true)
  })
})

describe('tidy', () => {
  it('disposes all but what is returned', () => {
    const before = memoryStats().liveTensors
    const { y, list } = tidy(() => {
      const x = randn([4])
      const z = x.add(1).mul(2)
      return { y: z, list: [x.sum()] }
    })
    expect(memoryStats().liveTensors).toBe(before + 2)
    expect(y.isDisposed || list[0].isDisposed).toBe(false)
    y.dispose()
    list[0].dispose()
  })

  it('hands kept tensors to the outer tidy, and cleans up after an exception', () => {
    const before = memoryStats().liveTensors
    const out = tidy(() => {
      const inner = tidy(() => randn([2]).add(1))
      expect(() =>
        tidy(() => {
          randn([2])
          throw new Error('stop')
        }),
      ).toThrow('stop')
      return inner.mul(2)
    })
    expect(memoryStats().liveTensors).toBe(before + 1)
    out.dispose()
  })

  it('keeps gradients and leaves', () => {
    const w = tidy(() => {
      const leaf = tensor([1, 2], { requiresGrad: true })
      leaf.square().sum().backward()
      return leaf
    })
    expect(Array.from((w.grad as Tensor).dataSync(), Number)).toEqual([2, 4])
  })

  it('follows an async body and leaves other tasks alone', async () => {
    const before = memoryStats().liveTensors
    const work = tidy(async () => {
      const x = randn([2])
      await new Promise((resolve) => setTimeout(resolve, 5))
      return x.add(1).mul(2)
    })
    const other = tensor([7])
    const y = await work
    expect(other.item()).toBe(7)
    expect(memoryStats().liveTensors).toBe(before + 2)
    y.dispose()
    other.dispose()
    expect(() => tidy(() => Promise.resolve(1))).toThrow(/expected an async function/)
  })

  it('is what Symbol.dispose does for one tensor', () => {
    const x = tensor([1])
    x[Symbol.dispose]()
    expect(x.isDisposed).toBe(true)
  })
})
