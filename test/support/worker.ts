import { Worker } from 'node:worker_threads'

/** Starts a TypeScript file in a worker. */
export function startWorker(file: string, argv: readonly string[] = []): Worker {
  const source = `require('tsx/cjs'); require(${JSON.stringify(file)})`
  return new Worker(source, { eval: true, argv: [...argv] })
}
