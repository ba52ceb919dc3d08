/** The options that name who is lent to. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { recipientName } from '../../../src/cli/recipient.ts'
import { UsageError } from '../../../src/errors.ts'

test('recipientName() takes exactly one of --pid, --container, --unit and --cgroup', () => {
  assert.deepEqual(recipientName({ pid: 7 }), { pid: 7 })
  assert.deepEqual(recipientName({ container: 'web' }), { container: 'web', owner: undefined })
  assert.deepEqual(recipientName({ unit: 'web.service' }), { unit: 'web.service', owner: undefined })
  assert.deepEqual(recipientName({ cgroup: '/x' }), { cgroup: '/x' })
  assert.throws(() => recipientName({}), /--pid, --container, --unit or --cgroup/)
  assert.throws(() => recipientName({ pid: 7, container: 'web' }), /not --pid and --container/)
})

test('recipientName() tells who still says --cgroup for what is --only-cgroup now', () => {
  assert.throws(
    () => recipientName({ pid: 7, cgroup: '/x' }),
    (error: Error) => error instanceof UsageError && /--only-cgroup/.test(error.hint ?? ''),
  )
})

test('recipientName() takes a user before the name; root is nobody else', () => {
  const { owner, container } = recipientName({ container: 'nobody/web' }) as never
  assert.equal((owner as { uid: number }).uid, 65534)
  assert.equal(container, 'web')
  assert.deepEqual(recipientName({ unit: 'root/web' }), { unit: 'web', owner: undefined })
  assert.throws(() => recipientName({ container: 'no-such-user/web' }), /no user "no-such-user"/)
})
