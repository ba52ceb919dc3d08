/** What must hold where a policy is used: a guard, or a network of its own. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DeniedError, NotSupportedError } from '../../../src/errors.ts'
import { networkRights, requireGuard, requireNetworkAllowed } from '../../../src/policy/conditions.ts'
import { vocabularyFrom } from '../../../src/policy/vocabulary.ts'
import { ENUMS, policyWithRights } from './sample-kernel.ts'

const vocabulary = vocabularyFrom(ENUMS)
const policyFor = (rights: string, more = '') => policyWithRights(`cmds: [map_create], ${rights}`, more)
const LIMITED = '  limits: { tokens: 1 }\n'

test('requireGuard() refuses a limit that nobody holds to, and names what goes without', () => {
  const limited = policyFor('maps: [array]', LIMITED)
  assert.throws(
    () => requireGuard(limited, false),
    (error: NotSupportedError) => {
      assert.ok(error instanceof NotSupportedError)
      assert.deepEqual([error.reason, error.context['fields']], ['guard-needed', 'spec.limits.tokens'])
      return true
    },
  )
  assert.deepEqual(requireGuard(limited, true), [])
  const optional = policyFor('maps: [array]', `${LIMITED}  guard: optional\n`)
  assert.deepEqual(requireGuard(optional, false), ['spec.limits.tokens'])
  assert.deepEqual(requireGuard(optional, true), [])
  assert.deepEqual(requireGuard(policyFor('maps: [array]'), false), [])
})

test('requireNetworkAllowed() refuses what reaches the network, unless policy says network: host', () => {
  const refused = policyFor('progs: [xdp]')
  assert.deepEqual(networkRights(refused, vocabulary), ['xdp'])
  assert.throws(
    () => requireNetworkAllowed(refused, vocabulary, 'process 7 shares it'),
    (error: DeniedError) => {
      assert.ok(error instanceof DeniedError)
      assert.equal(error.reason, 'network-shared')
      assert.match(error.message, /lends xdp, which reach the network, .*: process 7 shares it$/)
      return true
    },
  )
  requireNetworkAllowed(policyFor('progs: [xdp]', '  network: host\n'), vocabulary)
  requireNetworkAllowed(policyFor('progs: [kprobe]'), vocabulary)
})

test('networkRights() takes a type that nobody has classed for one that reaches it', () => {
  const { rights, ...rest } = policyFor('progs: [kprobe]')
  const unknown = { ...rest, rights: { ...rights, masks: { ...rights.masks, progs: 1n << 63n } } }
  assert.deepEqual(networkRights(unknown, vocabulary), ['bit 63'])
})
