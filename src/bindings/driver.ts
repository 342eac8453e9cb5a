import { existsSync, readFileSync } from 'node:fs'

const VERSION_FILE = '/proc/driver/nvidia/version'
/** Linux with the kernel module, containers that see a GPU, and Windows' subsystem for Linux. */
const TRACES = [VERSION_FILE, '/dev/nvidiactl', '/dev/nvidia0', '/usr/lib/wsl/lib/libcuda.so.1']

/**
 * The NVIDIA driver of this machine, in a line: then an addon for CUDA that is missing or fails is
 * worth a word. Null where there is none. Nothing is loaded for it.
 */
export function nvidiaDriver(): string | null {
  const trace = TRACES.find(existsSync)
  if (trace === undefined) return null
  try {
    return readFileSync(VERSION_FILE, 'utf8').split('\n')[0]
  } catch {
    return trace
  }
}
