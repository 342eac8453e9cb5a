/** What hooks ask of a module. */
interface Callable {
  forward(...inputs: never[]): unknown
}

/** Sees the inputs and the output of a forward; what it returns, if anything, replaces the output. */
export type ForwardHook<M extends Callable> = (
  module: M,
  inputs: Parameters<M['forward']>,
  output: ReturnType<M['forward']>,
) => ReturnType<M['forward']> | undefined

/** Sees the inputs of a forward; an array that it returns replaces them. */
export type ForwardPreHook<M extends Callable> = (
  module: M,
  inputs: Parameters<M['forward']>,
) => Parameters<M['forward']> | undefined

interface Entry<M extends Callable> {
  readonly before?: ForwardPreHook<M>
  readonly after?: ForwardHook<M>
}

/**
 * The hooks of one module. The first one wraps `forward` on the instance, and the last one removed
 * unwraps it: a module without hooks is called directly.
 */
export class Hooks<M extends Callable> {
  private readonly entries: Entry<M>[] = []
  /** A `forward` that stood on the instance itself, as a field. */
  private own: PropertyDescriptor | undefined

  constructor(private readonly module: M) {}

  add(entry: Entry<M>): () => void {
    if (this.entries.length === 0) this.wrap()
    this.entries.push(entry)
    return () => {
      const at = this.entries.indexOf(entry)
      if (at < 0) return
      this.entries.splice(at, 1)
      if (this.entries.length === 0) this.unwrap()
    }
  }

  private wrap(): void {
    const { module } = this
    this.own = Object.getOwnPropertyDescriptor(module, 'forward')
    const inner = module.forward as (...inputs: unknown[]) => ReturnType<M['forward']>
    const forward = (...args: unknown[]): unknown => {
      const entries = [...this.entries]
      let inputs = args as Parameters<M['forward']>
      for (const { before } of entries) inputs = before?.(module, inputs) ?? inputs
      let output = inner.apply(module, inputs)
      for (const { after } of entries) output = after?.(module, inputs, output) ?? output
      return output
    }
    Object.defineProperty(module, 'forward', {
      value: forward,
      writable: true,
      configurable: true,
      enumerable: false,
    })
  }

  private unwrap(): void {
    if (this.own) Object.defineProperty(this.module, 'forward', this.own)
    else delete (this.module as Partial<M>).forward
  }
}
