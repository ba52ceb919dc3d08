/** What root loads on this kernel without a token. */
import { readFileSync } from 'node:fs'
import { loadObject } from '../../../src/ebpf/load/object.ts'
import { type ObjectSpec, parseObject } from '../../../src/ebpf/object/spec.ts'
import { BpftokenError } from '../../../src/errors.ts'
import { type CorpusObject, corpusFile } from '../../corpus/corpus.ts'
import { privateBpffs } from '../ebpf/fixture.ts'

/** The object as data where it loads, else why not. What was loaded is gone again, its pins too. */
export async function loadAsRoot(object: CorpusObject): Promise<ObjectSpec | BpftokenError> {
  const loaded = await tagsAsRoot(object)
  return loaded instanceof BpftokenError ? loaded : loaded.spec
}

/** The same with the tag of each program, by its name. */
export async function tagsAsRoot(
  object: CorpusObject,
): Promise<{ spec: ObjectSpec; tags: ReadonlyMap<string, string> } | BpftokenError> {
  using bpffs = privateBpffs()
  try {
    const spec = parseObject(readFileSync(corpusFile(object)), { name: object.name })
    const loaded = await loadObject(spec, { token: null, pinRoot: bpffs.path })
    const tags = new Map([...loaded.programs].map(([name, program]) => [name, program.info().tag]))
    loaded[Symbol.dispose]()
    return { spec, tags }
  } catch (error) {
    if (error instanceof BpftokenError) return error
    throw error
  }
}
