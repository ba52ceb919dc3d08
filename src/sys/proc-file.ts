/**
 * Text files of the kernel, read by the one line end and the one separator that it has. Pure.
 *
 * A process chooses its name, and whoever makes a cgroup chooses that one's. The kernel lets both
 * hold every character but a line feed (in /proc/PID/status it escapes that one), so that a regular
 * expression with the flag `m`, for which \r, U+2028 and U+2029 end a line, reads a name as lines.
 */

/**
 * The lines `KEY: VALUE` of such a file (/proc/PID/status, /proc/PID/fdinfo/FD), up to the first
 * colon of each; values without the blanks around them. A key that is there twice is not given.
 */
export function procFields(text: string): ProcFields {
  // There are sixty in a status, of which few are asked for.
  const lines = `\n${text}\n`
  return {
    get(key) {
      const begin = `\n${key}:`
      const at = lines.indexOf(begin)
      if (at < 0 || key.includes(':') || lines.indexOf(begin, at + 1) >= 0) return undefined
      return withoutBlanks(lines.slice(at + begin.length, lines.indexOf('\n', at + 1)))
    },
    has(key) {
      return this.get(key) !== undefined
    },
  }
}

/** All of them, where somebody wants to know which there are. */
export function allProcFields(text: string): ReadonlyMap<string, string> {
  const fields = procFields(text)
  const keys = text
    .split('\n')
    .flatMap(line => (line.includes(':') ? [line.slice(0, line.indexOf(':'))] : []))
  const found = new Map<string, string>()
  for (const key of keys) {
    const value = fields.get(key)
    if (value !== undefined) found.set(key, value)
  }
  return found
}

export interface ProcFields {
  get(key: string): string | undefined
  has(key: string): boolean
}

/** Decimal numbers between blanks; undefined where there is anything else. */
export function procNumbers(value: string): number[] | undefined {
  const words = value.split(/[ \t]+/).filter(word => word !== '')
  return words.every(word => /^\d{1,10}$/.test(word)) ? words.map(Number) : undefined
}

/**
 * The path in the hierarchy of version 2 that /proc/PID/cgroup gives, `0::PATH`, as its reader sees
 * it: it may end in ` (deleted)`. Undefined: there is none, or more than one.
 */
export function cgroup2Path(text: string): string | undefined {
  const lines = text.split('\n').filter(line => line.startsWith('0::'))
  return lines.length === 1 ? lines[0]!.slice('0::'.length) : undefined
}

/** The kernel's blanks. Those of `trim` are many more, and may be part of a name. */
function withoutBlanks(text: string): string {
  let from = 0
  let to = text.length
  while (from < to && isBlank(text.charCodeAt(from))) from++
  while (to > from && isBlank(text.charCodeAt(to - 1))) to--
  return text.slice(from, to)
}

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09
}
