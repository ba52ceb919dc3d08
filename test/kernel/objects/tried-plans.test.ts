/**
 * What `plan` finds by trying is right the first time: every object of the corpus that root loads
 * here is loaded by a workload that has just the plan, and no capability of it is needless.
 */
import assert from 'node:assert/strict'
import { cpSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { structOfKernel } from '../../../src/cli/kernel-structs.ts'
import { tryOne } from '../../../src/cli/trying.ts'
import { runningVocabulary } from '../../../src/delegation/vocabulary.ts'
import { BpftokenError } from '../../../src/errors.ts'
import { TrialLab } from '../../../src/lending/trial-lab.ts'
import { planRights } from '../../../src/needs/plan.ts'
import type { TrialAnswer } from '../../../src/needs/trial.ts'
import { CAPABILITIES, type Capability } from '../../../src/policy/policy.ts'
import type { Masks } from '../../../src/policy/vocabulary.ts'
import { corpusFile, corpusObjects, needsCorpus } from '../../corpus/corpus.ts'
import { needsTokens, ROOT } from '../../helpers/machine.ts'
import { Scratch } from '../../helpers/scratch.ts'
import { EVERYTHING } from '../delegation/lab.ts'
import { loadAsRoot } from './load-as-root.ts'

const NOBODY = 65534
const LOAD_MS = 60_000

function needs(): { skip?: string } {
  const machine = needsTokens()
  return machine.skip === undefined ? needsCorpus() : machine
}

test('every loadable object loads under its first plan, and no capability is needless', needs(), async t => {
  const wrong: string[] = []
  const counts = {
    ...{ loadable: 0, 'from the file alone': 0, 'by trying': 0 },
    ...{ 'said to be for root alone': 0, 'found to load under no loan': 0 },
  }
  let loads = 0
  let capabilities = 0
  let added = 0
  let dropped = 0
  const words = new Map<string, number>()
  const kernelStruct = structOfKernel()
  // The worker is an ordinary user, who may not reach this clone.
  using stage = new Scratch()
  for (const part of ['dist', 'package.json', 'build/Release/bpftoken.node'])
    cpSync(join(ROOT, part), join(stage.path, part), { recursive: true })
  const lab = new TrialLab({
    command: [process.execPath, join(stage.path, 'dist/cli/trial-worker.js')],
    ...{ env: {}, uid: NOBODY, gid: NOBODY, vocabulary: runningVocabulary(), guard: undefined },
  })
  try {
    for (const object of corpusObjects()) {
      const spec = await loadAsRoot(object)
      if (spec instanceof BpftokenError) continue
      counts.loadable++
      const name = `${object.name} (${object.hash})`
      const bytes = readFileSync(corpusFile(object))
      const found = { name, spec: { ...spec, name: 'object' }, bytes }
      const options = { programs: undefined, kernelStruct }
      const trial = await tryOne(found, lab, Number.POSITIVE_INFINITY, {
        ...options,
        progress: { step: () => {} },
      })
      const plan = planRights([found], {
        ...{ loader: 'bpftoken', ...options },
        ...(typeof trial === 'string' ? {} : { trials: new Map([[name, trial]]) }),
      })
      if (typeof trial === 'string') {
        // The kernel hides what it needs from all but root, and no right changes that.
        if (plan.problems.length > 0) counts['said to be for root alone']++
        else wrong.push(`${name} was not tried: ${trial}`)
        continue
      }
      loads += trial.loads
      const subject = JSON.stringify({ object: bytes.toString('base64'), name: 'object' })
      const load = async (masks: Masks, names: readonly Capability[]): Promise<TrialAnswer> => {
        loads++
        const request = { masks, capabilities: names, subject, line: JSON.stringify({}), timeoutMs: LOAD_MS }
        return JSON.parse((await lab.ask(request))!) as TrialAnswer
      }
      if (trial.outcome === 'refused' && !(await load(EVERYTHING, CAPABILITIES)).ok) {
        // The kernel treats maps that were made with a token otherwise, for one.
        counts['found to load under no loan']++
        t.diagnostic(`${name}: ${trial.why}`)
        continue
      }
      if (trial.outcome !== 'loads') {
        wrong.push(`${name}: ${trial.outcome} after ${trial.loads} loads: ${trial.why}`)
        continue
      }
      added += trial.added.length
      dropped += trial.dropped.length
      for (const { by } of trial.added) {
        const said = by
          .replace(/^.*verifier says: /, '')
          .replace(/, at .*$/, '')
          .replace(/\d+/g, 'N')
        words.set(said, (words.get(said) ?? 0) + 1)
      }
      counts[trial.added.length === 0 ? 'from the file alone' : 'by trying']++
      // Once more, by the plan as it is told, and without each capability of it.
      const held = plan.capabilities.filter(({ toAttach }) => !toAttach).map(one => one.name)
      const all = await load(plan.masks, held)
      if (!all.ok) wrong.push(`${name} does not load under its plan: ${all.message}`)
      for (const one of held) {
        // CAP_SYS_ADMIN stands in for the others.
        if (one === 'bpf' || (held.includes('sys_admin') && one !== 'sys_admin')) continue
        capabilities++
        if (
          (
            await load(
              plan.masks,
              held.filter(other => other !== one),
            )
          ).ok
        )
          wrong.push(`${name} loads without ${one}`)
      }
    }
  } finally {
    lab[Symbol.dispose]()
    await lab.ended()
  }
  t.diagnostic(
    Object.entries(counts)
      .map(([what, count]) => `${what} ${count}`)
      .join(', '),
  )
  t.diagnostic(
    `${loads} loads; ${added} found by trying, ${dropped} left out; ${capabilities} capabilities needed`,
  )
  for (const [said, count] of [...words].sort((a, b) => b[1] - a[1]).slice(0, 12))
    t.diagnostic(`${count} times: ${said}`)
  assert.deepEqual(wrong, [])
  assert.ok(counts.loadable > 0)
})
