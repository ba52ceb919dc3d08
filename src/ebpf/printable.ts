/** Names that a file gives, which may be anything, as text that neither ends a line nor moves a terminal's cursor. Pure. */

const MAX_CHARS = 128

/** The name, with what is not printable ASCII as `\u{...}`; cut where it is very long. */
export function printable(name: string): string {
  const cut = name.length > MAX_CHARS ? `${name.slice(0, MAX_CHARS - 3)}...` : name
  return cut.replace(/[^\x20-\x7e]/gu, char => `\\u{${char.codePointAt(0)!.toString(16)}}`)
}

/** The same in quotes. */
export function quoted(name: string): string {
  return `"${printable(name)}"`
}
