/**
 * Patterns for names of functions, as the kernel's and libbpf's: `*` is any text, `?` any
 * character, `[a-c]` one of them, and `[!a-c]` none. Takes time in proportion to both lengths,
 * whatever is in them.
 */
export function glob(pattern: string): (name: string) => boolean {
  const steps = stepsOf(pattern)
  return name => matches(steps, name)
}

/** Whether it names more than itself. */
export function isGlob(name: string): boolean {
  return /[*?[]/.test(name)
}

/** `*`, or what one character must be. */
type Step = '*' | ((char: string) => boolean)

function stepsOf(pattern: string): Step[] {
  return [...pattern.matchAll(/\[(!?)([^\]]+)\]|[\s\S]/g)].map(([one, not, set]): Step => {
    if (set !== undefined) {
      const isIn = inSet(set)
      return char => isIn(char) === (not !== '!')
    }
    if (one === '*') return '*'
    return char => one === '?' || char === one
  })
}

function inSet(set: string): (char: string) => boolean {
  const ranges = [...set.matchAll(/([\s\S])-([\s\S])|[\s\S]/g)].map(([one, from = one, to = one]) => [
    from,
    to,
  ])
  return char => ranges.some(([from, to]) => from! <= char && char <= to!)
}

/**
 * If it does not go on from a star, the star takes one character more; only the last one counts.
 */
function matches(steps: readonly Step[], name: string): boolean {
  let [step, at] = [0, 0]
  let star: { step: number; at: number } | undefined
  while (at < name.length) {
    const next = steps[step]
    if (next === '*') star = { step: step++, at }
    else if (next?.(name[at]!) === true) {
      step++
      at++
    } else if (star !== undefined) {
      star.at++
      step = star.step + 1
      at = star.at
    } else return false
  }
  while (steps[step] === '*') step++
  return step === steps.length
}
