import assert from 'node:assert/strict'
import { test } from 'node:test'
import { placementsOf } from '../../../../src/ebpf/attach/placement.ts'
import { sectionName } from '../../../../src/ebpf/object/section-names.ts'
import type { ObjectProgram } from '../../../../src/ebpf/object/spec.ts'
import { NotFoundError } from '../../../../src/errors.ts'

const program = (name: string, section: string): ObjectProgram => ({
  ...{ name, section, autoload: true, function: 0 },
  rule: sectionName(section)?.rule,
  target: sectionName(section)?.target,
})
const programs = [
  program('count', 'xdp'),
  program('entry', 'xdp/devmap'),
  program('shape', 'tc'),
  program('egress', 'cgroup_skb/egress'),
  program('probe', 'raw_tp/sys_enter'),
]
const lo = { kind: 'xdp', device: 'lo' } as const

test('a wish without a program is for those that it suits', () => {
  assert.deepEqual(placementsOf(programs, [{ spec: lo }]).places, [{ program: 'count', spec: lo }])
  assert.deepEqual(placementsOf(programs, [{ spec: 'auto' }]).places, [{ program: 'probe', spec: undefined }])
  const cgroup = { kind: 'cgroup', path: '/x' } as const
  assert.deepEqual(placementsOf(programs, [{ spec: cgroup }]).places, [{ program: 'egress', spec: cgroup }])
})

test('a program that is named goes there, and nowhere else', () => {
  const eth = { kind: 'xdp', device: 'eth0' } as const
  const { places, unmet } = placementsOf(programs, [{ spec: lo }, { program: 'count', spec: eth }])
  assert.deepEqual(places, [{ program: 'count', spec: eth }])
  assert.deepEqual(unmet, [{ spec: lo }])
  assert.throws(() => placementsOf(programs, [{ program: 'nobody', spec: lo }]), NotFoundError)
})
