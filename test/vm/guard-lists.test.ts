/**
 * What the guard knows by name: digests, attach targets, units.
 *
 *   node --import tsx scripts/vm/vm.ts --kernel 7 --tests test/vm/guard-lists.test.ts
 */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdirSync, rmdirSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { BpfMap } from '../../src/ebpf/map.ts'
import { Program } from '../../src/ebpf/prog.ts'
import { NotFoundError, NotSupportedError, SyscallError } from '../../src/errors.ts'
import { GUARD_DIRECTORY } from '../../src/guard/directory.ts'
import { fsconfigCreate, fsconfigString, fsopen } from '../../src/sys/mount.ts'
import { native, use } from '../../src/sys/native.ts'
import { progCommand } from '../kernel/delegation/attributes.ts'
import { type Changes, made, policyOf } from './borrower.ts'
import { skip } from './guarded.ts'
import { borrower, guard, underGuard } from './under-guard.ts'

underGuard()

function count(name: string): number {
  using map = BpfMap.open(`${GUARD_DIRECTORY}/maps/${name}`)
  return [...map.keys()].length
}

const listing = (...digests: string[]): Changes => ({ programs: { digests } })

/** The kernel's tag of the program that `progCommand('xdp', 'xdp')` loads. */
function tag(): string {
  const { cmd, attr, refs } = progCommand('xdp', 'xdp')
  using program = Program.fromFd(made('BPF_PROG_LOAD', native().bpf(cmd, attr, ...refs)))
  return program.info().tag
}

test('programs are held to their SHA-256 where the kernel computes it; elsewhere such a policy is refused', {
  skip,
}, async () => {
  const insns = progCommand('xdp', 'xdp').refs[2] as Uint8Array
  const sha256 = createHash('sha256').update(insns).digest('hex')
  const before = guard.policies()
  // The tag is the beginning of the digest, or of a SHA-1.
  if (!sha256.startsWith(tag())) {
    assert.throws(
      () => guard.installPolicy('by-sha256', policyOf(listing(`sha256:${sha256}`))),
      (error: unknown) => error instanceof NotSupportedError && /tag:/.test(error.hint!),
    )
    assert.deepEqual([guard.policies(), count('digests')], [before, 0], 'nothing is written')
    return
  }
  const last = sha256.endsWith('0') ? '1' : '0'
  const cases: [string, string][] = [
    [sha256, 'ok'],
    [`${sha256.slice(0, -1)}${last}`, 'EACCES'],
  ]
  for (const [digest, expected] of cases)
    await borrower.lending(guard, listing(`sha256:${digest}`), ({ mustToken }) => {
      using token = mustToken()
      assert.equal(borrower.run(progCommand('xdp', 'xdp', token.number)), expected)
    })
})

test('a delegation tells what it lists, and the lists go with it', { skip }, async () => {
  const digests = [`tag:${tag()}`, 'tag:0000000000000001'].sort()
  const functions = ['bpf_fentry_test1', 'bpf_lsm_file_open']
  await borrower.lending(guard, { ...listing(...digests), targets: { functions } }, ({ id }) => {
    const { terms } = guard.delegation(id)
    assert.deepEqual([terms.programs.digests, terms.targets.functions], [digests, functions])
    assert.deepEqual([count('digests'), count('functions')], [2, 2])
  })
  // The next change of a policy removes what no policy uses any more.
  guard.removePolicy('no such')
  assert.deepEqual([count('digests'), count('functions')], [0, 0])
})

test('an attach target that this kernel does not have is refused, with the nearest that it has', {
  skip,
}, () => {
  assert.throws(
    () => guard.installPolicy('misspelt', policyOf({ targets: { functions: ['bpf_lsm_file_opne'] } })),
    (error: unknown) => error instanceof NotFoundError && /bpf_lsm_file_open"/.test(error.hint!),
  )
  assert.equal(guard.policies().includes('misspelt'), false)
})

test('a unit delegates from its cgroup, also when that is made anew', { skip }, () => {
  const slice = '/sys/fs/cgroup/system.slice'
  const unit = `${slice}/agent.service`
  const who = { unit: 'agent.service' }
  const create = (): string => {
    try {
      using context = fsopen('bpf')
      fsconfigString(context, 'delegate_cmds', '1')
      fsconfigCreate(context)
      return 'ok'
    } catch (error) {
      if (error instanceof SyscallError) return error.errnoName
      throw error
    }
  }
  const moveTo = (cgroup: string): void => writeFileSync(`${cgroup}/cgroup.procs`, String(process.pid))
  mkdirSync(slice)
  try {
    guard.allow(who, { implicit: true, policy: policyOf({ masks: { cmds: 1n } }) })
    assert.deepEqual(
      guard.delegators().map(one => [one.who, one.implicit]),
      [[who, true]],
    )
    for (let start = 0; start < 2; start++) {
      mkdirSync(unit)
      moveTo(unit)
      assert.equal(create(), 'ok', `start ${start}`)
      moveTo(slice)
      assert.equal(create(), 'EACCES', 'beside it')
      rmdirSync(unit)
    }
    assert.equal(guard.disallow(who), true)
    assert.equal(guard.disallow(who), false)
    mkdirSync(unit)
    moveTo(unit)
    assert.equal(create(), 'EACCES', 'no delegator any more')
  } finally {
    moveTo('/sys/fs/cgroup')
    rmdirSync(unit)
    rmdirSync(slice)
  }
})

test('all delegations are read at once', { skip }, () =>
  borrower.lending(guard, {}, ({ id }) => {
    const addon = native()
    let calls = 0
    use({
      ...addon,
      bpf: (...call) => {
        calls++
        return addon.bpf(...call)
      },
    })
    try {
      assert.ok(guard.delegations().some(one => one.id === id))
    } finally {
      use(addon)
    }
    // Each live delegation takes a few; there is no place kept for those that do not live.
    assert.ok(calls > 0 && calls < 50, `${calls} calls of bpf(2)`)
  }),
)
