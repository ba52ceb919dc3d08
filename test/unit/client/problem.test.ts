/**
 * Problem documents become the errors that they are, and nothing that is said in one breaks that.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { errorFromProblem } from '../../../src/client/problem.ts'
import { BpftokenError, ERROR_CODES, PolicyError, SyscallError } from '../../../src/errors.ts'

test('every code comes back as its own, with the text, the hint and the facts that were said', () => {
  for (const [code, { exit }] of Object.entries(ERROR_CODES)) {
    const error = errorFromProblem(
      { code, detail: 'a\nb', hint: 'Do it', reason: 'no-place', context: { uid: 7, gone: null } },
      500,
    )
    // A command line is none of the daemon's.
    assert.equal(error.code, code === 'BPFTOKEN_USAGE' ? 'BPFTOKEN_INPUT' : code)
    assert.deepEqual([error.message, error.lines, error.hint], ['a\nb', ['a', 'b'], 'Do it'], code)
    assert.equal(error.exitStatus, exit)
    assert.equal(error.reason, 'no-place')
    assert.equal(error.context['uid'], 7)
    assert.equal('gone' in error.context, false)
    assert.equal(error.toJSON().message, 'a\nb')
  }
})

test('a system call keeps its errno, and a policy its issues', () => {
  const context = { call: 'bpf', op: 'BPF_TOKEN_CREATE', errno: 1, errnoName: 'EPERM' }
  const call = errorFromProblem({ code: 'BPFTOKEN_SYSCALL', detail: 'no', context }, 500)
  assert.ok(call instanceof SyscallError)
  assert.deepEqual([call.op, call.errno, call.errnoName], ['BPF_TOKEN_CREATE', 1, 'EPERM'])
  const issue = { path: 'spec', line: 1, col: 2, message: 'odd' }
  const issues = [issue, { path: 'spec' }, 7, { ...issue, suggestion: 3 }]
  const policy = errorFromProblem({ code: 'BPFTOKEN_POLICY_INVALID', detail: 'no', issues }, 400)
  assert.ok(policy instanceof PolicyError)
  assert.deepEqual(policy.issues, [issue])
})

test('an unknown code, or what is no problem, is a defect with its text', () => {
  const unknown = errorFromProblem({ code: 'BPFTOKEN_NEW', detail: 'odd' }, 418)
  assert.equal(unknown.code, 'BPFTOKEN_INTERNAL')
  assert.equal(unknown.message, 'the daemon answered 418: odd')
  assert.deepEqual(unknown.context, { status: 418, code: 'BPFTOKEN_NEW' })
  for (const code of ['toString', '__proto__', 7, null, undefined])
    assert.equal(errorFromProblem({ code }, 500).code, 'BPFTOKEN_INTERNAL')
})

test('whatever is said, it is an error of ours', () => {
  const any = fc.record(
    {
      code: fc.oneof(fc.constantFrom(...Object.keys(ERROR_CODES)), fc.jsonValue()),
      detail: fc.jsonValue(),
      hint: fc.jsonValue(),
      context: fc.jsonValue(),
      issues: fc.jsonValue(),
      trace: fc.jsonValue(),
    },
    { requiredKeys: [] },
  )
  fc.assert(
    fc.property(fc.oneof(any, fc.jsonValue()), problem => {
      const error = errorFromProblem(problem, 500)
      assert.ok(error instanceof BpftokenError)
      assert.doesNotThrow(() => JSON.stringify(error))
    }),
  )
})
