/**
 * Patterns of names, by picomatch, cut down to what a policy needs: `*` and `**`.
 *
 * A policy decides who gets rights, so a pattern must mean what it seems to mean. All other
 * characters stand for themselves: braces, brackets, `?`, `!`, quotes and the backslash, which the
 * names of systemd units contain (`a\x2db.service`). Upper and lower case differ. Names come from
 * whoever is judged, and a regular expression with many wildcards takes very long on a hostile
 * name, so both are bounded.
 */
import type picomatch from 'picomatch'

/**
 * `path`: `*` stands for any characters within one component, also for none, and `**`, which must
 * be a whole component, for any number of components, also for none: `/a/**` matches `/a` and
 * `/a/b/c`. `text`: `*` stands for any characters, `/` included, and there is no `**`.
 */
export type GlobKind = 'path' | 'text'

/**
 * The time grows with the length to the power of the wildcards: here, some tenths of a second at
 * worst.
 */
const MAX_WILDCARDS = 3
const MAX_NAME_LENGTH: Readonly<Record<GlobKind, number>> = { path: 1024, text: 256 }

/** A name with such a character is not compared, because it would not be what it looks like. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/

/** What is wrong with a pattern; undefined for a good one. */
export function globFault(pattern: string, kind: GlobKind): string | undefined {
  if (CONTROL.test(pattern)) return 'a pattern has no control characters'
  if (pattern.length > MAX_NAME_LENGTH[kind])
    return `a pattern has at most ${MAX_NAME_LENGTH[kind]} characters`
  if ((pattern.match(/\*+/g)?.length ?? 0) > MAX_WILDCARDS)
    return `a pattern has at most ${MAX_WILDCARDS} wildcards`
  if (kind === 'text') return pattern.includes('**') ? '`**` stands for components of a path only' : undefined
  if (!pattern.startsWith('/')) return 'a path begins with /'
  const components = pattern === '/' ? [] : pattern.slice(1).split('/')
  if (components.some(component => ['', '.', '..'].includes(component)))
    return 'a path has no empty components, no `.` and no `..`'
  if (components.some(component => component.includes('**') && component !== '**'))
    return '`**` stands for whole components'
  return undefined
}

/** Why a name cannot be compared with any pattern; undefined for one that can. */
export function nameFault(name: string, kind: GlobKind): string | undefined {
  if (CONTROL.test(name)) return 'it has control characters'
  if (kind === 'path' && !name.startsWith('/')) return 'it is not an absolute path'
  const longest = MAX_NAME_LENGTH[kind]
  return name.length > longest ? `it is longer than ${longest} characters` : undefined
}

/**
 * Whether the pattern matches all of the name. Fail closed: a faulty pattern or name matches
 * nothing.
 */
export function globMatches(pattern: string, name: string, kind: GlobKind): boolean {
  if (globFault(pattern, kind) !== undefined || nameFault(name, kind) !== undefined) return false
  if (!pattern.includes('*')) return pattern === name
  // picomatch takes a last `**` for no component only where no `*` stands before it.
  if (kind === 'path' && pattern.endsWith('/**') && globMatches(pattern.slice(0, -3), name, kind)) return true
  return regexOf(forPicomatch(pattern, kind)).test(forPicomatch(name, kind))
}

/**
 * What every name begins with that the pattern matches, or, without wildcards, what it is.
 * Undefined: the pattern is faulty, and matches nothing.
 */
export function globStart(
  pattern: string,
  kind: GlobKind,
): { readonly text: string; readonly isWhole: boolean } | undefined {
  if (globFault(pattern, kind) !== undefined) return undefined
  const wildcard = pattern.indexOf('*')
  if (wildcard < 0) return { text: pattern, isWhole: true }
  // `/a/**` also matches `/a`.
  const isDeep = kind === 'path' && pattern.startsWith('**', wildcard)
  return { text: pattern.slice(0, isDeep ? wildcard - 1 : wildcard), isWhole: false }
}

/**
 * `globMatches` for one pattern and many names that have no `nameFault`: most are told apart by the
 * text before the first wildcard or behind the last, and the expression is made once.
 */
export function globMatcher(pattern: string, kind: GlobKind): (name: string) => boolean {
  const start = globStart(pattern, kind)
  if (start === undefined) return () => false
  const { text, isWhole } = start
  if (isWhole) return name => name === text
  const end = pattern.slice(pattern.lastIndexOf('*') + 1)
  const shorter =
    kind === 'path' && pattern.endsWith('/**') ? globMatcher(pattern.slice(0, -3), kind) : undefined
  let regex: RegExp | undefined
  return name => {
    if (!name.startsWith(text) || !name.endsWith(end)) return false
    if (shorter?.(name) === true) return true
    regex ??= regexOf(forPicomatch(pattern, kind))
    return regex.test(forPicomatch(name, kind))
  }
}

/**
 * Pattern or name, as picomatch has to see it. It takes `**` for any number of components only
 * without the slash before it, ends `*` at a slash, and makes one backslash of several. No name has
 * U+0001 or U+0002, which stand for the two.
 */
function forPicomatch(text: string, kind: GlobKind): string {
  const literal = text.replaceAll('\\', '\u0002')
  return kind === 'path' ? literal.slice(1) : literal.replaceAll('/', '\u0001')
}

function regexOf(pattern: string): RegExp {
  // Loaded at the first wildcard: loading takes 4 ms, and each `run` would feel that.
  const { makeRe } = require('picomatch') as typeof picomatch
  // Only the expression is taken, not picomatch's matcher, which also accepts a name that is
  // literally equal to the pattern: here the pattern has backslashes that no name may bring along.
  return makeRe(pattern.replace(/[^\w/*-]/g, '\\$&'), OPTIONS)
}

const OPTIONS = {
  dot: true,
  nobrace: true,
  nobracket: true,
  noextglob: true,
  nonegate: true,
  fastpaths: false,
  windows: false,
  flags: 's',
} as const satisfies picomatch.PicomatchOptions
