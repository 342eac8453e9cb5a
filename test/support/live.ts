import { collectGarbage, type Device, memoryStats } from '../../src/index.js'

interface Live {
  readonly tensors: number
  readonly nodes: number
  readonly bytes: number
}

export const nothing: Live = { tensors: 0, nodes: 0, bytes: 0 }

/** Tensors, tape nodes and bytes that stay after a full collection. */
export function live(at?: Device): Live {
  collectGarbage(at)
  const { liveTensors, liveNodes, liveBytes } = memoryStats(at)
  return { tensors: liveTensors, nodes: liveNodes, bytes: liveBytes }
}

/** What a body leaves behind; it runs in a frame of its own, so that none of its values stay. */
export function leftBy(body: () => void, at?: Device): Live {
  const before = live(at)
  body()
  const after = live(at)
  return {
    tensors: after.tensors - before.tensors,
    nodes: after.nodes - before.nodes,
    bytes: after.bytes - before.bytes,
  }
}
