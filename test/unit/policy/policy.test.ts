import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FormatError } from '../../../src/errors.ts'
import { policyFromJSON, policyToJSON } from '../../../src/policy/policy.ts'
import { policyOf, policyWithRights } from './sample-kernel.ts'

test('policyFromJSON() gives back what policyToJSON() took, through JSON text', () => {
  const full = policyOf(`
  subjects: [{ user: alice }, { kubernetes: { namespace: edge } }]
  rights: { cmds: [any], maps: [0x8000000000000001], capabilities: [bpf, perfmon] }
  limits: { tokens: 4, mapBytes: 64MiB, lifetime: 8h }
  targets: { functions: [tcp_connect] }
  revocable: false
  approval: required
  events: all
`)
  const nobody = policyWithRights('cmds: [map_create]', '  subjects: []\n')
  const unstated = policyWithRights('cmds: [map_create]')
  assert.deepEqual(nobody.subjects, [])
  assert.ok(!('subjects' in unstated))
  for (const policy of [full, nobody, unstated]) {
    assert.deepEqual(policyFromJSON(JSON.parse(JSON.stringify(policyToJSON(policy)))), policy)
  }
})

test('policyFromJSON() refuses other versions and numbers that are none', () => {
  const json = policyToJSON(policyWithRights('cmds: [map_create]'))
  const masks = { ...json.rights.masks, cmds: '0x1ffffffffffffffff' }
  for (const value of [
    null,
    7,
    {},
    { ...json, format: 'bpftoken.dev/policy-json/v3' },
    { ...json, rights: { ...json.rights, masks } },
  ]) {
    assert.throws(() => policyFromJSON(value), FormatError)
  }
})
