// Makes every wrong call of the table, on the device given (cpu or cuda), and writes what came of
// each to the file given, one JSON line per call. A line goes out before its call, so that after a crash the last one names what crashed.
import { openSync, writeSync } from 'node:fs'
import { AdjointError, setDefaultDevice, synchronize, tensor } from '../src/index.js'
import { type Attempt, attemptsOf, names } from './bad-input.table.js'
import { testCuda } from './support/cuda.js'

export interface Outcome {
  readonly name: string
  readonly label: string
  /** The class of the error, or null if there was none. */
  readonly error: string | null
  readonly message: string
  readonly typed: boolean
}

const report = openSync(process.argv[2], 'w')
const print = (line: unknown) => writeSync(report, `${JSON.stringify(line)}\n`)

async function attempt({ name, label, run }: Attempt): Promise<void> {
  print({ name, label })
  let outcome: Outcome = { name, label, error: null, message: '', typed: false }
  try {
    await run()
    // What a kernel finds wrong may be raised only now.
    synchronize()
  } catch (error) {
    const { message, constructor: kind } = error as Error
    const typed = error instanceof AdjointError && kind !== AdjointError
    outcome = { name, label, error: kind.name, message, typed }
  }
  print(outcome)
}

async function main(): Promise<void> {
  if (process.argv[3] === 'cuda') setDefaultDevice(testCuda())
  for (const name of names) {
    const { good, wrong } = attemptsOf(name)
    await attempt(good)
    for (const each of wrong) await attempt(each)
    const sum = tensor([1, 2])
      .add(tensor([3, 4]))
      .sum()
      .item()
    if (sum !== 10) throw new Error(`after ${name} the library computes ${sum} instead of 10`)
  }
  print({ done: true })
}

void main()
