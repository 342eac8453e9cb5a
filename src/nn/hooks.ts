/** What hooks ask of a module, from inputs I to an output O. */
export interface Callable<I extends readonly unknown[], O> {
  forward(...inputs: I): O
}

/** Sees the inputs and the output of a forward; what it returns, if anything, replaces the output. */
// biome-ignore lint/suspicious/noConfusingVoidType: a hook that only looks has no return statement
export type ForwardHook<M, I, O> = (module: M, inputs: I, output: O) => O | undefined | void

/** Sees the inputs of a forward; an array that it returns replaces them. */
// biome-ignore lint/suspicious/noConfusingVoidType: a hook that only looks has no return statement
export type ForwardPreHook<M, I> = (module: M, inputs: I) => I | undefined | void

interface Entry<M, I, O> {
  readonly before?: ForwardPreHook<M, I>
  readonly after?: ForwardHook<M, I, O>
}

/**
 * The hooks of one module. The first one wraps `forward` on the instance, and the last one removed
 * unwraps it: a module without hooks is called directly.
 */
export class Hooks<M extends Callable<never, unknown>> {
  private readonly entries: Entry<M, unknown[], unknown>[] = []
  /** A `forward` that stood on the instance itself, as a field. */
  private own: PropertyDescriptor | undefined

  constructor(private readonly module: M) {}

  add(entry: Entry<M, unknown[], unknown>): () => void {
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
    const inner = module.forward as (...inputs: unknown[]) => unknown
    const forward = (...args: unknown[]): unknown => {
      const entries = [...this.entries]
      let inputs = args
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
