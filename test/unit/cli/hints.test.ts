/** What to do next, in words of the command line, by what libraries say went wrong. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { describeFailure } from '../../../src/cli/failure-report.ts'
import { hintOf, remedyOf } from '../../../src/cli/hints.ts'
import { ConflictError, type Reason, SyscallError } from '../../../src/errors.ts'
import { hintFor } from '../../../src/uapi/hints.ts'

const because = (reason: Reason, context = {}, hint?: string) =>
  new ConflictError('no', { reason, context, hint })

test('a reason has words, made of the facts, also in JSON and where it is only a cause', () => {
  const taken = because('place-taken', { pid: 7, path: '/srv/a b' }, 'Take it back')
  const words = 'Remove it with bpftoken undelegate --pid 7 --path "/srv/a b", or name another --path'
  assert.equal(hintOf(taken), words)
  const report = describeFailure(taken)
  assert.deepEqual(report.lines, ['no', `  next: ${words}`])
  assert.equal((report.document.error as { hint: string }).hint, words)
  const { error } = describeFailure(new Error('x', { cause: taken })).document as {
    error: { causes: { hint: string }[] }
  }
  assert.equal(error.causes[0]!.hint, words)
})

test('one reason can mean several steps', () => {
  const next = (why: string) => hintOf(because('not-derivable', { why, delegation: '7' }))!
  assert.match(next('forbidden'), /spec\.derive/)
  assert.match(next('confined'), /user namespace/)
  assert.equal(next('revoked'), next('expired'))
  assert.match(hintOf(because('guard-needed'))!, /guard install$/)
  assert.match(hintOf(because('guard-needed', { fields: 'spec.limits' }))!, /remove these fields/)
})

test('without a reason the hint of the library stands', () => {
  assert.equal(hintOf(new ConflictError('no', { hint: 'Wait' })), 'Wait')
  assert.equal(hintOf(new ConflictError('no')), undefined)
})

test('a call has words of its own only where nobody below knew better', () => {
  const missing = (hint?: string) =>
    new SyscallError({ call: 'openat2', errno: 2, errnoName: 'ENOENT' }, { hint })
  assert.match(hintOf(missing(hintFor('openat2', 'ENOENT')))!, /--path$/)
  assert.equal(hintOf(missing('Name the bpffs')), 'Name the bpffs')
  assert.equal(hintOf(missing()), undefined)
})

test('what doctor advises names our commands only where the fact is false', () => {
  const fact = { name: 'guard', required: false, detail: '' }
  assert.match(remedyOf({ ...fact, ok: false, remedy: 'Install it' })!, /bpftoken guard install/)
  assert.equal(remedyOf({ ...fact, ok: true }), undefined)
  assert.equal(remedyOf({ ...fact, name: 'seccomp', ok: false, remedy: 'Run outside' }), 'Run outside')
})
