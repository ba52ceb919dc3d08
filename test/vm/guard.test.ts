/**
 * The guard on a real kernel: each refusal beside the same thing allowed. Runs in a VM, where the
 * kernel takes LSM programs and a mistake costs nothing:
 *
 *   node --import tsx scripts/vm/vm.ts --kernel 6.12 --tests test/vm/guard.test.ts
 */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmdirSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { after, before, beforeEach, describe, test } from 'node:test'
import { delegate, delegateContext, undelegate } from '../../src/delegation/delegate.ts'
import { Sandbox } from '../../src/delegation/sandbox.ts'
import { openTarget } from '../../src/delegation/target.ts'
import { BpfMap } from '../../src/ebpf/map.ts'
import { linkIds, programIds } from '../../src/ebpf/object-id.ts'
import { Program } from '../../src/ebpf/prog.ts'
import { NotFoundError } from '../../src/errors.ts'
import { GUARD_DIRECTORY } from '../../src/guard/directory.ts'
import type { GuardEvent } from '../../src/guard/event.ts'
import { type DelegationId, Guard } from '../../src/guard/guard.ts'
import { guardStatus, installGuard, probeGuard, removeGuard } from '../../src/guard/install.ts'
import { guard_event } from '../../src/guard/layout.ts'
import { encodeName } from '../../src/guard/terms.ts'
import type { Policy } from '../../src/policy/policy.ts'
import { endExecutors } from '../../src/sys/executor/pool.ts'
import { Fd } from '../../src/sys/fd.ts'
import { fsconfigCreate, fsconfigFlag, fsconfigString, fsmount, fsopen } from '../../src/sys/mount.ts'
import { native } from '../../src/sys/native.ts'
import { open, openHow } from '../../src/sys/open.ts'
import { recvFds, sendFds, socketPair } from '../../src/sys/socket.ts'
import { bpf_attr_prog_test_run, bpf_cmd } from '../../src/uapi/bpf.ts'
import { AT_FDCWD, O_CLOEXEC, O_RDONLY } from '../../src/uapi/constants.ts'
import { ROOT } from '../helpers/machine.ts'
import { asHostRoot, mapAttr, progCommand } from '../kernel/delegation/attributes.ts'
import { callWithin, openIn, outcome, tokenWithin, vocabulary } from '../kernel/delegation/lab.ts'
import { fsopenWithin } from '../kernel/delegation/within.ts'
import { removeProgram } from '../kernel/delegation/workload.ts'
import { Borrower, type Changes, type Loan, made, policyOf } from './borrower.ts'
import { errnoOf, eventually, skip, untilExpired } from './guarded.ts'

let borrower: Borrower
let guard: Guard

/** Lends under the guard, runs `body`, takes the loan back. */
const lending = (
  changes: Changes,
  body: (loan: Loan) => void | Promise<void>,
  options: Parameters<Borrower['lending']>[3] = {},
): Promise<void> => borrower.lending(guard, changes, body, options)

type MapShape = Parameters<typeof mapAttr>[2]

function mapCommand(token: Fd, shape: MapShape = {}) {
  return { cmd: 0, attr: mapAttr('hash', token.number, shape), refs: [] }
}

const map = (token: Fd, shape: MapShape = {}): string => borrower.run(mapCommand(token, shape))

/** Makes a map. The caller closes it. */
function keptMap(token: Fd, shape: MapShape = {}): Fd {
  return borrower.must(mapCommand(token, shape))
}

const xdp = (token: Fd): string => borrower.run(progCommand('xdp', 'xdp', token.number))

const keptProgram = (token: Fd): Fd => borrower.must(progCommand('xdp', 'xdp', token.number))

/** The last event with this reason, which must be there. */
function eventOf(reason: string): GuardEvent {
  const found = guard.pastEvents().filter(event => event.reason === reason)
  assert.ok(found.length > 0, `no event says ${reason}`)
  return found.at(-1)!
}

before(async () => {
  if (skip !== false) return
  assert.equal(probeGuard(), false, 'no guard at first')
  const started = performance.now()
  assert.equal(await installGuard(), 'installed')
  console.log(`# installed in ${(performance.now() - started).toFixed(0)} ms`)
  guard = Guard.open()
  borrower = await Borrower.start()
})
after(async () => {
  if (skip !== false) return
  borrower[Symbol.dispose]()
  await borrower.workload.exited
  removeProgram()
  guard[Symbol.dispose]()
  await removeGuard()
  assert.equal(probeGuard(), false, 'no guard is left')
  assert.throws(() => Guard.open(), NotFoundError)
})
beforeEach(() => {
  if (skip === false) guard.pastEvents()
})

describe('the guard is installed', { skip }, () => {
  test('it proves itself by the reserved option, and its pins are for root alone', () => {
    assert.equal(probeGuard(), true)
    assert.equal(statSync(GUARD_DIRECTORY).mode & 0o777, 0o700)
    assert.deepEqual(guardStatus().missing, [])
    assert.equal(guardStatus().current, true)
  })

  test('installing it again adopts it', async () => {
    const links = [...linkIds()]
    assert.equal(await installGuard(), 'adopted')
    assert.deepEqual([...linkIds()], links)
  })

  test('another build replaces it with tokens in use, and nothing is lost or counted twice', () =>
    lending({ limits: { maps: 2 } }, async ({ id, mustToken }) => {
      using token = mustToken()
      using _one = keptMap(token)
      const links = [...linkIds()]
      guard.tables.config.change({ build: 1 })
      assert.equal(guardStatus().current, false)
      assert.equal(await installGuard(), 'replaced')
      assert.equal(probeGuard(), true)
      await eventually(() => [...linkIds()].every(link => !links.includes(link)), 'the old links stay')
      assert.equal([...linkIds()].length, links.length)
      using two = keptMap(token)
      assert.equal(guard.delegation(id).live.maps, 2)
      assert.equal(map(token), 'EDQUOT')
      two.close()
      await eventually(() => guard.delegation(id).live.maps === 1, 'the map is not counted down')
      assert.equal(map(token), 'ok')
    }))

  test('BPF without a token, and bpffs without delegation, go on as before', () => {
    const before = guard.totals()
    assert.equal(asHostRoot({ cmd: 0, attr: mapAttr('hash'), refs: [] }), 'ok')
    assert.equal(asHostRoot(progCommand('xdp', 'xdp')), 'ok')
    assert.equal(asHostRoot(progCommand('kprobe', 'cgroup_inet_ingress')), 'ok')
    using context = fsopen('bpf')
    fsconfigString(context, 'mode', '0700')
    fsconfigCreate(context)
    using _mount = fsmount(context, 0)
    mkdirSync('/tmp/plain', { recursive: true })
    execFileSync('mount', ['-t', 'bpf', '-o', 'mode=0700', 'bpf', '/tmp/plain'])
    execFileSync('umount', ['/tmp/plain'])
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'mode=0700', 'tmpfs', '/tmp/plain'])
    execFileSync('umount', ['/tmp/plain'])
    assert.deepEqual(guard.totals(), before)
  })
})

describe('enabling delegation', { skip }, () => {
  test('an allowed delegator marks a context; without the mark no right can be set', async () => {
    await lending({}, ({ mustToken }) => {
      using token = mustToken()
      assert.equal(map(token), 'ok')
    })
    await assert.rejects(delegate(policyOf(), borrower.target, vocabulary), /EACCES/)
    assert.equal(eventOf('no-delegator').verdict, 'refused')
  })

  test('an allowed delegator that does not mark the context sets no right either', () => {
    using _ = guard.lend(policyOf())
    using context = fsopen('bpf')
    assert.equal(
      errnoOf(() => fsconfigString(context, 'delegate_cmds', '1')),
      'EACCES',
    )
    assert.equal(eventOf('not-marked').point, 'option')
    fsconfigFlag(context, 'delegate')
    assert.equal(
      errnoOf(() => fsconfigString(context, 'delegate_cmds', '1')),
      'ok',
    )
  })

  test('a task that is no delegator cannot mark', () => {
    using context = fsopen('bpf')
    assert.equal(
      errnoOf(() => fsconfigFlag(context, 'delegate')),
      'EACCES',
    )
    using _ = guard.lend(policyOf())
    assert.equal(
      errnoOf(() => fsconfigFlag(context, 'delegate')),
      'ok',
    )
  })

  test('an ability that is not installed is refused; one that is counts', () => {
    using lender = guard.lend(policyOf())
    using context = fsopen('bpf')
    fsconfigFlag(context, 'delegate')
    assert.equal(
      errnoOf(() => fsconfigString(context, 'abilities', 'nobody-knows')),
      'ENOENT',
    )
    assert.equal(eventOf('no-ability').name, 'nobody-knows')
    assert.equal(
      errnoOf(() => fsconfigString(context, 'abilities', lender.ability)),
      'ok',
    )
  })

  test('masks beyond the abilities are refused when the superblock is created; abilities add up, an empty value resets', () => {
    guard.installPolicy('maps-only', policyOf({ masks: { cmds: 1n, maps: 2n } }))
    guard.installPolicy('programs-only', policyOf({ masks: { cmds: 32n, progs: 64n, attachs: 1n } }))
    using _ = guard.lend(policyOf())
    const create = (options: [string, string][]): string => {
      using context = fsopenWithin(borrower.target.process.pidfd, 'bpf')
      fsconfigFlag(context, 'delegate')
      for (const [key, value] of options) fsconfigString(context, key, value)
      return errnoOf(() => fsconfigCreate(context))
    }
    const MAPS: [string, string] = ['abilities', 'maps-only']
    const PROGRAMS: [string, string] = ['abilities', 'programs-only']
    assert.equal(create([MAPS, ['delegate_cmds', '1'], ['delegate_maps', '2']]), 'ok')
    assert.equal(create([MAPS, ['delegate_cmds', '33'], ['delegate_maps', '2']]), 'EACCES')
    assert.equal(eventOf('beyond-abilities').point, 'superblock')
    assert.equal(create([MAPS, PROGRAMS, ['delegate_cmds', '33'], ['delegate_progs', '64']]), 'ok')
    assert.equal(create([MAPS, PROGRAMS, ['abilities', ''], ['delegate_cmds', '1']]), 'EACCES', 'reset')
    assert.equal(
      create([MAPS, ['abilities', ''], PROGRAMS, ['delegate_progs', '64']]),
      'ok',
      'reset, then again',
    )
    assert.equal(create([['delegate_cmds', '1']]), 'EACCES', 'marked, no ability')
    guard.removePolicy('maps-only')
    assert.equal(guard.policies().includes('maps-only'), false)
    guard.removePolicy('programs-only')
  })

  test('a permissive policy lets masks beyond it through, and says so', () => {
    guard.installPolicy('lax', policyOf({ masks: { cmds: 1n }, mode: 'permissive' }))
    using _ = guard.lend(policyOf())
    using context = fsopen('bpf')
    fsconfigFlag(context, 'delegate')
    fsconfigString(context, 'abilities', 'lax')
    fsconfigString(context, 'delegate_cmds', '33')
    fsconfigCreate(context)
    assert.equal(eventOf('beyond-abilities').verdict, 'would-refuse')
    guard.removePolicy('lax')
  })

  test('what was said of a context that was closed does not hold for the next one at its address', () => {
    using _ = guard.lend(policyOf())
    for (let i = 0; i < 50; i++) {
      {
        using context = fsopen('bpf')
        fsconfigFlag(context, 'delegate')
      }
      using next = fsopen('bpf')
      assert.equal(
        errnoOf(() => fsconfigString(next, 'delegate_cmds', '1')),
        'EACCES',
      )
    }
    using pending = BpfMap.open(`${GUARD_DIRECTORY}/maps/pending`)
    using contexts = BpfMap.open(`${GUARD_DIRECTORY}/maps/contexts`)
    assert.deepEqual([...pending.keys(), ...contexts.keys()], [])
  })

  test('mount(2) cannot delegate, since nobody can mark its context', () => {
    mkdirSync('/tmp/old', { recursive: true })
    const mount = (options: string): void => {
      execFileSync('mount', ['-t', 'bpf', '-o', options, 'bpf', '/tmp/old'], { stdio: 'ignore' })
    }
    assert.throws(() => mount('delegate_cmds=any'))
    assert.equal(eventOf('old-mount').task, 'mount')
    mount('mode=0700')
    execFileSync('umount', ['/tmp/old'])
  })

  test('an executable on the list delegates without a word of ours, up to its ceiling', () => {
    const who = { executable: process.execPath }
    const create = (cmds: string): string => {
      using context = fsopen('bpf')
      const set = errnoOf(() => fsconfigString(context, 'delegate_cmds', cmds))
      return set === 'ok' ? errnoOf(() => fsconfigCreate(context)) : set
    }
    assert.equal(create('1'), 'EACCES')
    guard.allow(who, { implicit: true, policy: policyOf({ masks: { cmds: 1n } }) })
    assert.equal(create('1'), 'ok')
    assert.equal(create('3'), 'EACCES')
    assert.equal(eventOf('beyond-abilities').point, 'superblock')
    assert.equal(guard.disallow(who), true)
    assert.equal(create('1'), 'EACCES')
  })

  test('a cgroup on the list delegates, and those below it, with all the terms of its ceiling', async () => {
    const parent = '/sys/fs/cgroup/delegators'
    mkdirSync(`${parent}/below`, { recursive: true })
    const who = { cgroup: parent }
    guard.allow(who, { implicit: true, policy: policyOf({ limits: { maps: 1 } }) })
    try {
      await assert.rejects(delegate(policyOf(), borrower.target, vocabulary), /EACCES/)
      assert.equal(eventOf('no-delegator').verdict, 'refused')
      writeFileSync(`${parent}/below/cgroup.procs`, String(process.pid))
      // A process that starts now is in the cgroup, too.
      await endExecutors()
      await delegate(policyOf(), borrower.target, vocabulary)
      using root = await openIn(borrower.target, '/sys/fs/bpf')
      using token = made('BPF_TOKEN_CREATE', tokenWithin(borrower.target, root.number))
      using _one = keptMap(token)
      assert.equal(map(token), 'EDQUOT', 'the limit of the ceiling')
      await undelegate(borrower.target, vocabulary)
    } finally {
      writeFileSync('/sys/fs/cgroup/cgroup.procs', String(process.pid))
      await endExecutors()
      // Its children end by themselves.
      const procs = `${parent}/below/cgroup.procs`
      await eventually(() => readFileSync(procs, 'utf8') === '', 'processes are left in the cgroup')
      guard.disallow(who)
      rmdirSync(`${parent}/below`)
      rmdirSync(parent)
    }
  })

  test('abilities are held to the ceiling of who names them', () => {
    const who = { executable: process.execPath }
    guard.installPolicy('much', policyOf())
    guard.allow(who, { policy: policyOf({ masks: { cmds: 1n, maps: 2n } }) })
    const create = (cmds: string): string => {
      using context = fsopen('bpf')
      fsconfigFlag(context, 'delegate')
      fsconfigString(context, 'abilities', 'much')
      fsconfigString(context, 'delegate_cmds', cmds)
      return errnoOf(() => fsconfigCreate(context))
    }
    assert.equal(create('33'), 'EACCES')
    assert.equal(create('1'), 'ok')
    guard.disallow(who)
    guard.removePolicy('much')
  })

  test('the same policy with lists is ceiling and ability; one with other lists is refused beside it', () => {
    const who = { executable: process.execPath }
    const listing = (digests: string[], functions: string[]): Policy => ({
      ...policyOf({ masks: { cmds: 1n } }),
      programs: { digests },
      targets: { functions },
    })
    const [one, two] = ['tag:0000000000000001', 'tag:0000000000000002']
    const targets = ['bpf_lsm_file_open', 'bpf_fentry_test1']
    const ceiling = listing([one, two], targets)
    guard.allow(who, { policy: ceiling })
    const create = (ability: Policy): string => {
      guard.installPolicy('ability', ability)
      using context = fsopen('bpf')
      fsconfigFlag(context, 'delegate')
      const named = errnoOf(() => fsconfigString(context, 'abilities', 'ability'))
      if (named !== 'ok') return named
      fsconfigString(context, 'delegate_cmds', '1')
      fsconfigCreate(context)
      const { terms } = guard.delegations().reduce((last, next) => (next.id > last.id ? next : last))
      const held = [terms.programs.digests, terms.targets.functions]
      assert.deepEqual(held, [[one, two], [...targets].sort()])
      return named
    }
    try {
      assert.equal(create(ceiling), 'ok')
      assert.equal(create(listing([two, one, two], [...targets].reverse())), 'ok', 'in another order')
      for (const other of [
        listing([one], targets),
        listing([one, two], targets.slice(1)),
        listing([], targets),
      ]) {
        assert.equal(create(other), 'EACCES')
        assert.equal(eventOf('lists').point, 'mark')
      }
    } finally {
      guard.disallow(who)
      guard.removePolicy('ability')
    }
  })

  test('of two lists of programs none would hold: such abilities do not go together', () => {
    const listed = (digest: string): Policy => ({ ...policyOf(), programs: { digests: [`tag:${digest}`] } })
    guard.installPolicy('one', listed('0000000000000001'))
    guard.installPolicy('two', listed('0000000000000002'))
    guard.installPolicy('free', policyOf())
    using _ = guard.lend(policyOf())
    using context = fsopen('bpf')
    fsconfigFlag(context, 'delegate')
    fsconfigString(context, 'abilities', 'one')
    fsconfigString(context, 'abilities', 'free')
    assert.equal(
      errnoOf(() => fsconfigString(context, 'abilities', 'two')),
      'EACCES',
    )
    assert.equal(eventOf('lists').point, 'mark')
    fsconfigString(context, 'abilities', '')
    fsconfigString(context, 'abilities', 'two')
    for (const name of ['one', 'two', 'free']) guard.removePolicy(name)
  })

  test('in permissive mode what nobody marked is let through, and recorded', async () => {
    guard.configure({ mode: 'permissive' })
    try {
      await delegate(policyOf(), borrower.target, vocabulary)
      assert.equal(eventOf('no-delegator').verdict, 'would-refuse')
      using root = await openIn(borrower.target, '/sys/fs/bpf')
      using token = new Fd(tokenWithin(borrower.target, root.number))
      assert.equal(map(token), 'ok')
      guard.configure({ mode: 'enforce' })
      assert.equal(map(token), 'EPERM', 'a token that the guard did not see made')
      assert.equal(outcome(tokenWithin(borrower.target, root.number)), 'EACCES')
    } finally {
      guard.configure({ mode: 'enforce' })
      await undelegate(borrower.target, vocabulary)
    }
  })
})

describe('use of a delegation', { skip }, () => {
  test('as many tokens as lent, and again when one is closed', () =>
    lending({ limits: { tokens: 2 } }, async ({ id, token, mustToken }) => {
      using one = mustToken()
      using _two = mustToken()
      assert.equal(token(), 'EDQUOT')
      const event = eventOf('tokens')
      assert.equal(event.delegation, id)
      assert.equal(event.cmd, 'token_create')
      assert.equal(guard.delegation(id).live.tokens, 2)
      one.close()
      await eventually(() => guard.delegation(id).live.tokens === 1, 'the token is not counted down')
      using _three = mustToken()
    }))

  test('a permissive policy counts and reports, and lets through', () =>
    lending({ limits: { tokens: 1, maps: 0 }, mode: 'permissive' }, ({ mustToken }) => {
      using token = mustToken()
      using _more = mustToken()
      assert.equal(eventOf('tokens').verdict, 'would-refuse')
      assert.equal(map(token), 'ok')
      assert.equal(eventOf('maps').verdict, 'would-refuse')
    }))

  test('as many maps as lent, and again when one is freed', () =>
    lending({ limits: { maps: 1 } }, async ({ id, mustToken }) => {
      using token = mustToken()
      using kept = keptMap(token)
      assert.equal(map(token), 'EDQUOT')
      const event = eventOf('maps')
      assert.deepEqual([event.type, event.cmd, event.point], ['hash', 'map_create', 'map_create'])
      kept.close()
      await eventually(() => guard.delegation(id).live.maps === 0, 'the map is not counted down')
      assert.equal(map(token), 'ok')
    }))

  test('as many bytes in maps as lent', () =>
    lending({ limits: { mapBytes: 4096n } }, async ({ id, mustToken }) => {
      using token = mustToken()
      // 8 bytes an element.
      assert.equal(map(token, { max_entries: 513 }), 'EDQUOT')
      assert.equal(eventOf('map-bytes').verdict, 'refused')
      using kept = keptMap(token, { max_entries: 512 })
      assert.equal(guard.delegation(id).live.mapBytes, 4096n)
      assert.equal(map(token, { max_entries: 1 }), 'EDQUOT')
      kept.close()
      await eventually(() => guard.delegation(id).live.mapBytes === 0n, 'the bytes are not counted down')
      assert.equal(map(token, { max_entries: 1 }), 'ok')
    }))

  test('as many programs as lent, of as many instructions as lent', async () => {
    await lending({ limits: { programs: 1, instructions: 2 } }, async ({ id, mustToken }) => {
      using token = mustToken()
      using kept = keptProgram(token)
      assert.equal(xdp(token), 'EDQUOT')
      const event = eventOf('programs')
      assert.deepEqual([event.type, event.cmd, event.delegation], ['xdp', 'prog_load', id])
      kept.close()
      await eventually(() => guard.delegation(id).live.programs === 0, 'the program is not counted down')
      assert.equal(xdp(token), 'ok')
    })
    await lending({ limits: { instructions: 1 } }, ({ mustToken }) => {
      using token = mustToken()
      assert.equal(xdp(token), 'EDQUOT')
      assert.equal(eventOf('instructions').verdict, 'refused')
    })
  })

  test('only lent capabilities', async () => {
    await lending({ capabilities: ['bpf'] }, ({ mustToken }) => {
      using token = mustToken()
      assert.equal(map(token), 'ok')
      assert.equal(xdp(token), 'EPERM')
      assert.equal(eventOf('capability').type, 'net_admin')
    })
    await lending({ capabilities: ['bpf', 'net_admin'] }, ({ mustToken }) => {
      using token = mustToken()
      assert.equal(xdp(token), 'ok')
    })
  })

  test('until it is revoked: no new token, no use of the old ones', () =>
    lending({}, async ({ id, token, mustToken }) => {
      using held = mustToken()
      using program = keptProgram(held)
      assert.equal(map(held), 'ok')
      guard.revoke(id)
      assert.equal(token(), 'EACCES')
      assert.equal(map(held), 'EPERM')
      assert.equal(xdp(held), 'EPERM')
      assert.equal(eventOf('revoked').delegation, id)
      assert.equal(guard.delegation(id).revoked, true)
      // What was loaded stays: only detaching takes that.
      assert.ok(program.number > 0)
      await lending2(other => {
        using fresh = other.mustToken()
        assert.equal(map(fresh), 'ok', 'another delegation is not touched')
      })
    }))

  test('until it expires', () =>
    lending({ limits: { lifetimeSec: 5 } }, async ({ id, token, mustToken }) => {
      using held = mustToken()
      assert.equal(map(held), 'ok')
      await untilExpired(guard, id)
      assert.equal(map(held), 'EPERM')
      assert.equal(token(), 'EACCES')
      assert.equal(eventOf('expired').verdict, 'refused')
    }))

  test('in its cgroup only', async () => {
    const elsewhere = '/sys/fs/cgroup/guard-test'
    mkdirSync(elsewhere, { recursive: true })
    await lending(
      {},
      ({ token }) => {
        assert.equal(token(), 'EACCES')
        assert.equal(eventOf('cgroup').cgroup, statSync('/sys/fs/cgroup', { bigint: true }).ino)
      },
      { cgroup: elsewhere },
    )
    await lending(
      {},
      ({ mustToken }) => {
        using _ = mustToken()
      },
      { cgroup: '/sys/fs/cgroup' },
    )
    rmdirSync(elsewhere)
  })

  test('a token is never opened again through /proc; other files are', () =>
    lending({}, ({ mustToken }) => {
      using token = mustToken()
      using file = open('/proc/self/status', O_RDONLY | O_CLOEXEC)
      const reopen = (fd: Fd): string =>
        outcome(
          callWithin(
            borrower.target,
            'openat2',
            AT_FDCWD,
            `/proc/self/fd/${fd.number}`,
            openHow(O_RDONLY | O_CLOEXEC, 0),
          ),
        )
      assert.equal(reopen(token), 'EACCES')
      assert.equal(eventOf('reopened').point, 'reopen')
      assert.equal(
        errnoOf(() => open(`/proc/self/fd/${token.number}`, O_RDONLY | O_CLOEXEC)),
        'EACCES',
        'by the host',
      )
      assert.equal(reopen(file), 'ok')
      assert.equal(map(token), 'ok', 'the token itself')
    }))

  test('a token is passed within its user namespace only, unless the policy shares it', async () => {
    // Our descriptors are those of the workload's child, so that we hold the token too: it is the
    // reception that is judged.
    const passed = (token: Fd): string => {
      const [here, there] = socketPair()
      using one = here
      using other = there
      sendFds(one, Buffer.from('x'), [token])
      const { fds } = recvFds(other, new Uint8Array(1))
      for (const fd of fds) fd.close()
      return fds.length === 1 ? 'passed' : 'kept back'
    }
    await lending({}, ({ id, mustToken }) => {
      using token = mustToken()
      using ourselves = new Fd(native().pidfd_open(process.pid, 0))
      assert.equal(passed(token), 'kept back')
      const event = eventOf('stranger')
      assert.deepEqual([event.point, event.delegation, event.pid], ['receive', id, process.pid])
      assert.equal(passed(ourselves), 'passed', 'other descriptors')
    })
    await lending({ sharing: { bindMount: false, passToken: true } }, ({ mustToken }) => {
      using token = mustToken()
      assert.equal(passed(token), 'passed')
    })
  })

  test("the host's network is of no concern to who has no program that reaches it", async () => {
    const run = (token: Fd): string => {
      const { cmd, attr, refs } = progCommand('raw_tracepoint', 'cgroup_inet_ingress', token.number)
      using program = made('BPF_PROG_LOAD', callWithin(borrower.target, 'bpf', cmd, attr, ...refs))
      const test = bpf_attr_prog_test_run.encode({ prog_fd: program.number })
      return borrower.run({ cmd: bpf_cmd.BPF_PROG_TEST_RUN, attr: test, refs: [] })
    }
    const raw = 1n << 17n
    await lending({ masks: { cmds: 32n, progs: raw, attachs: 1n } }, ({ mustToken }) => {
      using token = mustToken()
      assert.equal(run(token), 'ok')
    })
    await eventually(() => guard.delegations().length === 0, 'the delegation lives on')
    await lending({ masks: { cmds: 32n, progs: raw | (1n << 6n), attachs: 1n } }, ({ mustToken }) => {
      using token = mustToken()
      assert.equal(run(token), 'EACCES')
      assert.equal(eventOf('network').point, 'attach')
    })
  })

  test('its record ends with the last object', async () => {
    let ended: DelegationId | undefined
    await lending({}, ({ id, mustToken }) => {
      ended = id
      using _ = mustToken()
      assert.equal(guard.delegation(id).id, id)
    })
    await eventually(
      () => guard.delegations().every(one => one.id !== ended),
      'the delegation is remembered although nothing of it is left',
    )
  })
})

describe('events', { skip }, () => {
  test('what is allowed is recorded when asked for, with the task and its names', () =>
    lending({}, ({ id, mustToken }) => {
      using token = mustToken()
      assert.equal(guard.pastEvents().length, 0, 'not asked for')
      guard.configure({ audit: true })
      try {
        assert.equal(map(token), 'ok')
        assert.equal(xdp(token), 'ok')
      } finally {
        guard.configure({ audit: false })
      }
      const events = guard.pastEvents()
      assert.deepEqual(
        events.map(({ delegation, point, verdict, reason, type }) => [
          delegation,
          point,
          verdict,
          reason,
          type,
        ]),
        [
          [id, 'map_create', 'allowed', 'none', 'hash'],
          [id, 'prog_load', 'allowed', 'none', 'xdp'],
        ],
      )
      assert.ok(events[0]!.timeNs < events[1]!.timeNs)
      assert.ok(events.every(({ cgroup, pid }) => cgroup > 0n && pid > 0))
    }))

  test('are those that the policy asks for', async () => {
    const after = async (events: Policy['events']): Promise<string[]> => {
      await lending({ events, limits: { maps: 1 } }, ({ mustToken }) => {
        using token = mustToken()
        guard.pastEvents()
        using _one = keptMap(token)
        assert.equal(map(token), 'EDQUOT')
      })
      return guard.pastEvents().map(({ verdict }) => verdict)
    }
    const { refused } = guard.totals()
    assert.deepEqual(await after('none'), [])
    assert.equal(guard.totals().refused, refused + 1n, 'counted all the same')
    assert.deepEqual(await after('refused'), ['refused'])
    assert.deepEqual(await after('all'), ['allowed', 'refused'])
  })

  test('tell once of each capability that a token lacks, however often the verifier asks', () =>
    lending({ capabilities: ['bpf'] }, ({ mustToken }) => {
      const asked = (): string[] =>
        guard.pastEvents().flatMap(({ reason, type }) => (reason === 'capability' ? [type!] : []))
      const load = (token: Fd): string => borrower.run(progCommand('xdp', 'xdp', token.number))
      using token = mustToken()
      assert.equal(load(token), 'EPERM')
      assert.deepEqual(asked(), ['net_admin'])
      assert.equal(load(token), 'EPERM', 'refused all the same')
      assert.deepEqual(asked(), [])
      using another = mustToken()
      assert.equal(load(another), 'EPERM')
      assert.deepEqual(asked(), ['net_admin'])
    }))

  test('those for which there is no room are counted', async () => {
    // The ring buffer puts a header of 8 bytes before each record.
    const room = Math.floor(guard.map('events').maxEntries / (guard_event.size + 8))
    guard.pastEvents()
    const lost = guard.totals().lostEvents
    await lending({ limits: { maps: 0 } }, ({ mustToken }) => {
      using token = mustToken()
      const attr = mapAttr('hash', token.number)
      for (let i = 0; i < room + 100; i++) callWithin(borrower.target, 'bpf', 0, attr)
    })
    assert.ok(guard.totals().lostEvents > lost)
    // A consumer's position and a record may each leave less than one more unused.
    const { length } = guard.pastEvents()
    assert.ok(length >= room - 1 && length <= room, `${length} of ${room}`)
  })
})

describe('delegators', { skip }, () => {
  test('one that was killed is forgotten, with its ability', () => {
    const dead = spawnSync('true').pid
    {
      const { processes } = guard.tables
      const key = { tgid: dead, start_ticks: 1n }
      processes.set(key, { name: encodeName(`gone@${dead}`) })
      guard.installPolicy(`gone@${dead}`, policyOf())
      guard.installPolicy('stays', policyOf())
      using lender = guard.lend(policyOf())
      assert.equal(processes.get(key), undefined)
      assert.deepEqual(guard.policies(), [lender.ability, 'stays'])
    }
    assert.deepEqual(guard.policies(), ['stays'])
    guard.removePolicy('stays')
  })
})

describe('the other direction', { skip }, () => {
  test('a context that the workload opened is marked and configured by the delegator', async () => {
    using sandbox = await Sandbox.start({
      command: [
        process.execPath,
        '-e',
        `require(${JSON.stringify(`${ROOT}/dist/sys/prebuilt.js`)}).loadAddon().fsopen('bpf', 0); setInterval(() => {}, 1000)`,
      ],
      uid: 65534,
      gid: 65534,
      network: 'own',
      capabilities: ['sys_admin', 'bpf'],
    })
    await sandbox.release()
    const { pid } = sandbox
    /** What the descriptor is; it may be closed while we look. */
    const linkOf = (fd: string): string => {
      try {
        return readlinkSync(`/proc/${pid}/fd/${fd}`)
      } catch {
        return ''
      }
    }
    const contextOf = (): number | undefined => {
      const found = readdirSync(`/proc/${pid}/fd`).find(fd => linkOf(fd).includes('[fscontext]'))
      return found === undefined ? undefined : Number(found)
    }
    await eventually(() => contextOf() !== undefined, 'the workload opened no context')
    using target = openTarget(pid)
    await assert.rejects(delegateContext(policyOf(), target, contextOf()!, vocabulary))
    assert.equal(eventOf('no-delegator').point, 'option')
    using lender = guard.lend(policyOf({ limits: { tokens: 3 } }))
    await delegateContext(policyOf(), target, contextOf()!, vocabulary, { guard: lender })
    const made = guard.delegation(lender.delegation()!)
    assert.equal(made.delegatorPid, lender.executor.pid)
    assert.equal(`user:[${made.userNamespace}]`, target.facts.userNamespace)
  })
})

/** Lends a second time, to another sandbox, while the first loan lives. */
async function lending2(body: (loan: Loan) => void | Promise<void>): Promise<void> {
  const first = borrower
  borrower = await Borrower.start()
  try {
    await lending({}, body)
  } finally {
    borrower[Symbol.dispose]()
    await borrower.workload.exited
    borrower = first
  }
}

test('the size of its programs, and the time the verifier took', { skip }, () => {
  let total = 0
  for (const id of programIds()) {
    using program = Program.fromId(id)
    const { name, verifiedInsns, xlatedBytes } = program.info()
    if (!name.startsWith('guard_')) continue
    total++
    console.log(`# ${name}: ${xlatedBytes / 8} instructions, ${verifiedInsns} verified`)
  }
  assert.ok(total >= 14)
})
