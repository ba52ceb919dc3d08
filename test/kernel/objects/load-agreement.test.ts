/** What libbpf loads on this kernel as root, object by object, we load too, and to the same code. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BpftokenError } from '../../../src/errors.ts'
import { corpusFile, corpusObjects } from '../../corpus/corpus.ts'
import { askOracle, needsOracle } from '../../corpus/oracle.ts'
import { isRoot } from '../../helpers/machine.ts'
import { tagsAsRoot } from './load-as-root.ts'

test(
  'every object that libbpf loads here, we load, and each program gets the same tag',
  isRoot ? needsOracle() : { skip: 'needs root' },
  async t => {
    const objects = corpusObjects()
    const answers = askOracle('load', objects.map(corpusFile))
    const counts = { both: 0, 'neither of us': 0, 'libbpf only': 0, 'we only': 0 }
    const missing: string[] = []
    const differing: string[] = []
    let programs = 0
    for (const [i, object] of objects.entries()) {
      const theirs = answers[i]!.error === 0
      const result = await tagsAsRoot(object)
      const ours = !(result instanceof BpftokenError)
      if (theirs && !ours) missing.push(`${object.name} (${object.hash}): ${result.message}`)
      if (theirs && !(result instanceof BpftokenError))
        for (const { name, section, tag } of answers[i]!.programs!) {
          if (tag === undefined) continue
          programs++
          const own = result.tags.get(name)
          if (own !== tag)
            differing.push(`${object.name} (${object.hash}): ${name} in ${section}: ${own}, not ${tag}`)
        }
      counts[theirs ? (ours ? 'both' : 'libbpf only') : ours ? 'we only' : 'neither of us']++
    }
    t.diagnostic(
      `of ${objects.length} objects: ${Object.entries(counts)
        .map(([who, n]) => `${who} ${n}`)
        .join(', ')}`,
    )
    t.diagnostic(`${programs} programs have the tags that libbpf gives them`)
    assert.deepEqual(missing, [])
    assert.deepEqual(differing, [])
    assert.ok(programs > 0)
    assert.ok(counts.both > 0)
  },
)
