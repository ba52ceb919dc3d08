/** Who may pin in a directory, and who gets what is pinned, by owner, group and mode. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type BpfCall, decide } from '../../../src/model/decide.ts'
import { knownKernel } from '../../../src/model/machines.ts'
import type { ObjPin } from '../../../src/model/pins.ts'
import { INITIAL, type ModelCapability, nestedIn, type Task } from '../../../src/model/task.ts'

const inside = nestedIn(INITIAL, 'inside', 0, [{ inside: 0, host: 100_000, count: 65_536 }])
const masks = { cmds: 1n, maps: 0n, progs: 0n, attachs: 0n }
const machine = { kernel: knownKernel('6.18'), unprivilegedBpfDisabled: 2 as const }

const user = (uid: number, ...capabilities: ModelCapability[]): Task => ({
  userNamespace: inside,
  uid,
  capabilities: new Set(capabilities),
})
const directory = (mode: number) => ({
  kind: 'bpffs' as const,
  instance: { userNamespace: inside, masks },
  isRoot: false,
  inode: { uid: 100_000, gid: 100_000, mode },
})
const pin = (mode: number): ObjPin => ({
  op: 'obj_pin',
  object: { kind: 'map' },
  directory: directory(mode),
})
const get = (mode: number, flags = 0): BpfCall => ({
  op: 'obj_get',
  directory: directory(0o755),
  pin: { kind: 'map', inode: { uid: 100_000, gid: 100_000, mode } },
  flags,
})

for (const [what, task, call, seen] of [
  ['the owner pins', user(100_000), pin(0o700), 'ok'],
  ['another user does not', user(101_000), pin(0o700), 'EACCES'],
  ['another user does where all may', user(101_000), pin(0o777), 'ok'],
  ['the owner may be the one who does not', user(100_000), pin(0o077), 'EACCES'],
  ['a directory that is searched, not written', user(101_000), pin(0o711), 'EACCES'],
  ['CAP_DAC_OVERRIDE stands in', user(101_000, 'dac_override'), pin(0o700), 'ok'],
  ['CAP_DAC_READ_SEARCH does not to write', user(101_000, 'dac_read_search'), pin(0o700), 'EACCES'],
  ['a user whom the bpffs does not know', { ...user(5), userNamespace: INITIAL }, pin(0o777), 'EOVERFLOW'],
  ['the owner gets', user(100_000), get(0o600), 'ok'],
  ['another user does not', user(101_000), get(0o600), 'EACCES'],
  ['another user reads what all may read', user(101_000), get(0o604, 8), 'ok'],
  ['and does not write it', user(101_000), get(0o604, 16), 'EACCES'],
  ['CAP_DAC_READ_SEARCH reads', user(101_000, 'dac_read_search'), get(0o600, 8), 'ok'],
  ['CAP_DAC_READ_SEARCH does not write', user(101_000, 'dac_read_search'), get(0o600), 'EACCES'],
  ['a name with a dot', user(100_000), { ...pin(0o700), dotted: true }, 'EPERM'],
  ['the same in a directory of mode 0', user(100_000, 'dac_override'), { ...pin(0), dotted: true }, 'ok'],
] as const)
  test(`${call.op}: ${what}: ${seen}`, () => {
    assert.equal(decide(machine, task, call).errno ?? 'ok', seen)
  })
