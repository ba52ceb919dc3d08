/** bpftoken obj types: a TypeScript file of an object's maps, events, variables and programs. */
import { basename } from 'node:path'
import { parseObject } from '../../ebpf/object/spec.ts'
import { objectBindings } from '../../ebpf/typed/bindings.ts'
import { EXIT, UsageError } from '../../errors.ts'
import { readObjectFile } from '../object-files.ts'
import { note, print, printJson } from '../output.ts'
import { outputFile, writeOutput } from '../output-file.ts'

export interface ObjTypesOptions {
  output?: string
  name?: string
  eventType?: string[]
  type?: string[]
  chars: 'text' | 'bytes'
  embed?: boolean
  json?: boolean
}

export function types(file: string, options: ObjTypesOptions): number {
  const bytes = readObjectFile(file)
  const name = options.name ?? basename(file).replace(/(?:\.bpf)?\.o$/, '')
  const { text, types: declared } = objectBindings(parseObject(bytes, { name }), {
    name,
    header: 'Written by `bpftoken obj types`. Write it again when the object changes.',
    chars: options.chars,
    events: Object.fromEntries((options.eventType ?? []).map(parseEvent)),
    types: options.type ?? [],
    ...(options.embed === true ? { embed: bytes } : {}),
  })
  const output = outputFile(options)
  if (output !== undefined) writeOutput(output, text)
  if (options.json === true) printJson({ output: output ?? null, text, types: Object.fromEntries(declared) })
  else if (output === undefined) print(...text.trimEnd().split('\n'))
  else note(`${output}: ${declared.size} types`)
  return EXIT.ok
}

/** `MAP=TYPE`. */
function parseEvent(text: string): [map: string, type: string] {
  const [, map, type] = /^([^=]+)=(.+)$/s.exec(text) ?? []
  if (map !== undefined && type !== undefined) return [map, type]
  throw new UsageError(`--event-type takes MAP=TYPE, not ${JSON.stringify(text)}`, {
    hint: 'For example --event-type events=event',
  })
}
