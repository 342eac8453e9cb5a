import { AsyncLocalStorage } from 'node:async_hooks'
import { AutogradError, checkFunction } from './errors.js'

/** Whether ops are recorded. Plain state for synchronous code, which is all that a hot path sees. */
let enabled = true

/** Active only while an async form runs: its flag follows its own awaits and no other task. */
const storage = new AsyncLocalStorage<boolean>()
let asyncScopes = 0

export function isGradEnabled(): boolean {
  if (asyncScopes > 0) return storage.getStore() ?? enabled
  return enabled
}

export function withGradMode<T>(name: string, value: boolean, body: () => T): T {
  const run = (): T => {
    const before = enabled
    enabled = value
    try {
      const result = body()
      if (result instanceof Promise) {
        result.catch(() => undefined)
        throw new AutogradError(
          `${name}: expected a synchronous function, got one that returns a promise; ` +
            `use ${name}Async`,
        )
      }
      return result
    } finally {
      enabled = before
    }
  }
  return asyncScopes > 0 ? storage.run(value, run) : run()
}

async function withGradModeAsync<T>(
  name: string,
  value: boolean,
  body: () => Promise<T>,
): Promise<T> {
  checkFunction(name, body)
  asyncScopes++
  try {
    return await storage.run(value, body)
  } finally {
    asyncScopes--
  }
}

/** Runs `body` without recording gradients. @throws AutogradError if it returns a promise. */
export function noGrad<T>(body: () => T): T {
  checkFunction('noGrad', body)
  return withGradMode('noGrad', false, body)
}

/** Runs `body` with gradients recorded, inside of `noGrad`. */
export function enableGrad<T>(body: () => T): T {
  checkFunction('enableGrad', body)
  return withGradMode('enableGrad', true, body)
}

/** `noGrad` for an async function; other tasks that run meanwhile are not affected. */
export function noGradAsync<T>(body: () => Promise<T>): Promise<T> {
  return withGradModeAsync('noGradAsync', false, body)
}

/** `enableGrad` for an async function. */
export function enableGradAsync<T>(body: () => Promise<T>): Promise<T> {
  return withGradModeAsync('enableGradAsync', true, body)
}
