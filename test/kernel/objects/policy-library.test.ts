/**
 * The library of policies is what it says: each tool's objects load under exactly their policy, by
 * our loader and, where it can load them at all, by an unmodified bpftool; and no capability and no certain right of it is
 * needless.
 */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { structOfKernel } from '../../../src/cli/kernel-structs.ts'
import { planRights } from '../../../src/needs/plan.ts'
import { hexMasks } from '../../../src/policy/mask-text.ts'
import { parsePolicy } from '../../../src/policy/parse.ts'
import type { Policy } from '../../../src/policy/policy.ts'
import type { Masks } from '../../../src/policy/vocabulary.ts'
import { corpusFile, needsCorpus } from '../../corpus/corpus.ts'
import { objectsOf, RECORDED_TOOLS, TOOLS, type ToolObject } from '../../corpus/library-tools.ts'
import { needsProgram, needsTokens, ROOT } from '../../helpers/machine.ts'
import { EVERYTHING, vocabulary } from '../delegation/lab.ts'
import { LoadLab, type LoadRequest } from './load-lab.ts'

const FOLDER = join(ROOT, 'examples/policies/library')

function needs(): { skip?: string } {
  const all = [needsTokens(), needsCorpus(), needsProgram('host/usr/sbin/bpftool')]
  return all.find(({ skip }) => skip !== undefined) ?? {}
}

function policyOf(name: string): Policy {
  const source = join(FOLDER, `${name}.yaml`)
  return parsePolicy(readFileSync(source, 'utf8'), { source, vocabulary })
}

test('the library has a policy for each tool, and no other', () => {
  const files = readdirSync(FOLDER).filter(name => name.endsWith('.yaml'))
  const tools = [...TOOLS, ...RECORDED_TOOLS]
  assert.deepEqual(files.sort(), tools.map(({ name }) => `${name}.yaml`).sort())
})

/** One lab at a time: each has the capabilities of one policy, or one fewer. */
async function inLab<T>(capabilities: readonly string[], act: (lab: LoadLab) => Promise<T>): Promise<T> {
  const lab = await LoadLab.start(capabilities)
  try {
    return await act(lab)
  } finally {
    lab[Symbol.dispose]()
    await lab.ended
  }
}

/** Whether our loader loads all of them. */
async function loadsAll(
  lab: LoadLab,
  masks: Masks,
  objects: readonly ToolObject[],
  only: Pick<LoadRequest, 'only'>,
): Promise<boolean> {
  for (const object of objects)
    if (!(await lab.loadBare(masks, { file: corpusFile(object), ...only })).ok) return false
  return true
}

for (const tool of TOOLS)
  test(`${tool.name}: its objects load under just its policy, all of which is needed`, needs(), async t => {
    const { name, rights } = policyOf(tool.name)
    assert.equal(name, tool.name)
    const objects = objectsOf(tool)
    assert.ok(objects.length >= tool.files.length, 'the corpus lacks objects of the tool')
    const { programs } = tool
    const only = programs === undefined ? {} : { only: programs }
    const plan = planRights(objects, { loader: 'bpftoken', kernelStruct: structOfKernel(), programs })
    const certain = plan.rights.filter(({ certain, loses }) => certain && loses === undefined)
    const wrong: string[] = []
    let byBpftool = 0
    await inLab(rights.capabilities, async lab => {
      for (const object of objects) {
        const request = { file: corpusFile(object) }
        const ours = await lab.loadBare(rights.masks, { ...request, ...only })
        if (!ours.ok) wrong.push(`${object.name} does not load: ${ours.message}`)
        // It loads all programs, and knows of no choice.
        if (programs !== undefined) continue
        const theirs = await lab.loadBare(rights.masks, { ...request, bpftool: true })
        // What it cannot load with every right, such as maps with pins of their own, is no want of rights.
        if (!theirs.ok && (await lab.loadBare(EVERYTHING, { ...request, bpftool: true })).ok)
          wrong.push(`bpftool does not load ${object.name}: ${theirs.message}`)
        if (theirs.ok) byBpftool++
      }
      for (const { domain, bit, word } of certain) {
        const fewer = { ...rights.masks, [domain]: rights.masks[domain] & ~(1n << BigInt(bit)) }
        assert.notDeepEqual(hexMasks(fewer), hexMasks(rights.masks), `the policy lacks ${domain} ${word}`)
        if (await loadsAll(lab, fewer, objects, only)) wrong.push(`all load without ${domain} ${word}`)
      }
    })
    const attaching = plan.capabilities.filter(({ toAttach }) => toAttach).map(one => one.name)
    const loading = rights.capabilities.filter(one => !attaching.includes(one))
    for (const one of loading) {
      const fewer = rights.capabilities.filter(other => other !== one)
      if (await inLab(fewer, lab => loadsAll(lab, rights.masks, objects, only)))
        wrong.push(`all load without ${one}`)
    }
    t.diagnostic(
      `${objects.length} objects, ${byBpftool} of them by bpftool; ${certain.length} rights and ${loading.length} capabilities needed`,
    )
    assert.deepEqual(wrong, [])
  })
