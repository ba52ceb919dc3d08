/**
 * That a kernel takes what sanitizeBtf() makes of real objects' types: lacking any one kind, and
 * lacking all.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { BtfObject } from '../../../src/ebpf/btf/object.ts'
import { BTF_FEATURES, sanitizeBtf } from '../../../src/ebpf/btf/sanitize.ts'
import { parseObject } from '../../../src/ebpf/object/spec.ts'
import { BpftokenError, FormatError } from '../../../src/errors.ts'
import { openFds, traceFds } from '../../../src/sys/fd.ts'
import { corpusFile, corpusObjects, needsCorpus } from '../../corpus/corpus.ts'
import { isRoot } from '../../helpers/machine.ts'

/** Undefined: the kernel takes it. */
async function refusal(bytes: Uint8Array): Promise<string | undefined> {
  try {
    using _ = await BtfObject.load(bytes, { token: null })
    return undefined
  } catch (error) {
    if (!(error instanceof BpftokenError)) throw error
    return `${error.message}: ${error.hint}`
  }
}

function typesOf(file: string): Uint8Array | undefined {
  try {
    return parseObject(readFileSync(file)).btf?.bytes
  } catch (error) {
    // Objects for inspection only; what is wrong with them is another test's.
    if (error instanceof FormatError) return undefined
    throw error
  }
}

const machine = isRoot ? needsCorpus() : { skip: 'needs root' }

test(
  'the kernel takes simpler types of the corpus wherever it takes the types themselves',
  machine,
  async () => {
    traceFds()
    const variants = [BTF_FEATURES, ...BTF_FEATURES.map(feature => [feature])]
    const refused: string[] = []
    let count = 0
    for (const object of corpusObjects()) {
      const bytes = object.endian === 'little' ? typesOf(corpusFile(object)) : undefined
      if (bytes === undefined || (await refusal(bytes)) !== undefined) continue
      count++
      for (const lacking of variants) {
        const why = await refusal(sanitizeBtf(bytes, new Set(lacking)))
        if (why !== undefined) refused.push(`${object.name} without ${lacking}: ${why}`)
      }
    }
    assert.deepEqual(refused, [])
    assert.ok(count > 0, 'no object of the corpus has types')
    assert.deepEqual(openFds(), [])
  },
)
