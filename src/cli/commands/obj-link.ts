/** bpftoken obj link: several object files made one. */
import { linkObjects } from '../../ebpf/static-link/static-linker.ts'
import { EXIT, UsageError } from '../../errors.ts'
import { readObjectFile } from '../object-files.ts'
import { note, printBytes, printJson, stdoutIsTerminal, warn } from '../output.ts'
import { outputFile, writeOutput } from '../output-file.ts'

export interface ObjLinkOptions {
  output: string
  json?: boolean
}

export function link(files: string[], options: ObjLinkOptions): number {
  const { json } = options
  const output = outputFile(options)
  if (output === undefined && (json === true || stdoutIsTerminal()))
    throw new UsageError(
      json === true
        ? 'Standard output cannot have both the object and a JSON document'
        : 'An object is nothing that a terminal can show',
      { hint: 'Name a file with -o, or lead standard output into one' },
    )
  const inputs = files.map(name => ({ name, bytes: readObjectFile(name) }))
  const { bytes, unresolved } = linkObjects(inputs)
  if (output === undefined) printBytes(bytes)
  else writeOutput(output, bytes)
  if (json === true) printJson({ output, sizeBytes: bytes.length, unresolved })
  else note(`${output ?? 'standard output'}: ${bytes.length} bytes of ${files.length} objects`)
  for (const name of unresolved)
    warn(`nobody defines "${name}": link it with an object that does, before it is loaded`)
  return EXIT.ok
}
