/** bpftoken obj link: several object files made one. */
import { linkObjects } from '../../ebpf/static-link/static-linker.ts'
import { EXIT } from '../../errors.ts'
import { readObjectFile } from '../object-files.ts'
import { note, printJson, warn } from '../output.ts'
import { writeOutput } from '../output-file.ts'

export interface ObjLinkOptions {
  output: string
  json?: boolean
}

export function link(files: string[], { output, json }: ObjLinkOptions): number {
  const inputs = files.map(name => ({ name, bytes: readObjectFile(name) }))
  const { bytes, unresolved } = linkObjects(inputs)
  writeOutput(output, bytes)
  if (json === true) printJson({ output, sizeBytes: bytes.length, unresolved })
  else note(`${output}: ${bytes.length} bytes of ${files.length} objects`)
  for (const name of unresolved)
    warn(`nobody defines "${name}": link it with an object that does, before it is loaded`)
  return EXIT.ok
}
