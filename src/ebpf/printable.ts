/**
 * Makes text that others chose (names in files, paths, names of programs) harmless: the result ends
 * no line, moves no terminal's cursor, and hides nothing. Pure. Only this file knows which
 * characters do such things.
 */

/**
 * Everything of category C (controls, format characters such as those of direction, lone
 * surrogates, private use, unassigned), line and paragraph separators, blanks other than the space,
 * what is drawn as nothing, U+FFFD, which stands for bytes that are no UTF-8, and what is written
 * from right to left, since a terminal then shows what stands beside it in another order.
 */
const UNPRINTABLE =
  '[\\p{C}\\p{Zl}\\p{Zp}\\p{Default_Ignorable_Code_Point}\\u00a0\\u1680\\u2000-\\u200a\\u202f\\u205f\\u2800\\u3000\\ufffd' +
  '\\u0590-\\u08ff\\ufb1d-\\ufdff\\ufe70-\\ufeff\\u{10800}-\\u{10fff}\\u{1e800}-\\u{1efff}]'

/**
 * Of most text nothing is unprintable, as this tells without the classes of Unicode, which take
 * milliseconds to compile.
 */
const PLAIN = /^[\x20-\x7e]*$/
const PLAIN_LINES = /^[\n\x20-\x7e]*$/

/**
 * The text with all that is not printable as `\u{...}`: one line, whatever it was. What it gives,
 * it leaves alone.
 */
export function printable(text: string): string {
  return PLAIN.test(text) ? text : text.replace(unprintable(), escaped)
}

let compiled: RegExp | undefined

function unprintable(): RegExp {
  compiled ??= new RegExp(UNPRINTABLE, 'gu')
  return compiled
}

function escaped(char: string): string {
  return `\\u{${char.codePointAt(0)!.toString(16)}}`
}

/** A JSON document with the same characters as `\uXXXX`: the same document, for a terminal too. */
export function printableJson(document: string): string {
  if (PLAIN_LINES.test(document)) return document
  return document.replace(unprintable(), char => {
    // JSON may be broken into lines, and escapes controls below the space by itself.
    if (char === '\n') return char
    const units = Array.from({ length: char.length }, (_, i) => char.charCodeAt(i))
    return units.map(unit => `\\u${unit.toString(16).padStart(4, '0')}`).join('')
  })
}

const MAX_NAME_CHARS = 128

/** A name that a file gives, within a document of ours: in ASCII, and cut where it is very long. */
export function printableName(name: string): string {
  const cut = name.length > MAX_NAME_CHARS ? `${name.slice(0, MAX_NAME_CHARS - 3)}...` : name
  return cut.replace(/[^\x20-\x7e]/gu, escaped)
}

/** The same in quotes. */
export function quoted(name: string): string {
  return `"${printableName(name)}"`
}

/** One word of a POSIX shell, for commands to paste. What is not printable stays within quotes. */
export function shellWord(text: string): string {
  return /^[\w./:@+-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`
}

/** The same for a path, which no command takes for an option. */
export function shellPath(path: string): string {
  return shellWord(path.startsWith('-') ? `./${path}` : path)
}
