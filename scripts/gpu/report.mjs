// The last stage of run.sh: one page from the logs of the others, named after the card.
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'

const STAGES = ['facts', 'build', 'selftest', 'suite', 'examples', 'sanitizers', 'bench']
const out = process.argv[2]
const read = (name) => {
  const file = path.join(out, name)
  return existsSync(file) ? readFileSync(file, 'utf8') : ''
}
/** The lines that say how many tests there were. */
const counts = (log) =>
  [
    ...log.matchAll(
      /^.*(?:tests? from \d+|\[ {2}(?:PASSED|FAILED) {2}\] \d+|Tests {2,}\d|ERROR SUMMARY).*$/gm,
    ),
  ]
    .map(([line]) => line.trim())
    .slice(-12)

const facts = read('facts.log')
const [card = 'unknown'] = facts.split('\n')[0].split(',')
const lines = [
  `# ${card}`,
  '',
  '```',
  facts.trim(),
  '```',
  '',
  '| stage | result | seconds |',
  '| --- | --- | ---: |',
]
for (const stage of STAGES) {
  const passed = existsSync(path.join(out, `${stage}.passed`))
  const ran = existsSync(path.join(out, `${stage}.log`))
  const result = passed ? 'passed' : ran ? 'failed' : 'not run'
  lines.push(`| ${stage} | ${result} | ${passed ? read(`${stage}.passed`).trim() : ''} |`)
}
for (const stage of ['selftest', 'suite', 'sanitizers']) {
  const found = counts(read(`${stage}.log`))
  if (found.length > 0) lines.push('', `## ${stage}`, '', '```', ...found, '```')
}
if (read('gpu.md')) lines.push('', '## bench/gpu', '', read('gpu.md').trim())
const name = card
  .toLowerCase()
  .replace(/[^a-z0-9]+/g, '-')
  .replace(/^-|-$/g, '')
const file = path.join(out, `gpu-${name}.md`)
writeFileSync(file, `${lines.join('\n')}\n`)
console.log(`wrote ${file}`)
