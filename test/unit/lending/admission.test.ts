import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DeniedError, NotSupportedError } from '../../../src/errors.ts'
import { admit, requireNoApproval, requireNoSubjects } from '../../../src/lending/admission.ts'
import type { SubjectFacts } from '../../../src/policy/subject.ts'
import { policyWithRights } from '../policy/sample-kernel.ts'

const UNKNOWN = { unknown: 'it is not known' }
const ALICE: SubjectFacts = {
  user: { is: { id: 1000, names: ['alice'] } },
  groups: UNKNOWN,
  cgroup: UNKNOWN,
  unit: UNKNOWN,
  executable: UNKNOWN,
  label: UNKNOWN,
}

const policyFor = (subjects?: string) =>
  policyWithRights('cmds: [map_create]', subjects === undefined ? '' : `  subjects: ${subjects}\n`)

test('admit() gives the verdict, or throws it with its trace as text and as data', () => {
  assert.equal(admit(policyFor('[{ user: alice }]'), ALICE, {}).because, 'subject')
  assert.throws(
    () => admit(policyFor('[{ user: bob }]'), ALICE, {}),
    (error: DeniedError) => {
      assert.ok(error instanceof DeniedError)
      assert.equal(error.exitStatus, 3)
      assert.match(
        error.message,
        /^Refused: no subject matches\n.*\n {2}spec\.subjects\[0\] does not match: user is /,
      )
      assert.equal((error.toJSON().trace![0] as { policy: string }).policy, 'sample')
      return true
    },
  )
  assert.throws(() => admit(policyFor('[{ container: { name: a } }]'), ALICE, {}), DeniedError)
  assert.throws(
    () => admit(policyFor('[{ kubernetes: { namespace: a, serviceAccount: b } }]'), ALICE, {}),
    NotSupportedError,
  )
})

test('admit() says when only the override let it through, which a subject that asks for itself has not', () => {
  const because = (subjects: string) => admit(policyFor(subjects), ALICE, { anySubject: true }).because
  assert.equal(because('[{ user: bob }]'), 'any-subject')
  assert.equal(because('[{ user: alice }]'), 'subject')
  assert.throws(
    () => admit(policyFor('[{ user: bob }]'), ALICE, { by: 'subject', anySubject: true }),
    DeniedError,
  )
})

test('requireNoSubjects() refuses a policy with subjects where nobody compares them, an empty list too', () => {
  for (const subjects of ['[{ user: alice }]', '[]']) {
    assert.throws(() => requireNoSubjects(policyFor(subjects), 'nobody asks', {}), NotSupportedError)
    assert.equal(requireNoSubjects(policyFor(subjects), 'nobody asks', { anySubject: true }), true)
  }
  assert.equal(requireNoSubjects(policyFor(), 'nobody asks', {}), false)
})

test('requireNoApproval() refuses a policy that root must approve, where nobody asks root', () => {
  const approved = { ...policyFor(), approval: 'required' } as const
  assert.throws(() => requireNoApproval(approved, 'nobody asks'), { reason: 'approval-not-asked' })
  requireNoApproval(policyFor(), 'nobody asks')
})
