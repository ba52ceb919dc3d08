import assert from 'node:assert/strict'
import { test } from 'node:test'
import { guardNeeds } from '../../../src/policy/guard-needs.ts'
import { policyWithRights } from './sample-kernel.ts'

const RIGHTS = 'cmds: [map_create], maps: [array], capabilities: [bpf]'

for (const [spec, path] of [
  ['limits: { tokens: 1 }', 'spec.limits.tokens'],
  ['limits: { mapBytes: 1MiB }', 'spec.limits.mapBytes'],
  ['limits: { lifetime: 8h }', 'spec.limits.lifetime'],
  [`programs: { digests: ["tag:${'0'.repeat(16)}"] }`, 'spec.programs.digests'],
  ['targets: { functions: [tcp_connect] }', 'spec.targets.functions'],
  ['derive: { allowed: true }', 'spec.derive.allowed'],
  ['mode: permissive', 'spec.mode'],
  ['events: all', 'spec.events'],
] as const) {
  test(`guardNeeds() names ${path} when the policy says ${spec}`, () => {
    const needs = guardNeeds(policyWithRights(RIGHTS, `  ${spec}\n`))
    assert.deepEqual(
      needs.map(need => need.path),
      [path],
    )
  })
}

for (const spec of [
  'network: host',
  'network: own',
  'guard: required',
  'sharing: { bindMount: false }',
  'revocable: true',
  'revocable: false',
  'events: refused',
  'events: none',
  'derive: { allowed: false, maxDepth: 3 }',
  'programs: { digests: [] }',
  'subjects: [{ user: alice }]',
]) {
  test(`guardNeeds() is empty when the policy says only ${spec}`, () => {
    assert.deepEqual(guardNeeds(policyWithRights(RIGHTS, `  ${spec}\n`)), [])
  })
}
