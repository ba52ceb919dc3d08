/**
 * What `plan` says is what it takes: for every object of the corpus that root can load here, our
 * loader succeeds in an unprivileged user namespace with exactly the planned bits, fails when any one
 * of them is missing, and goes on without those that the plan calls optional.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { structOfKernel } from '../../../src/cli/kernel-structs.ts'
import { parseObject } from '../../../src/ebpf/object/spec.ts'
import { BpftokenError } from '../../../src/errors.ts'
import { planRights } from '../../../src/needs/plan.ts'
import { bitsOf, MASK_DOMAINS, type Masks } from '../../../src/policy/vocabulary.ts'
import { corpusFile, corpusObjects, needsCorpus } from '../../corpus/corpus.ts'
import { needsProgram, needsTokens } from '../../helpers/machine.ts'
import { EVERYTHING } from '../delegation/lab.ts'
import { loadAsRoot } from './load-as-root.ts'
import { LoadLab } from './load-lab.ts'

const kernelStruct = structOfKernel()
const CAPABILITIES = ['bpf', 'net_admin', 'perfmon', 'sys_admin']

function libbpfNeeds(): { skip?: string } {
  const corpus = needs()
  return corpus.skip === undefined ? needsProgram('host/usr/sbin/bpftool') : corpus
}

function needs(): { skip?: string } {
  const machine = needsTokens()
  return machine.skip === undefined ? needsCorpus() : machine
}

function without(masks: Masks, domain: keyof Masks, bit: number): Masks {
  return { ...masks, [domain]: masks[domain] & ~(1n << BigInt(bit)) }
}

test('the planned rights suffice for every loadable object, and each of them is needed', needs(), async t => {
  const wrong: string[] = []
  let bits = 0
  let optional = 0
  let loads = 0
  let objects = 0
  let rootOnly = 0
  const lab = await LoadLab.start(CAPABILITIES)
  try {
    for (const object of corpusObjects()) {
      const spec = await loadAsRoot(object)
      // load-agreement.test.ts says that libbpf loads it no more than we do.
      if (spec instanceof BpftokenError) continue
      objects++
      const request = { file: corpusFile(object) }
      const options = { loader: 'bpftoken', kernelStruct } as const
      const { masks, rights, problems } = planRights([{ name: object.name, spec }], options)
      const enough = await lab.load(masks, request)
      loads++
      if (!enough.ok && (problems.length > 0 || !(await lab.load(EVERYTHING, request)).ok)) {
        // It is said that no workload can, or turns out so: see tried-plans.test.ts.
        rootOnly++
        continue
      }
      if (!enough.ok) {
        wrong.push(
          `${object.name} (${object.hash}) does not load with its plan: ${enough.message}: ${enough.hint}`,
        )
        continue
      }
      for (const domain of MASK_DOMAINS)
        for (const bit of bitsOf(masks[domain])) {
          bits++
          loads++
          const answer = await lab.loadBare(without(masks, domain, bit), request)
          const { certain } = rights.find(right => right.domain === domain && right.bit === bit)!
          if (!certain) optional++
          if (!certain && !answer.ok)
            wrong.push(
              `${object.name} (${object.hash}) needs optional bit ${bit} of ${domain}: ${answer.message}`,
            )
          else if (certain && answer.ok)
            wrong.push(`${object.name} (${object.hash}) loads without bit ${bit} of ${domain}`)
        }
    }
  } finally {
    lab[Symbol.dispose]()
    await lab.ended
  }
  t.diagnostic(
    `${objects} objects, ${bits} bits removed one by one, ${optional} of them optional, ${loads} loads; ${rootOnly} objects are for root alone`,
  )
  assert.deepEqual(wrong, [])
  assert.ok(objects > 0)
})

test(
  "libbpf's rights suffice for an unmodified bpftool wherever everything does, and the certain ones are needed",
  libbpfNeeds(),
  async t => {
    const wrong: string[] = []
    let loaded = 0
    let bits = 0
    let undecided = 0
    const lab = await LoadLab.start(CAPABILITIES)
    try {
      for (const object of corpusObjects()) {
        const request = { file: corpusFile(object), bpftool: true } as const
        if (!(await lab.loadBare(EVERYTHING, request)).ok) continue
        loaded++
        const spec = parseObject(readFileSync(corpusFile(object)), { name: object.name })
        const options = { loader: 'libbpf', kernelStruct } as const
        const { masks, rights } = planRights([{ name: object.name, spec }], options)
        const answer = await lab.load(masks, request)
        if (!answer.ok) {
          wrong.push(`${object.name} (${object.hash}) does not load with its plan: ${answer.message}`)
          continue
        }
        for (const { domain, bit, word, certain } of rights) {
          if (!certain) {
            // libbpf takes a refused probe for an old kernel, and goes on without or does something
            // else.
            undecided++
            continue
          }
          bits++
          const answer = await lab.loadBare(without(masks, domain, bit), request)
          if (answer.ok) wrong.push(`${object.name} (${object.hash}) loads without ${domain} ${word}`)
        }
      }
    } finally {
      lab[Symbol.dispose]()
      await lab.ended
    }
    t.diagnostic(`${loaded} objects; ${bits} bits are certain, and each is needed; ${undecided} are not`)
    assert.deepEqual(wrong, [])
    assert.ok(loaded > 0)
  },
)
