/** Files that the command line names to be written. */
import { writeFileSync } from 'node:fs'
import { NotFoundError } from '../errors.ts'
import { hintFor } from '../uapi/hints.ts'

/** The file that -o names; undefined: none, and the answer goes to standard output, as `-` says. */
export function outputFile({ output }: { readonly output?: string }): string | undefined {
  return output === '-' ? undefined : output
}

/** Writes the whole file anew. */
export function writeOutput(path: string, contents: string | Uint8Array): void {
  try {
    writeFileSync(path, contents)
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code === undefined) throw cause
    throw new NotFoundError(`Cannot write "${path}": ${code}`, {
      context: { file: path, errno: code },
      hint: hintFor('open', code) ?? 'Name a file in a directory that is there',
    })
  }
}
