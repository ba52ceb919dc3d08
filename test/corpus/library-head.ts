/** The comment at the top of a policy of the library. Pure. */
import type { Tool } from './library-tools.ts'

const COLUMNS = 100

/** `how`: by what it was made. Ends with an empty line of a comment. */
export function libraryHead({ does, cannot }: Pick<Tool, 'does' | 'cannot'>, how: string): string[] {
  const head = [
    `${does[0]!.toUpperCase()}${does.slice(1)}.`,
    `Made by ${how}.`,
    'What it does not give:',
    ...cannot.map(one => `- ${one}.`),
  ]
  return [...head.flatMap(comment), '#']
}

function comment(text: string): string[] {
  const lines: string[] = []
  const indent = text.startsWith('- ') ? '  ' : ''
  for (const word of text.split(' ')) {
    const last = lines.at(-1)
    if (last !== undefined && `# ${last} ${word}`.length <= COLUMNS)
      lines[lines.length - 1] = `${last} ${word}`
    else lines.push(last === undefined ? word : `${indent}${word}`)
  }
  return lines.map(line => `# ${line}`)
}
