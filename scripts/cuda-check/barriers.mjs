// Where the kernels wait for each other: the places that a mutation deletes one at a time.
/**
 * @typedef {object} Barrier
 * @property {string} file of native/cuda
 * @property {number} line
 * @property {string} within the function or the class that holds it
 * @property {number} nth of that function's barriers, from 1
 * @property {string} text the statement
 * @property {number} start of the statement in the file
 */

// What stands for a barrier: CUDA's own, and the waits for asynchronous copies. A function that only
// calls these is a barrier at each of its calls too (awaitTiles).
const BARRIER =
  /\b(__syncthreads|__syncwarp|__threadfence\w*|(?:waitForCopies|cp_async_wait)(?:<[^>]*>)?|commitCopies|awaitTiles)\([^()]*\);/g

/** Comments become blanks, so that places stay what they are. */
function withoutComments(source) {
  return source.replace(/\/\/.*|\/\*[\s\S]*?\*\//g, (comment) => comment.replace(/[^\n]/g, ' '))
}

/** The name of what a brace opens, from the text since the last statement: '' for a namespace. */
function nameOf(head) {
  if (/\bnamespace\b[^;]*$/.test(head)) return ''
  const words = [...head.matchAll(/(\w+)\((?![&*])/g)].map((match) => match[1])
  const name = words.find((word) => !/^(__launch_bounds__|alignas|sizeof|decltype)$/.test(word))
  return name ?? /\b(?:struct|class)\s+(\w+)/.exec(head)?.[1] ?? '?'
}

/** The bodies that stand in no other body: name, first and last place. */
function bodiesOf(text) {
  const bodies = []
  let depth = 0 // below the namespaces
  let head = 0
  for (let i = 0; i < text.length; i++) {
    if (text[i] === '{') {
      if (depth > 0) {
        depth++
        continue
      }
      const name = nameOf(text.slice(head, i))
      if (name !== '') {
        depth = 1
        bodies.push({ name, start: i, end: text.length })
      }
      head = i + 1
    } else if (text[i] === '}') {
      if (depth > 0) depth--
      if (depth === 0 && bodies.length > 0) {
        const last = bodies[bodies.length - 1]
        if (last.end === text.length) last.end = i
      }
      head = i + 1
    } else if (text[i] === ';' && depth === 0) {
      head = i + 1
    }
  }
  return bodies
}

/**
 * The barriers of a file, in order. What defines one of them is none: `void waitForCopies() {`.
 * @returns {Barrier[]}
 */
export function barriersOf(source, file) {
  const text = withoutComments(source)
  const bodies = bodiesOf(text)
  const counts = new Map()
  return [...text.matchAll(BARRIER)].map((match) => {
    const within = bodies.find(({ start, end }) => start < match.index && match.index < end)?.name
    const name = within ?? '?'
    const nth = (counts.get(name) ?? 0) + 1
    counts.set(name, nth)
    return {
      ...{ file, within: name, nth, text: match[0], start: match.index },
      line: text.slice(0, match.index).split('\n').length,
    }
  })
}

/** The source without the barrier; an empty statement stays, so that lines are what they were. */
export function without(source, barrier) {
  return (
    source.slice(0, barrier.start) +
    ';'.padEnd(barrier.text.length) +
    source.slice(barrier.start + barrier.text.length)
  )
}
