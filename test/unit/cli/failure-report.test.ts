/** How a failure is told: all causes, one line each, and the way to the stack of a defect. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { describeFailure } from '../../../src/cli/failure-report.ts'
import { Interrupted } from '../../../src/cli/interrupted.ts'
import { ConflictError, DeniedError, NotUndoneError, PolicyError, SyscallError } from '../../../src/errors.ts'

const busy = new SyscallError({ call: 'umount2', errno: 16, errnoName: 'EBUSY' }, { hint: 'It is in use' })
const thrown = (make: () => unknown): unknown => {
  try {
    make()
  } catch (error) {
    return error
  }
  return assert.fail('nothing was thrown')
}

test('a failure of ours is its message, its causes and its advice', () => {
  const error = new ConflictError('no', { hint: 'yes', cause: busy })
  const { lines, exitStatus } = describeFailure(error)
  assert.deepEqual(lines, ['no', '  because: umount2 failed with EBUSY', '  next: yes'])
  assert.equal(exitStatus, 1)
  assert.equal(describeFailure(new DeniedError('no')).exitStatus, 3)
})

test('a failure whose undoing failed tells both, with the advice for each', () => {
  const first = new ConflictError('first', { hint: 'one' })
  const lines = [
    'both',
    '  because: first',
    '  because: umount2 failed with EBUSY',
    '  next: one',
    '  next: It is in use',
  ]
  const report = describeFailure(new AggregateError([first, busy], 'both'))
  assert.deepEqual(report.lines, lines)
  assert.equal(report.exitStatus, 1)
  const { error } = report.document as { error: { code: string; causes: { code: string }[] } }
  assert.equal(error.code, 'BPFTOKEN_FAILED')
  assert.deepEqual(
    error.causes.map(({ code }) => code),
    ['BPFTOKEN_CONFLICT', 'BPFTOKEN_SYSCALL'],
  )
  // A disposal that fails while something else has failed.
  const suppressed = Object.assign(new Error('both'), { error: busy, suppressed: first })
  assert.deepEqual(describeFailure(suppressed).lines, lines)
  const signal = describeFailure(new AggregateError([new Interrupted('SIGINT'), busy], 'both'))
  assert.equal(signal.lines[1], '  because: interrupted by SIGINT')
})

test('what could not be undone tells all its causes, once each, with the advice for each', () => {
  const deeper = new ConflictError('first', { hint: 'one', cause: new Error('below') })
  const error = new NotUndoneError([deeper, busy], 'It may stand', {
    cause: deeper,
    reason: 'may-stand',
  })
  const report = describeFailure(error)
  assert.deepEqual(report.lines.slice(0, 3), ['first', 'umount2 failed with EBUSY', 'It may stand'])
  assert.match(report.lines[3]!, /^ {4}because: internal error: below$/)
  assert.match(report.lines[4]!, /^ {2}next: .*bpftoken ls/)
  assert.deepEqual(report.lines.slice(5, 7), ['  next: one', '  next: It is in use'])
  const { causes } = (report.document as { error: { causes: { code: string }[] } }).error
  assert.deepEqual(
    causes.map(({ code }) => code),
    ['BPFTOKEN_CONFLICT', 'BPFTOKEN_INTERNAL', 'BPFTOKEN_SYSCALL'],
  )
})

test('a defect is one line with the way to its stack, and has a code', () => {
  const report = describeFailure(thrown(() => (undefined as unknown as { x: { y: number } }).x.y))
  assert.equal(report.lines.length, 2)
  assert.match(report.lines[0]!, /^internal error: Cannot read prop/)
  assert.match(report.lines[1]!, /BPFTOKEN_DEBUG=1/)
  assert.equal((report.document.error as { code: string }).code, 'BPFTOKEN_INTERNAL')
  assert.equal(report.exitStatus, 1)
  for (const odd of [undefined, null, 'text', 7, {}]) assert.equal(describeFailure(odd).exitStatus, 1)
})

test("a failed call of Node's own is a failed call, not a defect", () => {
  const { lines, document } = describeFailure(thrown(() => readFileSync('/no/such/file')))
  assert.deepEqual(lines, ['open on /no/such/file failed with ENOENT'])
  assert.equal((document.error as { code: string }).code, 'BPFTOKEN_SYSCALL')
})

test('too many open files is the advice, however deep it lies', () => {
  const full = Object.assign(new Error('EMFILE'), {
    code: 'EMFILE',
    errno: -24,
    syscall: 'spawn x',
    path: 'x',
  })
  const { lines } = describeFailure(
    new ConflictError('Cannot start', { hint: 'Run make build', cause: full }),
  )
  assert.deepEqual(lines, [
    'Cannot start',
    '  because: spawn x failed with EMFILE',
    '  next: Too many open files: raise the limit of this process, ulimit -n',
  ])
})

test('each issue of a policy is a line, also where its text has line breaks', () => {
  const issues = [1, 2].map(line => ({ path: 'a', line, col: 1, message: 'x\ny' }))
  assert.deepEqual(describeFailure(new PolicyError('p', issues)).lines, ['p:1:1: a: x\ny', 'p:2:1: a: x\ny'])
})

test('a circle of causes ends', () => {
  const circle = new Error('round')
  circle.cause = circle
  assert.ok(describeFailure(circle).lines.length < 20)
})
