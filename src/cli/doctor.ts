import { readFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { nvidiaDriver } from '../bindings/driver.js'
import { packageRoot } from '../bindings/locate.js'
import {
  type Device,
  type DeviceType,
  defaultDevice,
  device,
  loadFailures,
} from '../core/device.js'

function packageVersion(): string {
  const text = readFileSync(path.join(packageRoot, 'package.json'), 'utf8')
  return (JSON.parse(text) as { version: string }).version
}

function tryDevice(type: DeviceType): Device | null {
  try {
    return device(type)
  } catch {
    return null
  }
}

/** What stands for a device: every addon that was tried and why it failed, and its facts. */
function describeDevice(type: DeviceType): [string, string][] {
  const found = tryDevice(type)
  const failed = loadFailures(type).map(({ path, reason }): [string, string] => [path, reason])
  if (!found) return failed
  return [...failed, ['addon', found.addonPath], ...Object.entries(found.native.deviceInfo())]
}

function whereTensorsGo(): string {
  const { type, index, native } = defaultDevice()
  const gpu = index === 0 ? 'the GPU' : `GPU ${index}`
  return type === 'cpu' ? 'the CPU' : `${gpu}, ${native.deviceInfo().device}`
}

/** Prints what was found and why; returns 0 if tensors can be computed with, else 1. */
export function doctor(out: { write(text: string): unknown }): number {
  const cpu = os.cpus()
  const sections: [string, [string, string][]][] = [
    [
      'adjoint',
      [
        ['version', packageVersion()],
        ['package', packageRoot],
        ['node', `${process.version} (Node-API ${process.versions.napi})`],
        ['platform', `${process.platform}-${process.arch} ${os.release()}`],
        ['processor', `${cpu[0]?.model.trim() ?? 'unknown'}, ${cpu.length} logical`],
        ['memory', `${(os.totalmem() / 2 ** 30).toFixed(1)} GiB`],
        ...Object.entries(process.env)
          .filter(([name]) => name.startsWith('ADJOINT_'))
          .map(([name, value]): [string, string] => [name, value ?? '']),
      ],
    ],
    ['cpu', describeDevice('cpu')],
    ['cuda', [['driver', nvidiaDriver() ?? 'none found'], ...describeDevice('cuda')]],
  ]
  for (const [title, rows] of sections) {
    out.write(`${title}\n`)
    const width = Math.min(24, Math.max(...rows.map(([name]) => name.length)))
    for (const [name, value] of rows) out.write(`  ${name.padEnd(width)}  ${value}\n`)
  }
  if (tryDevice('cpu') === null) {
    out.write('not ready. Build it with:  npx adjoint build\n')
    return 1
  }
  out.write(`ready: tensors run on ${whereTensorsGo()}\n`)
  return 0
}
