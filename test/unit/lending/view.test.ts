import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bootTimeNs } from '../../../src/guard/clock.ts'
import { type CgroupId, delegationId } from '../../../src/guard/id.ts'
import { delegationToJSON } from '../../../src/lending/view.ts'
import { policyWithRights } from '../policy/sample-kernel.ts'

test('delegationToJSON() is JSON: numbers for ids and bytes, times by the calendar, masks as text', () => {
  const now = bootTimeNs()
  const view = delegationToJSON({
    id: delegationId(70),
    kind: 'bpffs',
    policy: 'sample',
    terms: policyWithRights('cmds: [map_create]', '  limits: { mapBytes: 1MiB, maps: 2 }\n'),
    createdNs: now,
    expiresNs: now + 3_600_000_000_000n,
    revoked: false,
    revokedNs: undefined,
    parent: delegationId(65),
    cgroup: { id: 5n as CgroupId, path: undefined },
    userNamespace: 1,
    delegatorPid: 1,
    live: { tokens: 1, programs: 0, maps: 0, mapBytes: 4096n, children: 0 },
  })
  const read = JSON.parse(JSON.stringify(view))
  assert.deepEqual([read.id, read.parent, read.cgroup.id, read.live.mapBytes], [70, 65, 5, 4096])
  assert.deepEqual(read.terms.limits, { maps: 2, mapBytes: 1048576 })
  assert.equal(read.terms.rights.masks.cmds, '0x1')
  const [created, expires] = [read.createdAt, read.expiresAt].map(text => {
    assert.match(text, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
    return Date.parse(text)
  })
  assert.equal(Math.round((expires! - created!) / 1000), 3600)
  assert.equal('revokedAt' in read, false)
})
