import { AsyncLocalStorage } from 'node:async_hooks'
import { AutogradError, checkFunction } from './errors.js'
import { checkTensor, type Tensor } from './tensor.js'

/** Tensors made since the innermost synchronous `tidy` began; null outside of any. */
let synchronous: Tensor[] | null = null

/** The list of the async `tidy` that this task runs in; read only while there is one. */
const storage = new AsyncLocalStorage<Tensor[]>()
let asyncScopes = 0

function currentScope(): Tensor[] | null {
  if (synchronous !== null) return synchronous
  return asyncScopes > 0 ? (storage.getStore() ?? null) : null
}

/** Called by every new tensor. */
export function track(t: Tensor): void {
  if (synchronous !== null) synchronous.push(t)
  else if (asyncScopes > 0) storage.getStore()?.push(t)
}

/** Takes a tensor out of the scopes that would dispose it. */
export function keep<T extends Tensor>(t: T): T {
  checkTensor('keep', t)
  const scope = currentScope()
  const at = scope?.lastIndexOf(t) ?? -1
  if (at >= 0) scope?.splice(at, 1)
  return t
}

/** The tensors in a result, however deep in arrays and plain objects. */
function tensorsIn(value: unknown, found: Set<unknown>): void {
  if (typeof value !== 'object' || value === null || found.has(value)) return
  found.add(value)
  if (Array.isArray(value) || value instanceof Set) {
    for (const item of value) tensorsIn(item, found)
  } else if (value instanceof Map) {
    for (const item of value.values()) tensorsIn(item, found)
  } else if (Object.getPrototypeOf(value) === Object.prototype) {
    for (const item of Object.values(value)) tensorsIn(item, found)
  }
}

function close(made: Tensor[], outer: Tensor[] | null, result: unknown): void {
  const kept = new Set<unknown>()
  tensorsIn(result, kept)
  for (const t of made) {
    if (!kept.has(t) && !t.isHeld) t.dispose()
    else if (outer !== null) outer.push(t)
  }
}

async function tidyAsync<T>(body: () => Promise<T>): Promise<T> {
  const outer = currentScope()
  const made: Tensor[] = []
  let result: T | undefined
  asyncScopes++
  try {
    result = await storage.run(made, body)
    return result
  } finally {
    asyncScopes--
    close(made, outer, result)
  }
}

/**
 * Runs `body` and disposes the tensors made in it, at once, but for those that it returns (alone,
 * or in arrays, maps and plain objects), leaves that require a gradient, and gradients. Never
 * needed: memory is reclaimed without it. `body` may be an async function; tensors that other
 * tasks make meanwhile are left alone.
 */
export function tidy<T>(body: () => T): T {
  checkFunction('tidy', body)
  if (Object.prototype.toString.call(body) === '[object AsyncFunction]') {
    return tidyAsync(body as () => Promise<unknown>) as T
  }
  const outer = synchronous
  const parent = currentScope()
  const made: Tensor[] = []
  synchronous = made
  let result: T | undefined
  try {
    result = body()
    if (result instanceof Promise) {
      result.catch(() => undefined)
      throw new AutogradError(
        'tidy: expected an async function, got one that returns a promise without being async',
      )
    }
    return result
  } finally {
    synchronous = outer
    close(made, parent, result)
  }
}
