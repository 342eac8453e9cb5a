import { ArgumentError, checkList, describe, IndexError } from '../core/errors.js'
import type { Tensor } from '../core/tensor.js'
import { fused, isForgetful } from './fusion.js'
import { type Layer, Module } from './module.js'

/** Modules under the names '0', '1', …, as PyTorch's containers have them. */
abstract class ModuleSequence<M extends Module> extends Module implements Iterable<M> {
  protected readonly items: M[] = []

  constructor(modules: Iterable<M>) {
    super()
    checkList(this.constructor.name, 'modules', modules, true)
    for (const module of modules) this.push(module)
  }

  get length(): number {
    return this.items.length
  }

  /** The module at a position; negative ones count from the end. */
  at(position: number): M {
    const module = this.items.at(position)
    if (!Number.isInteger(position) || module === undefined) {
      throw new IndexError(
        `${this.constructor.name}: expected a position within ${this.length} modules, got ` +
          describe(position),
      )
    }
    return module
  }

  push(module: M): this {
    if (!(module instanceof Module)) {
      throw new ArgumentError(
        `${this.constructor.name}: expected a module, got ${describe(module)}`,
      )
    }
    this.items.push(module)
    return this
  }

  [Symbol.iterator](): Iterator<M> {
    return this.items[Symbol.iterator]()
  }

  override namedChildren(): (readonly [name: string, module: Module])[] {
    return this.items.map((module, i) => [String(i), module] as const)
  }
}

/**
 * Layers one after the other. Batch norm, a convolution or a linear layer, followed by ReLU, runs as
 * one kernel, and so does a linear layer followed by GELU; two linear layers with one of these
 * between them are one op, `feedForward`.
 * A value between two layers of this library is freed as soon as nothing needs it any more.
 * @example new nn.Sequential(new nn.Linear(4, 8), new nn.ReLU(), new nn.Linear(8, 2))
 */
export class Sequential extends ModuleSequence<Layer> {
  constructor(...layers: Layer[]) {
    super(layers)
  }

  override forward(x: Tensor): Tensor {
    const { items } = this
    let y = x
    // Values that only this loop knows: the last one and what it is a view of.
    let known: Tensor[] = []
    for (let i = 0; i < items.length; ) {
      const several = fused(items, i)
      const next = several === null ? items[i].forward(y) : several.run(y)
      if (!isForgetful(items[i])) {
        known = []
      } else if (next !== y) {
        if (next.base === null) {
          // The tape holds the memory of those that backward needs.
          for (const t of known) t.dispose()
          known = []
        }
        known.push(next)
      }
      y = next
      i += several === null ? 1 : several.count
    }
    return y
  }
}

/** A list of modules that its owner calls as it likes. A plain array in a field does the same. */
export class ModuleList<M extends Module = Layer> extends ModuleSequence<M> {
  constructor(modules: Iterable<M> = []) {
    super(modules)
  }

  override forward(): never {
    throw new ArgumentError('ModuleList: expected its modules to be called one by one, not itself')
  }
}
