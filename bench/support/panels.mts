// Figures over sizes as an SVG picture: a column for each pair of panels, both axes logarithmic.
import { LineChart } from 'echarts/charts'
import { GridComponent, TitleComponent } from 'echarts/components'
import { init, use } from 'echarts/core'
import { SVGRenderer } from 'echarts/renderers'

use([LineChart, GridComponent, TitleComponent, SVGRenderer])

export interface Panel {
  readonly title: string
  /** The axes' names. */
  readonly x: string
  readonly y: string
  readonly points: readonly (readonly [x: number, y: number])[]
}

const PANEL = { width: 480, height: 220 }
const MARGIN = { left: 84, right: 20, top: 45, bottom: 40 }
const TITLE_HEIGHT = 36

/** Two panels a row, in the order given. */
export function panelsSvg(title: string, panels: readonly Panel[]): string {
  const width = 2 * PANEL.width
  const height = TITLE_HEIGHT + PANEL.height * Math.ceil(panels.length / 2)
  const chart = init(null, null, { renderer: 'svg', ssr: true, width, height })
  const at = panels.map((_, i) => ({
    left: (i % 2) * PANEL.width + MARGIN.left,
    top: TITLE_HEIGHT + Math.floor(i / 2) * PANEL.height + MARGIN.top,
  }))
  chart.setOption({
    animation: false,
    backgroundColor: '#fff',
    title: [
      { text: title, left: 'center', top: 8, textStyle: { fontSize: 15 } },
      ...panels.map((panel, i) => ({
        text: panel.title,
        left: at[i].left - MARGIN.left + 8,
        top: at[i].top - MARGIN.top,
        textStyle: { fontSize: 12 },
      })),
    ],
    grid: at.map(({ left, top }) => ({
      left,
      top,
      width: PANEL.width - MARGIN.left - MARGIN.right,
      height: PANEL.height - MARGIN.top - MARGIN.bottom,
    })),
    xAxis: panels.map(({ x, points }, gridIndex) => ({
      gridIndex,
      type: 'log',
      logBase: 2,
      name: x,
      nameLocation: 'middle',
      nameGap: 22,
      min: points[0][0],
      max: points[points.length - 1][0],
    })),
    yAxis: panels.map(({ y }, gridIndex) => ({
      gridIndex,
      type: 'log',
      name: y,
      nameTextStyle: { align: 'left' },
    })),
    series: panels.map(({ points }, panel) => ({
      type: 'line',
      xAxisIndex: panel,
      yAxisIndex: panel,
      color: panel % 2 === 0 ? '#3b6fb6' : '#d1622b',
      data: points,
    })),
  })
  const svg = chart.renderToSVGString()
  chart.dispose()
  return svg
}
