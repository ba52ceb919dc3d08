/** What patch(1) takes: the difference of two texts that differ in one place. Pure. */

const CONTEXT = 3

/** Lines of a unified diff with one hunk, from the first line that differs to the last. Empty: none does. */
export function unifiedDiff(file: string, before: string, after: string): string[] {
  if (before === after) return []
  const [a, b] = [linesOf(before), linesOf(after)]
  let same = 0
  while (same < Math.min(a.length, b.length) && a[same] === b[same]) same++
  let end = 0
  while (end < Math.min(a.length, b.length) - same && a.at(-1 - end) === b.at(-1 - end)) end++
  const from = Math.max(same - CONTEXT, 0)
  const more = Math.min(end, CONTEXT)
  const hunk = [
    ...a.slice(from, same).map(line => ` ${line}`),
    ...a.slice(same, a.length - end).map(line => `-${line}`),
    ...b.slice(same, b.length - end).map(line => `+${line}`),
    ...a.slice(a.length - end, a.length - end + more).map(line => ` ${line}`),
  ]
  const range = (lines: readonly string[]) => {
    const count = lines.length - end + more - from
    return `${count === 0 ? from : from + 1},${count}`
  }
  return [`--- ${file}`, `+++ ${file}`, `@@ -${range(a)} +${range(b)} @@`, ...hunk.flatMap(shown)]
}

/** Each with its end of line, which the last one may lack. */
function linesOf(text: string): string[] {
  return text.match(/[^\n]*\n|[^\n]+$/g) ?? []
}

function shown(line: string): string[] {
  return line.endsWith('\n') ? [line.slice(0, -1)] : [line, '\\ No newline at end of file']
}
