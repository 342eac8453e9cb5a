import { requiresGrad_ } from '../core/autograd.js'
import { type DeviceLike, device as findDevice } from '../core/device.js'
import { checkDType, type DType, dtypeCodes, isFloating } from '../core/dtype.js'
import { ArgumentError, checkFunction, checkOptions, DTypeError, describe } from '../core/errors.js'
import { keep } from '../core/scope.js'
import { dropGrads } from '../core/tape.js'
import { Tensor } from '../core/tensor.js'
import { type Callable, type ForwardHook, type ForwardPreHook, Hooks } from './hooks.js'
import { membersOf } from './members.js'
import { convertInPlace, Parameter } from './parameter.js'
import { type LoadResult, loadEntries, type StateDict, type StateEntry } from './state-dict.js'

export interface BufferOptions {
  /** Whether state dictionaries hold it; default true. */
  persistent?: boolean
  /** Whether a state dictionary may lack it, as those of older versions do; default false. */
  optional?: boolean
}

interface Buffer extends Required<BufferOptions> {
  readonly tensor: Tensor
}

/** Where a module converts its floating tensors to. */
export type ModuleTarget = DType | DeviceLike | { dtype?: DType; device?: DeviceLike }

/**
 * A part of a network. Parameters and modules in fields are found as they are, also in arrays, maps
 * and plain objects (private `#fields` are not); buffers are registered. A module is called by its
 * `forward`.
 * @example
 * class Net extends nn.Module {
 *   layer = new nn.Linear(4, 2)
 *   forward(x: Tensor): Tensor {
 *     return this.layer.forward(x).relu()
 *   }
 * }
 */
export abstract class Module {
  /** Whether layers such as dropout act as in training; set by `train()` and `eval()`. */
  training = true
  readonly #buffers = new Map<string, Buffer>()
  readonly #hooks = new Hooks<Module>(this)

  abstract forward(...inputs: never[]): unknown

  // ------------------------------------------------------------------ members

  /**
   * Makes a tensor that is not learned part of the state, and returns it: keep it in a field.
   * @example readonly mask = this.registerBuffer('mask', ones([4, 4]))
   */
  registerBuffer(name: string, tensor: Tensor, options: BufferOptions = {}): Tensor {
    if (!(tensor instanceof Tensor) || tensor instanceof Parameter) {
      throw new ArgumentError(`registerBuffer: expected a tensor, got ${describe(tensor)}`)
    }
    if (typeof name !== 'string' || name === '' || name.includes('.') || this.#buffers.has(name)) {
      throw new ArgumentError(
        `registerBuffer: expected a new name without dots, got ${describe(name)}`,
      )
    }
    checkOptions('registerBuffer', options)
    const { persistent = true, optional = false } = options
    this.#buffers.set(name, { tensor: keep(tensor), persistent, optional })
    return tensor
  }

  /** The modules in this one's fields, with the names by which they are reached. */
  namedChildren(): (readonly [name: string, module: Module])[] {
    return [...membersOf<Module>(this, Module).children]
  }

  children(): Module[] {
    return this.namedChildren().map(([, module]) => module)
  }

  /** This module (named '') and all inside of it, parents first, each once. */
  namedModules(): [name: string, module: Module][] {
    const seen = new Set<Module>()
    return this.#tree().filter(([, module]) => !seen.has(module) && seen.add(module))
  }

  modules(): Module[] {
    return this.namedModules().map(([, module]) => module)
  }

  /** All parameters, each once, by the names of the state dictionary. */
  namedParameters(): [name: string, parameter: Parameter][] {
    const seen = new Set<Parameter>()
    return this.namedModules().flatMap(([prefix, module]) =>
      membersOf<Module>(module, Module)
        .parameters.filter(([, p]) => !seen.has(p) && seen.add(p))
        .map(([name, p]): [string, Parameter] => [join(prefix, name), p]),
    )
  }

  parameters(): Parameter[] {
    return this.namedParameters().map(([, parameter]) => parameter)
  }

  /** All buffers, each once. */
  namedBuffers(): [name: string, buffer: Tensor][] {
    const seen = new Set<Tensor>()
    return this.namedModules().flatMap(([prefix, module]) =>
      [...module.#buffers]
        .filter(([, { tensor }]) => !seen.has(tensor) && seen.add(tensor))
        .map(([name, { tensor }]): [string, Tensor] => [join(prefix, name), tensor]),
    )
  }

  buffers(): Tensor[] {
    return this.namedBuffers().map(([, buffer]) => buffer)
  }

  /**
   * Every place of a module below this one, with shared modules at each of theirs. A module inside
   * of itself (a field that leads back to its parent) is left out.
   */
  #tree(prefix = '', ancestors: readonly Module[] = []): [string, Module][] {
    const path = [...ancestors, this]
    const below = this.namedChildren()
      .filter(([, child]) => !path.includes(child))
      .flatMap(([name, child]) => child.#tree(join(prefix, name), path))
    return [[prefix, this], ...below]
  }

  // ------------------------------------------------------------------ state

  #entries(): StateEntry[] {
    return this.#tree().flatMap(([prefix, module]) => [
      ...membersOf<Module>(module, Module).parameters.map(([name, tensor]) => ({
        key: join(prefix, name),
        tensor,
        optional: false,
      })),
      ...[...module.#buffers]
        .filter(([, { persistent }]) => persistent)
        .map(([name, { tensor, optional }]) => ({ key: join(prefix, name), tensor, optional })),
    ])
  }

  /**
   * Parameters and persistent buffers by PyTorch's keys, in its order. The tensors share the
   * module's memory and take no part in gradients.
   */
  stateDict(): StateDict {
    return Object.fromEntries(this.#entries().map(({ key, tensor }) => [key, tensor.detach()]))
  }

  /**
   * Copies values into the parameters and buffers, converting dtypes; all of them or, on an error,
   * none. With `strict: false`, keys may be missing or unexpected; they are returned.
   * @throws ArgumentError that lists missing and unexpected keys and shapes that do not fit
   */
  loadStateDict(state: StateDict, options: { strict?: boolean } = {}): LoadResult {
    checkOptions('loadStateDict', options)
    return loadEntries(this.constructor.name, this.#entries(), state, options.strict ?? true)
  }

  // ------------------------------------------------------------------ modes

  /** Sets training (or with false, evaluation) mode here and below. */
  train(mode = true): this {
    for (const module of this.modules()) module.training = mode
    return this
  }

  /** Sets evaluation mode: dropout passes, batch norm uses its running averages. */
  eval(): this {
    return this.train(false)
  }

  /** Whether the parameters are to be learned; with false they are frozen. */
  requiresGrad_(value = true): this {
    for (const p of this.parameters()) requiresGrad_(p, value)
    return this
  }

  /** Drops all gradients. */
  zeroGrad(): void {
    dropGrads(this.parameters())
  }

  /** Calls `f` with every module below and then with this one, as for initialisation. */
  apply(f: (module: Module) => void): this {
    checkFunction('apply', f)
    for (const module of this.modules().reverse()) f(module)
    return this
  }

  /**
   * Converts floating parameters and buffers to a dtype, or moves all to a device. The tensors stay
   * the same objects, so that optimizers go on with them.
   */
  to(target: ModuleTarget): this {
    const { dtype, device } = parseTarget(target)
    for (const t of [...this.parameters(), ...this.buffers()]) {
      convertInPlace(t, (x) => {
        const moved = device === undefined ? x : x.to(device)
        return dtype !== undefined && isFloating(x.dtype) ? moved.to(dtype) : moved
      })
    }
    return this
  }

  // ------------------------------------------------------------------ hooks

  /**
   * Calls `hook` with the module, the inputs and the output of each forward; what it returns, if
   * anything, replaces the output. Returns what removes it.
   */
  registerForwardHook<I extends readonly unknown[], O>(
    this: Module & Callable<I, O>,
    hook: ForwardHook<Module, I, NoInfer<O>>,
  ): () => void {
    return this.#hooks.add({ after: hook as unknown as ForwardHook<Module, unknown[], unknown> })
  }

  /** As `registerForwardHook`, before: an array that it returns replaces the inputs. */
  registerForwardPreHook<I extends readonly unknown[] | []>(
    this: Module & Callable<I, unknown>,
    hook: ForwardPreHook<Module, I>,
  ): () => void {
    return this.#hooks.add({ before: hook as unknown as ForwardPreHook<Module, unknown[]> })
  }

  // ------------------------------------------------------------------ printing

  /** What stands in the parentheses of this layer when it is printed. */
  protected describe(): string {
    return ''
  }

  toString(): string {
    const children = this.namedChildren()
    const head = this.describe()
    if (children.length === 0) return `${this.constructor.name}(${head})`
    const lines = children.map(([name, child]) => `(${name}): ${child}`.replaceAll('\n', '\n  '))
    return `${this.constructor.name}(${head}\n  ${lines.join('\n  ')}\n)`
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return this.toString()
  }
}

/** A module from one tensor to one tensor, as most layers are. */
export type Layer = Module & { forward(x: Tensor): Tensor }

function join(prefix: string, name: string): string {
  return prefix === '' ? name : `${prefix}.${name}`
}

function parseTarget(target: ModuleTarget): { dtype?: DType; device?: DeviceLike } {
  let parsed: { dtype?: DType; device?: DeviceLike }
  if (typeof target === 'string') {
    parsed = target in dtypeCodes ? { dtype: target as DType } : { device: target }
  } else if (typeof target === 'object' && target !== null) {
    parsed = 'native' in target ? { device: target } : target
  } else {
    throw new ArgumentError(`to: expected a dtype or a device, got ${describe(target)}`)
  }
  if (parsed.dtype !== undefined && !isFloating(checkDType('to', parsed.dtype))) {
    throw new DTypeError(`to: expected a floating dtype for a module, got ${parsed.dtype}`)
  }
  return { ...parsed, device: parsed.device && findDevice(parsed.device) }
}
