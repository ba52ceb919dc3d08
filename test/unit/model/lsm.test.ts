/**
 * Where the verdicts of security modules count, and what the caller sees. No case of the host's runs
 * reaches these rules; test/kernel/model/hooks.ts shows the same of real modules, in VMs.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type BpfCall, decide } from '../../../src/model/decide.ts'
import type { ErrnoName } from '../../../src/model/judge.ts'
import type { LsmHook, Machine } from '../../../src/model/machine.ts'
import { knownKernel } from '../../../src/model/machines.ts'
import { INITIAL, MODEL_CAPABILITIES, nestedIn, type Task } from '../../../src/model/task.ts'
import { ANY_MASK } from '../../../src/policy/vocabulary.ts'

const inside = nestedIn(INITIAL, 'inside', 0)
const task: Task = { userNamespace: inside, uid: 100_000, capabilities: new Set(MODEL_CAPABILITIES) }
const masks = { cmds: ANY_MASK, maps: ANY_MASK, progs: ANY_MASK, attachs: ANY_MASK }
const token = { flag: true, file: { kind: 'token' as const, token: { userNamespace: inside, masks } } }

const TOKEN: BpfCall = {
  op: 'token_create',
  bpffs: { kind: 'bpffs', instance: { userNamespace: inside, masks }, isRoot: true },
}
const MAP: BpfCall = { op: 'map_create', type: 2, token }
const PROG: BpfCall = { op: 'prog_load', type: 6, token }

function outcome(call: BpfCall, lsm: Partial<Record<LsmHook, ErrnoName>> = {}, more: Partial<Machine> = {}) {
  const machine: Machine = { kernel: knownKernel('6.18'), unprivilegedBpfDisabled: 2, lsm, ...more }
  return decide(machine, task, call).errno ?? 'ok'
}

for (const [hook, call, seen] of [
  ['bpf', MAP, 'EACCES'],
  ['bpf_token_create', TOKEN, 'EACCES'],
  // The token is then as good as none.
  ['bpf_token_cmd', MAP, 'EPERM'],
  ['bpf_token_capable', MAP, 'EPERM'],
  ['bpf_map_create', MAP, 'EACCES'],
  ['bpf_map', MAP, 'EACCES'],
  ['bpf_prog_load', PROG, 'EACCES'],
  ['bpf_prog', PROG, 'EACCES'],
] as const)
  test(`${hook} that refuses ${call.op} with EACCES is seen as ${seen}, and without it the call goes through`, () => {
    assert.equal(outcome(call), 'ok')
    assert.equal(outcome(call, { [hook]: 'EACCES' }), seen)
  })

test('a module that lends some capabilities refuses the others', () => {
  const lsm = { bpf_token_capable: 'EPERM' } as const
  assert.equal(outcome(PROG, lsm, { lsmLends: new Set(['bpf', 'net_admin']) }), 'ok')
  assert.equal(outcome(PROG, lsm, { lsmLends: new Set(['bpf']) }), 'EPERM')
})

test('the hook `bpf` comes before the attributes are looked at, but not before their size', () => {
  const call: BpfCall = { op: 'token_create', bpffs: { kind: 'closed' }, flags: 1 }
  assert.equal(outcome(call), 'EINVAL')
  assert.equal(outcome(call, { bpf: 'EACCES' }), 'EACCES')
  assert.equal(outcome({ ...call, attr: { size: 5000 } }, { bpf: 'EACCES' }), 'E2BIG')
})
