/**
 * What can be derived from a delegation, and what is left of a policy: before anybody is looked at.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Guard, GuardDelegation } from '../../../src/guard/guard.ts'
import { delegationId } from '../../../src/guard/id.ts'
import { prepareDerivation } from '../../../src/lending/derive.ts'
import { vocabularyFrom } from '../../../src/policy/vocabulary.ts'
import { ENUMS, policyWithRights } from '../policy/sample-kernel.ts'

const RIGHTS = 'cmds: [map_create], maps: [array]'
const lent = policyWithRights(RIGHTS, '  derive: { allowed: true, maxDepth: 2 }\n')
const parent: GuardDelegation = {
  id: delegationId(7),
  kind: 'bpffs',
  policy: 'sample',
  terms: lent,
  createdNs: 0n,
  expiresNs: undefined,
  revoked: false,
  revokedNs: undefined,
  parent: undefined,
  cgroup: undefined,
  userNamespace: 1,
  delegatorPid: 1,
  live: { tokens: 0, programs: 0, maps: 0, mapBytes: 0n, children: 0 },
}
/** No process has it: whoever comes so far as to look at it was let through. */
const NOBODY = 0x7fff_ffff

async function derive(
  from: Partial<GuardDelegation>,
  asked = policyWithRights(RIGHTS),
  exact = false,
): Promise<never> {
  const guard = { delegation: () => ({ ...parent, ...from }) } as unknown as Guard
  await prepareDerivation({
    ...{ guard, parent: delegationId(7), policy: asked, exact, vocabulary: vocabularyFrom(ENUMS) },
    accounts: { uidOf: () => undefined, gidOf: () => undefined },
    recipient: NOBODY,
    place: { path: '/sys/fs/bpf' },
  })
  return assert.fail('nobody was lent to')
}

const letThrough = { code: 'BPFTOKEN_NOT_FOUND', message: /no process/ }

test('prepareDerivation() says why nothing can be derived, with the fact for who words it', async () => {
  for (const [from, why] of [
    [{ kind: 'cgroup' }, 'confined'],
    [{ revoked: true }, 'revoked'],
    [{ expiresNs: 1n }, 'expired'],
    [{ terms: policyWithRights(RIGHTS) }, 'forbidden'],
  ] as const)
    await assert.rejects(derive(from), (error: { reason: string; context: object }) => {
      assert.deepEqual([error.reason, error.context], ['not-derivable', { delegation: '7', why }])
      return true
    })
  await assert.rejects(derive({}), letThrough)
})

test('prepareDerivation() refuses a policy of which the parent has nothing, or not all where that is asked', async () => {
  const other = policyWithRights('progs: [kprobe]')
  await assert.rejects(derive({}, other), { code: 'BPFTOKEN_DENIED', reason: 'nothing-to-derive' })
  const more = policyWithRights('cmds: [map_create], maps: [array, hash]')
  await assert.rejects(derive({}, more, true), {
    code: 'BPFTOKEN_DENIED',
    reason: 'more-than-parent',
    message: /spec\.rights\.maps: hash/,
  })
  await assert.rejects(derive({}, more), letThrough)
  await assert.rejects(derive({}, policyWithRights(RIGHTS), true), letThrough)
})

test('prepareDerivation() counts what is in use: a limit of the parent that is used up is none to lend', async () => {
  const limited = { ...lent, limits: { maps: 4 } }
  const asked = { ...policyWithRights(RIGHTS), limits: { maps: 2 } }
  const using = (maps: number) => ({ terms: limited, live: { ...parent.live, maps } })
  await assert.rejects(derive(using(3), asked, true), { message: /spec\.limits\.maps: 2 .*limit is 1/ })
  await assert.rejects(derive(using(2), asked, true), letThrough)
})
