import { PassThrough } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { durationText, Progress, scoresText } from '../../src/train/progress.js'

function record(isTTY: boolean) {
  const pass = new PassThrough()
  const chunks: string[] = []
  pass.on('data', (chunk) => chunks.push(String(chunk)))
  const stream = Object.assign(pass, { isTTY, columns: 200 }) as unknown as NodeJS.WriteStream
  return { stream, text: () => chunks.join('') }
}

describe('Progress', () => {
  it('writes a line per epoch where there is no terminal, with the rate since the start', () => {
    const { stream, text } = record(false)
    let clock = 0
    const progress = new Progress({ stream, now: () => clock })
    progress.startEpoch({ epoch: 2, epochs: 5, samples: 6000, done: 1000 })
    clock = 1000
    progress.update(3000, { loss: 0.5, accuracy: 0.75 })
    expect(text()).toBe('')
    clock = 2500
    progress.update(6000, { loss: 0.25, accuracy: 0.9 })
    progress.endTraining({ loss: 0.25, accuracy: 0.9 })
    clock = 9000
    progress.endEpoch({ loss: 0.125, accuracy: 0.9512 })
    expect(text()).toBe(
      'Epoch 2/5 · loss 0.2500 · accuracy 90.00 % · validation loss 0.1250 · accuracy 95.12 %' +
        ' · 2,000 samples/s · 2.5 s\n',
    )
  })

  it('leaves out what was not measured', () => {
    const { stream, text } = record(false)
    const progress = new Progress({ stream, now: () => 0 })
    progress.startEpoch({ epoch: 1, epochs: 1, samples: 10 })
    progress.endTraining({ loss: 1 })
    progress.endEpoch()
    expect(text()).toBe('Epoch 1/1 · loss 1.0000 · 0 samples/s · 0.0 s\n')
  })

  it('draws a bar on a terminal: count, scores, rate, time left, then the validation', () => {
    const { stream, text } = record(true)
    const handlers = process.listenerCount('SIGINT')
    let clock = 0
    const progress = new Progress({ stream, now: () => clock })
    progress.startEpoch({ epoch: 1, epochs: 3, samples: 1000 })
    expect(text()).toContain('Epoch 1/3')
    expect(text()).toContain('0/1000 · loss - · 0 samples/s · - left')
    clock = 2000
    progress.update(250, { loss: 0.5, accuracy: 0.5 })
    clock = 8000
    progress.endTraining({ loss: 0.25, accuracy: 0.75 })
    progress.endEpoch({ loss: 0.125, accuracy: 1 })
    expect(text()).toContain(
      '1000/1000 · loss 0.2500 · accuracy 75.00 % · 125 samples/s · 0 s left',
    )
    expect(text()).toMatch(/\n {2}validation loss 0.1250 · accuracy 100.00 %\n$/)
    expect(process.listenerCount('SIGINT')).toBe(handlers)
  })

  it('can be stopped in mid-epoch and started again', () => {
    const { stream, text } = record(true)
    const progress = new Progress({ stream })
    progress.startEpoch({ epoch: 1, epochs: 2, samples: 4 })
    progress.stop()
    progress.stop()
    progress.startEpoch({ epoch: 2, epochs: 2, samples: 4 })
    progress.stop()
    expect(text()).toContain('Epoch 2/2')
  })
})

describe('texts', () => {
  it('scores with and without accuracy, and NaN', () => {
    expect(scoresText({ loss: 2.00006 })).toBe('loss 2.0001')
    expect(scoresText({ loss: Number.NaN, accuracy: 0 })).toBe('loss NaN · accuracy 0.00 %')
  })

  it('durations in seconds, minutes and hours', () => {
    expect([0.4, 59, 60, 187, 3600, 7387].map(durationText)).toEqual([
      '0 s',
      '59 s',
      '1:00 min',
      '3:07 min',
      '1:00:00 h',
      '2:03:07 h',
    ])
  })
})
