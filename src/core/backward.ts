import { deferWatching } from '../bindings/unwatched.js'
import { withoutAutocast } from './autocast.js'
import { engineOps } from './engine-ops.js'
import { ArgumentError, AutogradError, DeviceError, describe, ShapeError } from './errors.js'
import { withGradMode } from './grad-mode.js'
import { recording } from './recording.js'
import { keep } from './scope.js'
import { sameShape, showShape } from './shape.js'
import { type Edge, LeafNode, type Node } from './tape.js'
import { checkTensor, Tensor } from './tensor.js'

export interface BackwardOptions {
  /** Keeps the saved values for another walk; default: `createGraph`. */
  retainGraph?: boolean
  /** Records the walk itself, so that gradients can be differentiated; default false. */
  createGraph?: boolean
}

const FEW_NODES = 64

let searches = 0

/** All nodes that lead from the roots to leaves, newest first: a topological order. */
function reachable(roots: readonly Edge[]): Node[] {
  const search = ++searches
  const nodes: Node[] = []
  const stack = roots.map((edge) => edge.node)
  for (let node = stack.pop(); node !== undefined; node = stack.pop()) {
    if (node.foundBy === search) continue
    node.foundBy = search
    nodes.push(node)
    const { edges } = node
    for (let i = 0; i < edges.length; i++) {
      const edge = edges[i]
      if (edge !== null && edge.node.foundBy !== search) stack.push(edge.node)
    }
  }
  return newestFirst(nodes)
}

/** Sorts a few nodes, which are nearly in order, by insertion: at a tenth of the price of `sort`. */
function newestFirst(nodes: Node[]): Node[] {
  if (nodes.length > FEW_NODES) return nodes.sort((a, b) => b.id - a.id)
  for (let i = 1; i < nodes.length; i++) {
    const node = nodes[i]
    let at = i
    for (; at > 0 && nodes[at - 1].id < node.id; at--) nodes[at] = nodes[at - 1]
    nodes[at] = node
  }
  return nodes
}

/** Of nodes sorted newest first, those from which one of the targets can be reached. */
function leadingTo(nodes: readonly Node[], targets: readonly Edge[]): Set<Node> {
  const needed = new Set<Node>(targets.map((edge) => edge.node))
  for (let i = nodes.length - 1; i >= 0; i--) {
    if (nodes[i].edges.some((edge) => edge !== null && needed.has(edge.node))) needed.add(nodes[i])
  }
  return needed
}

function place(g: Tensor, node: Node, index: number): void {
  g.uses++
  if (node.inbox === null && index === 0) {
    node.inbox = [g]
    return
  }
  node.inbox ??= []
  while (node.inbox.length < index) node.inbox.push(null)
  node.inbox[index] = g
}

/**
 * One walk of the tape. `Tensor.uses` counts in how many inboxes a gradient stands; a gradient that
 * others may hold counts once more. After a walk that threw, some counts stay too high: then those
 * gradients are left to the collector.
 */
class Walk {
  constructor(private readonly createGraph: boolean) {}

  /** A gradient that somebody else may hold: never freed or taken over. */
  markForeign(g: Tensor): void {
    g.uses++
  }

  /** Adds a gradient of the value at `edge`, summed to its shape if it was broadcast. */
  send(edge: Edge, gradient: Tensor, from: string): void {
    let g = gradient
    if (g.device !== edge.device) {
      throw new DeviceError(
        `backward: expected ${from} to give a gradient on ${edge.device}, got one on ${g.device}`,
      )
    }
    if (g.dtype !== edge.dtype && g.dtype !== edge.wideDType) g = engineOps.cast(g, edge.dtype)
    if (!sameShape(g.shape, edge.shape)) {
      if (g.ndim < edge.shape.length) {
        throw new ShapeError(
          `backward: expected ${from} to give a gradient of shape ${showShape(edge.shape)}, got ` +
            showShape(g.shape),
        )
      }
      g = engineOps.sumTo(g, edge.shape)
    }
    const { node, index } = edge
    const before = node.inbox?.[index] ?? null
    if (before === null) {
      place(g, node, index)
      return
    }
    place(engineOps.add(before, g), node, index)
    this.drop(before)
    if (g !== gradient) this.freeIfUnused(g)
  }

  /** One use less; the last frees the memory at once rather than at the next collection. */
  drop(g: Tensor): void {
    g.uses--
    this.freeIfUnused(g)
  }

  private freeIfUnused(g: Tensor): void {
    if (g.uses <= 0 && !this.createGraph && g.slot === null) g.device.calls.discard(g)
  }

  /** Whether only this place of an inbox refers to the gradient, and it is no view. */
  private isOwned(g: Tensor): boolean {
    return g.uses === 1 && g.base === null && g.isContiguous
  }

  /**
   * Adds to a leaf's gradient. What the walk alone holds is taken over, else copied: no two leaves
   * share memory, and with createGraph the graph refers to everything.
   */
  accumulate(node: LeafNode, g: Tensor): void {
    const { slot } = node
    recording()?.touch(slot, slot.grad === null ? 'started' : 'added')
    if (this.createGraph) slot.isShared = true
    if (slot.grad === null) {
      const owned = !this.createGraph && this.isOwned(g) && node.hooks === null
      slot.grad = keep(owned ? g : engineOps.clone(g))
      if (owned) g.uses++
    } else if (this.createGraph) {
      slot.grad = keep(engineOps.add(slot.grad, g))
    } else {
      engineOps.addInPlace(slot.grad, g)
    }
    this.drop(g)
  }
}

/** Runs hooks and keeps what `retainGrad` asked for; the gradients may be replaced. */
function visit(node: Node, dys: (Tensor | null)[], walk: Walk): void {
  if (node.hooks === null && node.retained === null) return
  for (const [index, hooks] of node.hooks ?? []) {
    const g = dys[index]
    if (!g) continue
    let current: Tensor = g
    // A copy: a hook may remove itself.
    for (const hook of [...hooks]) {
      const replaced = hook(current)
      if (!replaced) continue
      if (!(replaced instanceof Tensor)) {
        throw new ArgumentError(`hook: expected a tensor or nothing, got ${describe(replaced)}`)
      }
      if (replaced.device !== current.device) {
        throw new DeviceError(
          `hook: expected a gradient on ${current.device}, got one on ${replaced.device}`,
        )
      }
      if (!sameShape(replaced.shape, current.shape)) {
        throw new ShapeError(
          `hook: expected a gradient of shape ${showShape(current.shape)}, got ` +
            showShape(replaced.shape),
        )
      }
      current = replaced
    }
    walk.markForeign(g)
    walk.markForeign(current)
    dys[index] = current
  }
  for (const [index, slot] of node.retained ?? []) {
    const g = dys[index]
    if (!g) continue
    slot.grad = keep(slot.grad === null ? engineOps.clone(g) : engineOps.add(slot.grad, g))
  }
}

/**
 * Walks the tape from `roots`. Without `targets`, gradients end in the leaves; with them, they are
 * returned, in their order, and leaves stay as they are.
 */
export function walkBack(
  roots: readonly Edge[],
  gradients: readonly Tensor[],
  options: BackwardOptions,
  targets?: readonly Edge[],
): (Tensor | null)[] {
  const createGraph = options.createGraph ?? false
  const retainGraph = options.retainGraph ?? createGraph
  const walk = new Walk(createGraph)
  const results = new Array<Tensor | null>(targets?.length ?? 0).fill(null)
  const run = () => {
    const nodes = reachable(roots)
    // A hook may start a walk inside of a walk.
    const interrupted = nodes.map((node) => node.inbox)
    for (const node of nodes) node.inbox = null
    try {
      return walkNodes(nodes)
    } finally {
      nodes.forEach((node, i) => {
        node.inbox = interrupted[i]
      })
    }
  }
  const walkNodes = (nodes: readonly Node[]) => {
    const needed = targets === undefined ? null : leadingTo(nodes, targets)
    roots.forEach((edge, i) => {
      walk.markForeign(gradients[i])
      walk.send(edge, gradients[i], 'the caller')
    })
    for (const node of nodes) {
      const dys = node.inbox
      node.inbox = null
      if (dys === null || needed?.has(node) === false) continue
      visit(node, dys, walk)
      targets?.forEach((target, i) => {
        const g = target.node === node ? dys[target.index] : null
        if (g) {
          walk.markForeign(g)
          results[i] = keep(g)
        }
      })
      if (node instanceof LeafNode) {
        if (targets === undefined && dys[0]) walk.accumulate(node, dys[0])
        continue
      }
      runNode(node, dys, walk, needed, createGraph)
      if (!retainGraph) node.release()
      for (let i = 0; i < dys.length; i++) dys[i]?.device.calls.flush()
    }
    return results
  }
  return withoutAutocast(() => withGradMode('backward', createGraph, () => deferWatching(run)))
}

function runNode(
  node: Node,
  dys: (Tensor | null)[],
  walk: Walk,
  needed: Set<Node> | null,
  createGraph: boolean,
): void {
  const { edges, name } = node
  if (!leadsOn(edges, needed) || dys.every((g) => g === null)) return
  const grads = node.backward(dys, createGraph)
  for (let i = 0; i < edges.length; i++) {
    const g = grads[i]
    if (g && isWanted(edges[i], needed)) walk.send(edges[i] as Edge, g, name)
  }
  for (let i = 0; i < dys.length; i++) {
    const g = dys[i]
    if (g) walk.drop(g)
  }
}

function isWanted(edge: Edge | null, needed: Set<Node> | null): boolean {
  return edge !== null && (needed === null || needed.has(edge.node))
}

function leadsOn(edges: readonly (Edge | null)[], needed: Set<Node> | null): boolean {
  for (let i = 0; i < edges.length; i++) if (isWanted(edges[i], needed)) return true
  return false
}

/** The edges of tensors that must require gradients. */
export function edgesOf(op: string, tensors: readonly Tensor[]): Edge[] {
  if (!Array.isArray(tensors)) {
    throw new ArgumentError(`${op}: expected a list of tensors, got ${describe(tensors)}`)
  }
  return tensors.map((t) => {
    checkTensor(op, t).checkLive(op)
    const edge = t.gradEdge()
    if (edge === null) {
      throw new AutogradError(
        `${op}: expected a tensor that requires a gradient, got one that does not`,
      )
    }
    return edge
  })
}
