/**
 * Every CO-RE relocation of the corpus, against the running kernel's types: an answer or one of two
 * errors.
 */
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { Btf } from '../../../../src/ebpf/btf/btf.ts'
import { CoreResolver } from '../../../../src/ebpf/core/relo.ts'
import { type ObjectSpec, parseObject } from '../../../../src/ebpf/object/spec.ts'
import { ConflictError, FormatError } from '../../../../src/errors.ts'
import { corpusFile, corpusObjects, needsCorpus } from '../../../corpus/corpus.ts'

const VMLINUX = '/sys/kernel/btf/vmlinux'

function needs(): { skip?: string } {
  return existsSync(VMLINUX) ? needsCorpus() : { skip: `${VMLINUX} is missing: this kernel shows no types` }
}

function parsed(file: string): ObjectSpec | undefined {
  try {
    return parseObject(readFileSync(file))
  } catch (error) {
    if (error instanceof FormatError) return undefined
    throw error
  }
}

test('CoreResolver answers or refuses every relocation of every object of the corpus', needs(), t => {
  const types = Btf.parse(readFileSync(VMLINUX))
  const counts = { objects: 0, relocations: 0, poisoned: 0 }
  const refused: string[] = []
  for (const object of corpusObjects()) {
    const spec = parsed(corpusFile(object))
    if (spec?.btf === undefined || !spec.functions.some(({ coreRelos }) => coreRelos.length > 0)) continue
    counts.objects++
    const resolver = new CoreResolver(spec.btf.types, { name: 'vmlinux', types })
    for (const { code, coreRelos, name } of spec.functions) {
      try {
        const outcomes = resolver.apply(code.slice(), coreRelos, name)
        assert.equal(outcomes.length, coreRelos.length)
        counts.relocations += outcomes.length
        counts.poisoned += outcomes.filter(({ poisoned }) => poisoned).length
      } catch (error) {
        if (!(error instanceof FormatError || error instanceof ConflictError)) throw error
        refused.push(`${object.name}: ${error.message}`)
      }
    }
  }
  t.diagnostic(`${counts.relocations} relocations of ${counts.objects} objects, ${counts.poisoned} poisoned`)
  t.diagnostic(`${refused.length} functions refused`)
  for (const message of new Set(refused)) t.diagnostic(message)
  assert.ok(counts.relocations > counts.poisoned)
})
