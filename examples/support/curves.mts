// The loss and accuracy of a training run over its epochs, as an SVG picture.
import { LineChart } from 'echarts/charts'
import { GridComponent, LegendComponent, TitleComponent } from 'echarts/components'
import { init, use } from 'echarts/core'
import { SVGRenderer } from 'echarts/renderers'

use([LineChart, GridComponent, LegendComponent, TitleComponent, SVGRenderer])

/** One row per epoch; accuracies from 0 to 1. */
export interface CurvePoint {
  epoch: number
  loss: number
  accuracy: number
  validationLoss: number
  validationAccuracy: number
}

const WIDTH = 960
const HEIGHT = 420

/** Two panels side by side: loss on the left, accuracy in percent on the right. */
export function curvesSvg(title: string, history: readonly CurvePoint[]): string {
  const chart = init(null, null, { renderer: 'svg', ssr: true, width: WIDTH, height: HEIGHT })
  const panels = [
    { name: 'Loss', left: 60, train: 'loss', validation: 'validationLoss', scale: 1 },
    {
      name: 'Accuracy (%)',
      left: WIDTH / 2 + 60,
      train: 'accuracy',
      validation: 'validationAccuracy',
      scale: 100,
    },
  ] as const
  const line = (panel: number, name: string, key: keyof CurvePoint, color: string) => ({
    type: 'line' as const,
    name,
    xAxisIndex: panel,
    yAxisIndex: panel,
    color,
    data: history.map((point) => [point.epoch, point[key] * panels[panel].scale]),
  })
  chart.setOption({
    animation: false,
    backgroundColor: '#fff',
    title: { text: title, left: 'center', top: 8 },
    legend: { bottom: 8, itemGap: 30, data: ['training', 'validation'] },
    grid: panels.map(({ left }) => ({ left, width: WIDTH / 2 - 90, top: 80, bottom: 85 })),
    xAxis: panels.map((_, gridIndex) => ({
      gridIndex,
      type: 'value',
      name: 'Epoch',
      nameLocation: 'middle',
      nameGap: 26,
      min: 1,
      max: Math.max(2, ...history.map((point) => point.epoch)),
      minInterval: 1,
    })),
    yAxis: panels.map(({ name }, gridIndex) => ({
      gridIndex,
      type: 'value',
      name,
      nameLocation: 'end',
      scale: true,
    })),
    series: panels.flatMap(({ train, validation }, panel) => [
      line(panel, 'training', train, '#3b6fb6'),
      line(panel, 'validation', validation, '#d1622b'),
    ]),
  })
  const svg = chart.renderToSVGString()
  chart.dispose()
  return svg
}
