// The PyTorch process: starts torch_peer.py and asks it, one request at a time.
import { type ChildProcess, spawn } from 'node:child_process'
import path from 'node:path'
import { createInterface, type Interface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

const script = path.join(path.dirname(fileURLToPath(import.meta.url)), 'torch_peer.py')

/** How the peer differs from PyTorch as its users write it. */
export interface Variant {
  readonly fused?: boolean
  readonly channels_last?: boolean
  readonly compile?: boolean
  /** The optimizer by operators that take all parameters, the default on a GPU. */
  readonly foreach?: boolean
  /** Gradients are clipped to norm 1. */
  readonly clips?: boolean
  /** Of a GPU: float32 products may be rounded to TF32. */
  readonly tf32?: boolean
}

/** What the script can open, with its arguments. */
export type Workload =
  | {
      kind: 'step'
      arguments: {
        network: string
        state: string
        batch: string
        variant: Variant
        precision: string
      }
    }
  | { kind: 'forward'; arguments: { network: string; state: string; batch: string } }
  | { kind: 'add'; arguments: { gradient: boolean; repeat: number } }
  | { kind: 'chain'; arguments: { size: number } }
  | { kind: 'product'; arguments: { file: string; layout: string } }
  | { kind: 'elementwise'; arguments: { op: string; size: number } }
  | {
      kind: 'gpu op'
      arguments: {
        op: string
        sizes: readonly number[]
        dtype: string
        tf32: boolean
        backward: boolean
      }
    }

export interface TorchFacts {
  readonly version: string
  readonly threads: number
  readonly capability: string
}

/** On `meta` tensors have shapes and no elements: operators are dispatched and compute nothing. */
export type TorchDevice = 'cpu' | 'cuda' | 'meta'

/** What the peer could not do; a row says so and the others go on. */
export class PeerError extends Error {}

/** libgomp's threads spin for some milliseconds after their work; nobody else computes until then. */
const SETTLE_MS = 40
/** A neighbour can make libgomp a thousand times slower. */
const TURN_LIMIT_MS = 600_000

export class Torch {
  #id = 0
  #waiting: ((line: string | null) => void) | null = null
  #ended = false

  private constructor(
    private readonly process: ChildProcess,
    lines: Interface,
    /** What is waited before and after a turn. */
    readonly settleMs: number,
  ) {
    lines.on('line', (line) => this.#waiting?.(line))
    process.on('error', () => this.#end())
    process.on('exit', () => this.#end())
  }

  /**
   * The interpreter is `ADJOINT_PYTHON`, default `python3`.
   * @throws PeerError where it or PyTorch is missing
   */
  static async start(
    threads: number,
    environment: Readonly<Record<string, string>> = {},
    device: TorchDevice = 'cpu',
  ): Promise<{ torch: Torch; facts: TorchFacts }> {
    const python = process.env.ADJOINT_PYTHON ?? 'python3'
    const child = spawn(python, [script, String(threads), device], {
      env: { ...process.env, OMP_NUM_THREADS: String(threads), ...environment },
      stdio: ['pipe', 'pipe', process.env.ADJOINT_PEER_LOG ? 'inherit' : 'ignore'],
    })
    const torch = new Torch(
      child,
      createInterface({ input: child.stdout }),
      device === 'cuda' ? 0 : SETTLE_MS,
    )
    try {
      return { torch, facts: await torch.ask<TorchFacts>({ do: 'hello' }, 120_000) }
    } catch {
      torch.stop()
      throw new PeerError(
        `${python} does not start PyTorch ` +
          '(pip install torch; ADJOINT_PYTHON names the interpreter)',
      )
    }
  }

  /** @throws PeerError where the peer fails, or is not done in time: then it is stopped */
  async ask<T>(request: Readonly<Record<string, unknown>>, milliseconds = 120_000): Promise<T> {
    if (this.#ended) throw new PeerError('PyTorch has ended')
    const line = await new Promise<string | null>((resolve) => {
      const timer = setTimeout(() => resolve(null), milliseconds)
      this.#waiting = (answer) => {
        clearTimeout(timer)
        resolve(answer)
      }
      this.process.stdin?.write(`${JSON.stringify(request)}\n`)
    })
    this.#waiting = null
    if (line === null) {
      const why = this.#ended ? 'PyTorch has ended' : `no answer within ${milliseconds / 1000} s`
      this.stop()
      throw new PeerError(why)
    }
    const answer = JSON.parse(line) as { value: T } | { error: string }
    if ('error' in answer) throw new PeerError(answer.error)
    return answer.value
  }

  async open(workload: Workload): Promise<Opened> {
    const id = String(this.#id++)
    await this.ask({ do: 'open', id, ...workload })
    return new Opened(this, id)
  }

  get ended(): boolean {
    return this.#ended
  }

  stop(): void {
    this.process.kill('SIGKILL')
    this.#end()
  }

  #end(): void {
    this.#ended = true
    this.#waiting?.(null)
  }
}

/** A workload that the peer holds ready. */
export class Opened {
  constructor(
    private readonly torch: Torch,
    private readonly id: string,
  ) {}

  ask<T>(what: string, request: Readonly<Record<string, unknown>> = {}, ms?: number): Promise<T> {
    return this.torch.ask<T>({ do: what, id: this.id, ...request }, ms)
  }

  /** Milliseconds of each of `count` runs after one that is not counted. */
  async timed(count: number): Promise<number> {
    await pause(this.torch.settleMs)
    const seconds = await this.ask<number>('timed', { count }, TURN_LIMIT_MS)
    await pause(this.torch.settleMs)
    return (1000 * seconds) / count
  }

  async close(): Promise<void> {
    if (!this.torch.ended) await this.ask('close')
  }
}
