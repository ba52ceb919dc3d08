/** What libbpf loads on this kernel as root, object by object, we load too. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { loadObject } from '../../../src/ebpf/load/object.ts'
import { parseObject } from '../../../src/ebpf/object/spec.ts'
import { BpftokenError } from '../../../src/errors.ts'
import { type CorpusObject, corpusFile, corpusObjects } from '../../corpus/corpus.ts'
import { askOracle, needsOracle } from '../../corpus/oracle.ts'
import { isRoot } from '../../helpers/machine.ts'
import { privateBpffs } from '../ebpf/fixture.ts'

/** Undefined: loaded; else why not. What was loaded is gone again, its pins too. */
async function refusal(object: CorpusObject): Promise<string | undefined> {
  using bpffs = privateBpffs()
  try {
    const spec = parseObject(readFileSync(corpusFile(object)), { name: object.name })
    const loaded = await loadObject(spec, { token: null, pinRoot: bpffs.path })
    loaded[Symbol.dispose]()
    return undefined
  } catch (error) {
    if (!(error instanceof BpftokenError)) throw error
    return error.message
  }
}

test(
  'every object that libbpf loads here, we load',
  isRoot ? needsOracle() : { skip: 'needs root' },
  async t => {
    const objects = corpusObjects()
    const answers = askOracle('load', objects.map(corpusFile))
    const counts = { both: 0, 'neither of us': 0, 'libbpf only': 0, 'we only': 0 }
    const missing: string[] = []
    for (const [i, object] of objects.entries()) {
      const theirs = answers[i]!.error === 0
      const why = await refusal(object)
      if (theirs && why !== undefined) missing.push(`${object.name} (${object.hash}): ${why}`)
      counts[
        theirs
          ? why === undefined
            ? 'both'
            : 'libbpf only'
          : why === undefined
            ? 'we only'
            : 'neither of us'
      ]++
    }
    t.diagnostic(
      `of ${objects.length} objects: ${Object.entries(counts)
        .map(([who, n]) => `${who} ${n}`)
        .join(', ')}`,
    )
    assert.deepEqual(missing, [])
    assert.ok(counts.both > 0)
  },
)
