/** What libbpf loads on this kernel as root, object by object, we load too. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BpftokenError } from '../../../src/errors.ts'
import { corpusFile, corpusObjects } from '../../corpus/corpus.ts'
import { askOracle, needsOracle } from '../../corpus/oracle.ts'
import { isRoot } from '../../helpers/machine.ts'
import { loadAsRoot } from './load-as-root.ts'

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
      const result = await loadAsRoot(object)
      const ours = !(result instanceof BpftokenError)
      if (theirs && !ours) missing.push(`${object.name} (${object.hash}): ${result.message}`)
      counts[theirs ? (ours ? 'both' : 'libbpf only') : ours ? 'we only' : 'neither of us']++
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
