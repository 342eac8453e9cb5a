import { Parameter } from './parameter.js'

/**
 * What a module's fields hold, seen as PyTorch's state dictionaries see it: parameters and modules,
 * one by one or in arrays, maps and plain objects, in the order in which the fields were made.
 */
export interface Members<M> {
  readonly parameters: readonly (readonly [name: string, Parameter])[]
  readonly children: readonly (readonly [name: string, M])[]
}

function* elementsOf(container: object): Iterable<readonly [string, unknown]> {
  if (Array.isArray(container)) yield* container.map((v, i) => [String(i), v] as const)
  else if (container instanceof Map) yield* container
  else if (Object.getPrototypeOf(container) === Object.prototype) yield* Object.entries(container)
}

/** Members of `owner`, whose modules are instances of `kind`. */
export function membersOf<M extends object>(
  owner: object,
  kind: abstract new (...values: never[]) => M,
): Members<M> {
  const parameters: [string, Parameter][] = []
  const children: [string, M][] = []
  const inside = new Set<unknown>()
  const visit = (name: string, value: unknown): void => {
    if (value instanceof Parameter) parameters.push([name, value])
    else if (value instanceof kind) children.push([name, value])
    else if (typeof value === 'object' && value !== null && !inside.has(value)) {
      inside.add(value)
      for (const [key, element] of elementsOf(value)) visit(`${name}.${key}`, element)
      inside.delete(value)
    }
  }
  for (const [name, value] of Object.entries(owner)) visit(name, value)
  return { parameters, children }
}
