import { describe, expect, it } from 'vitest'
import { curvesSvg } from '../examples/support/curves.mjs'

describe('curvesSvg', () => {
  it('draws four labelled lines on two titled panels', () => {
    const history = [1, 2, 3].map((epoch) => ({
      epoch,
      loss: 1 / epoch,
      accuracy: 1 - 0.2 / epoch,
      validationLoss: 1.2 / epoch,
      validationAccuracy: 1 - 0.25 / epoch,
    }))
    const svg = curvesSvg('Digits & <more>', history)
    expect(svg).toMatch(/^<svg [^>]*width="960"/)
    for (const text of ['Digits &amp; &lt;more&gt;', 'Loss', 'Accuracy (%)', 'Epoch']) {
      expect(svg).toContain(`>${text}</text>`)
    }
    expect(svg).toContain('>training</text>')
    expect(svg).toContain('>validation</text>')
    const strokes = svg.match(/<path [^>]*fill="none"[^>]*stroke="#(3b6fb6|d1622b)"[^>]*>/g)
    expect(strokes?.length).toBeGreaterThanOrEqual(4)
  })

  it('draws a run of one epoch', () => {
    const point = { epoch: 1, loss: 1, accuracy: 0.5, validationLoss: 1, validationAccuracy: 0.5 }
    expect(curvesSvg('One', [point])).toContain('</svg>')
  })
})
