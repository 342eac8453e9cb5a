// Resident memory of one network in training, in a fresh process:
// `footprint.mts row precision steps eager|captured`
import { resident } from '../support/measure.mjs'
import { type Precision, stepRows, TrainingStep } from '../support/steps.mjs'

const [name, precision, steps, way] = process.argv.slice(2)
const row = stepRows.find((candidate) => candidate.name === name)
if (!row) throw new Error(`footprint: expected a training step, got ${name}`)
const imported = resident()
const step = new TrainingStep(row, precision as Precision, undefined, way === 'captured')
for (let i = 0; i < Number(steps); i++) step.run()
console.log(JSON.stringify({ imported, after: resident() }))
