/**
 * The shell blocks of a document. One marked `sh` is run as it stands; one with a further word,
 * such as `sh developer`, needs an environment that the test for that word makes.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT } from './machine.ts'

export interface ShellBlock {
  readonly name: string | undefined
  readonly script: string
}

export function shellBlocks(document: string): ShellBlock[] {
  const text = readFileSync(join(ROOT, document), 'utf8')
  return [...text.matchAll(/^```sh(?: (\w+))?\n([\s\S]*?)^```/gm)].map(([, name, script]) => ({
    name,
    script: script!,
  }))
}

/** The commands of the one block of that name, each a line. */
export function commandsOf(document: string, name: string): string[] {
  const found = shellBlocks(document).filter(block => block.name === name)
  if (found.length !== 1) throw new Error(`${document} has ${found.length} blocks "sh ${name}"`)
  return found[0]!.script
    .trim()
    .replaceAll(/ \\\n\s*/g, ' ')
    .split('\n')
}
