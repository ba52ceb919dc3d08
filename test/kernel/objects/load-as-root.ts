/** What root loads on this kernel without a token. */
import { readFileSync } from 'node:fs'
import { loadObject } from '../../../src/ebpf/load/object.ts'
import { type ObjectSpec, parseObject } from '../../../src/ebpf/object/spec.ts'
import { BpftokenError } from '../../../src/errors.ts'
import { type CorpusObject, corpusFile } from '../../corpus/corpus.ts'
import { privateBpffs } from '../ebpf/fixture.ts'

/** The object as data where it loads, else why not. What was loaded is gone again, its pins too. */
export async function loadAsRoot(object: CorpusObject): Promise<ObjectSpec | BpftokenError> {
  using bpffs = privateBpffs()
  try {
    const spec = parseObject(readFileSync(corpusFile(object)), { name: object.name })
    const loaded = await loadObject(spec, { token: null, pinRoot: bpffs.path })
    loaded[Symbol.dispose]()
    return spec
  } catch (error) {
    if (error instanceof BpftokenError) return error
    throw error
  }
}
