import { ArgumentError, describe } from '../core/errors.js'
import { noGrad } from '../core/grad-mode.js'
import { sameShape, showShape } from '../core/shape.js'
import { Tensor } from '../core/tensor.js'

/** Tensors by PyTorch's keys, such as `layer.0.weight`. */
export type StateDict = { readonly [key: string]: Tensor }

/** Which keys a state dictionary lacked and which nobody asked for. */
export interface LoadResult {
  readonly missingKeys: readonly string[]
  readonly unexpectedKeys: readonly string[]
}

/** A tensor of a module under its key. */
export interface StateEntry {
  readonly key: string
  readonly tensor: Tensor
  /** Whether a dictionary without it is complete. */
  readonly optional: boolean
}

/** Copies a dictionary into a module's tensors, after everything has been checked. */
export function loadEntries(
  owner: string,
  entries: readonly StateEntry[],
  state: StateDict,
  strict: boolean,
): LoadResult {
  if (typeof state !== 'object' || state === null) {
    throw new ArgumentError(`loadStateDict: expected a state dictionary, got ${describe(state)}`)
  }
  const given = new Map<string, unknown>(Object.entries(state))
  const known = new Set(entries.map(({ key }) => key))
  const missingKeys = entries
    .filter(({ key, optional }) => !given.has(key) && !optional)
    .map(({ key }) => key)
  const unexpectedKeys = [...given.keys()].filter((key) => !known.has(key))

  const wrong: string[] = []
  for (const { key, tensor } of entries) {
    const value = given.get(key)
    if (!given.has(key)) continue
    if (!(value instanceof Tensor)) wrong.push(`${key}: a tensor, got ${describe(value)}`)
    else if (value.isDisposed) wrong.push(`${key}: a live tensor, got a disposed one`)
    else if (!sameShape(value.shape, tensor.shape)) {
      wrong.push(`${key}: shape ${showShape(tensor.shape)}, got ${showShape(value.shape)}`)
    }
  }
  const problems = [
    ...(strict && missingKeys.length > 0 ? [`missing keys: ${missingKeys.join(', ')}`] : []),
    ...(strict && unexpectedKeys.length > 0
      ? [`unexpected keys: ${unexpectedKeys.join(', ')}`]
      : []),
    ...wrong.map((line) => `expected ${line}`),
  ]
  if (problems.length > 0) {
    throw new ArgumentError(
      `loadStateDict: expected a state dictionary of ${owner}, got one with\n  ` +
        problems.join('\n  '),
    )
  }
  noGrad(() => {
    for (const { key, tensor } of entries) {
      const value = given.get(key)
      if (value instanceof Tensor) tensor.copy_(value)
    }
  })
  return { missingKeys, unexpectedKeys }
}
