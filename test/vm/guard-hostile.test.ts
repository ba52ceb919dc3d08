/**
 * A hostile workload with everything that its namespaces give it. It tries each attempt of a table
 * in SECURITY.md. The answer must be the one written there, and the guard must tell of it. Whoever
 * may do the same must succeed.
 *
 *   node --import tsx scripts/vm/vm.ts --kernel 6.12 --tests test/vm/guard-hostile.test.ts
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, before } from 'node:test'
import { compiled } from '../../scripts/compiled.ts'
import { undelegate } from '../../src/delegation/delegate.ts'
import { BpfMap } from '../../src/ebpf/map.ts'
import { Program } from '../../src/ebpf/prog.ts'
import { Token } from '../../src/ebpf/token.ts'
import { GUARD_DIRECTORY } from '../../src/guard/directory.ts'
import { becomeKeeper } from '../../src/guard/keeper.ts'
import { GUARD_KEEPER_KEY } from '../../src/guard/layout.ts'
import { progDetach } from '../../src/sys/bpf.ts'
import type { Fd } from '../../src/sys/fd.ts'
import { fsconfigCreate, fsconfigFlag, fsconfigString } from '../../src/sys/mount.ts'
import { native } from '../../src/sys/native.ts'
import { open } from '../../src/sys/open.ts'
import {
  bpf_attach_type,
  bpf_attr_get_id,
  bpf_attr_link_create,
  bpf_attr_obj,
  bpf_attr_prog_attach,
  bpf_attr_prog_test_run,
  bpf_cmd,
} from '../../src/uapi/bpf.ts'
import {
  AT_FDCWD,
  CLONE_NEWNS,
  CLONE_NEWUSER,
  FSCONFIG_CMD_CREATE,
  FSCONFIG_SET_FLAG,
  FSCONFIG_SET_STRING,
  FSOPEN_CLOEXEC,
  FSPICK_CLOEXEC,
  MNT_DETACH,
  MOVE_MOUNT_F_EMPTY_PATH,
  MS_BIND,
  MS_MOVE,
  O_CLOEXEC,
  O_DIRECTORY,
  O_RDONLY,
  OPEN_TREE_CLOEXEC,
  OPEN_TREE_CLONE,
  XDP_FLAGS_SKB_MODE,
} from '../../src/uapi/constants.ts'
import { Inconclusive } from '../helpers/conclusive.ts'
import { type Command, MapParts, mapAttr, progCommand, Targets } from '../kernel/delegation/attributes.ts'
import { outcome, vocabulary } from '../kernel/delegation/lab.ts'
import { fsopenWithin } from '../kernel/delegation/within.ts'
import { Workload } from '../kernel/delegation/workload.ts'
import {
  attempt,
  guard,
  guest,
  hostile,
  lending,
  lent,
  mallory,
  policyAttempt,
  type Refused,
} from './attempts.ts'
import { Borrower, type Changes, type Loan, made, PATH, policyOf } from './borrower.ts'
import { inContainer } from './container.ts'
import { hasExpired, skip, untilExpired } from './guarded.ts'

const CGROUP_ROOT = '/sys/fs/cgroup'
const CGROUP = `${CGROUP_ROOT}/lent`
const BELOW = `${CGROUP}/below`
const BESIDE = `${CGROUP_ROOT}/beside`
const ELSEWHERE = '/mnt'
const LOOPBACK = 1
const AF_INET = 2
const NOBODY = 65534

before(() => {
  if (skip === false) for (const directory of [CGROUP, BELOW, BESIDE]) mkdirSync(directory)
})
after(() => {
  if (skip === false) for (const directory of [BESIDE, BELOW, CGROUP]) rmdirSync(directory)
})

hostile('What a hostile workload cannot do')

// ---- what attempts are made of ----

/** fsconfig(2) by mallory, on a context of mallory's: `ok` or the errno's name. */
function configure(context: Fd, cmd: number, key: string | null, value: string | null = null): string {
  return outcome(mallory.call('fsconfig', context.number, cmd, key, value, 0))
}

const contextOf = (who: Borrower): Fd => fsopenWithin(who.target.process.pidfd, 'bpf')

/** `ok` or the errno's name. If the result is a descriptor of the workload, it is closed there. */
async function settled(who: Borrower, result: number): Promise<string> {
  if (result > 2) await who.workload.must('close', result)
  return result < 0 ? outcome(result) : 'ok'
}

type LinkFields = Parameters<typeof bpf_attr_link_create.encode>[0]

function linkCommand(program: Fd | number, fields: LinkFields): Command {
  const number = typeof program === 'number' ? program : program.number
  const attr = bpf_attr_link_create.encode({ prog_fd: number, ...fields })
  return { cmd: bpf_cmd.BPF_LINK_CREATE, attr, refs: [] }
}

const XDP_LINK: LinkFields = {
  target_ifindex: LOOPBACK,
  attach_type: bpf_attach_type.BPF_XDP,
  flags: XDP_FLAGS_SKB_MODE,
}

/** Of the workload itself, in its own network namespace. */
async function ownLink(who: Borrower, program: number, fields: LinkFields): Promise<string> {
  const { cmd, attr } = linkCommand(program, fields)
  return settled(who, await who.workload.call('bpf', cmd, attr, attr.length))
}

/** Attaching to the host's network; whoever is lent that may. */
function attachAttempt(name: string, type: string, attach: string, fields: LinkFields): void {
  policyAttempt(name, async refused => {
    const attached = (who: Loan): string => {
      using token = who.mustToken()
      using program = mallory.must(progCommand(type, attach, token.number))
      using network = open('/proc/self/ns/net', O_RDONLY | O_CLOEXEC)
      const target = fields.target_ifindex === undefined ? { target_fd: network.number } : {}
      return mallory.run(linkCommand(program, { ...fields, ...target }))
    }
    await lending({}, loan => refused(attached(loan), loan.id))
    await lending({ network: 'host' }, loan => assert.equal(attached(loan), 'ok'))
  })
}

// ---- enabling delegation ----

attempt('enable delegation in its own user namespace', async refused => {
  using context = contextOf(mallory)
  refused(configure(context, FSCONFIG_SET_STRING, 'delegate_cmds', 'any'))
  await lending({}, ({ token }) => assert.equal(token(), 'ok'))
})

attempt('mark a context as one that may be delegated', async refused => {
  using context = contextOf(mallory)
  refused(configure(context, FSCONFIG_SET_FLAG, 'delegate'))
  using _ = guard.lend(policyOf())
  fsconfigFlag(context, 'delegate')
})

attempt('name the ability of an installed policy', async refused => {
  using context = contextOf(mallory)
  guard.installPolicy('installed', policyOf())
  refused(configure(context, FSCONFIG_SET_STRING, 'abilities', 'installed'))
  using _ = guard.lend(policyOf())
  fsconfigFlag(context, 'delegate')
  fsconfigString(context, 'abilities', 'installed')
  guard.removePolicy('installed')
})

attempt('run an executable that may delegate, and mark a context', async refused => {
  // Ours, which the children are that make calls in the workload's namespaces.
  const who = { executable: process.execPath }
  guard.allow(who)
  using context = contextOf(mallory)
  refused(configure(context, FSCONFIG_SET_FLAG, 'delegate'))
  fsconfigFlag(context, 'delegate')
  assert.equal(guard.disallow(who), true)
})

attempt('set rights on a context at the address of one that was marked and closed', async refused => {
  using lender = guard.lend(policyOf())
  for (let i = 0; i < 20; i++) {
    {
      using marked = contextOf(mallory)
      fsconfigFlag(marked, 'delegate')
      fsconfigString(marked, 'abilities', lender.ability)
    }
    using context = contextOf(mallory)
    refused(configure(context, FSCONFIG_SET_STRING, 'delegate_cmds', 'any'))
  }
  using pending = BpfMap.open(`${GUARD_DIRECTORY}/maps/pending`)
  using contexts = BpfMap.open(`${GUARD_DIRECTORY}/maps/contexts`)
  assert.deepEqual([...pending.keys(), ...contexts.keys()], [])
  using context = contextOf(mallory)
  fsconfigFlag(context, 'delegate')
  fsconfigString(context, 'delegate_cmds', 'any')
})

attempt('create the superblock of a context that the delegator is setting up', async refused => {
  using lender = guard.lend(policyOf())
  const context = (): Fd => {
    const fresh = contextOf(mallory)
    fsconfigFlag(fresh, 'delegate')
    fsconfigString(fresh, 'abilities', lender.ability)
    fsconfigString(fresh, 'delegate_cmds', 'any')
    return fresh
  }
  using taken = context()
  refused(configure(taken, FSCONFIG_CMD_CREATE, null))
  assert.throws(() => fsconfigCreate(taken), { errnoName: 'EBUSY' })
  assert.equal(lender.delegation(), undefined)
  using other = context()
  fsconfigCreate(other)
})

attempt('delegate by mount(2)', async refused => {
  const { workload } = mallory
  refused(outcome(await workload.call('mount', 'bpf', ELSEWHERE, 'bpf', 0, 'delegate_cmds=any')))
  await lending({}, ({ token }) => assert.equal(token(), 'ok'))
})

attempt('mount again with more rights', async refused => {
  const lent = { cmds: 1n, maps: 2n, progs: 0n, attachs: 0n }
  await lending({ masks: lent }, ({ mustToken }) => {
    using context = made('fspick', mallory.call('fspick', AT_FDCWD, PATH, FSPICK_CLOEXEC))
    refused(configure(context, FSCONFIG_SET_STRING, 'delegate_cmds', 'any'))
    assert.equal(configure(context, FSCONFIG_SET_STRING, 'mode', '0700'), 'ok', 'what needs no right')
    using token = new Token(mustToken())
    assert.deepEqual({ ...token.info() }, lent)
  })
})

attempt('derive for a user namespace of its own making', async refused => {
  const derivable: Changes = { derive: { allowed: true, maxDepth: 1 } }
  await guest(derivable, async ({ workload }, id) => {
    await workload.must('unshare', CLONE_NEWUSER | CLONE_NEWNS)
    const context = await workload.must('fsopen', 'bpf', FSOPEN_CLOEXEC)
    refused(outcome(await workload.call('fsconfig', context, FSCONFIG_SET_STRING, 'delegate_cmds', 'any', 0)))
    using heir = await Borrower.start()
    const child = await heir.borrow(guard, policyOf(), { parent: id })
    assert.equal(guard.delegation(child).parent, id)
    assert.equal(await heir.triesToken(), 'ok')
  })
})

attempt('get more by deriving than its origin has', async refused => {
  const origin: Changes = {
    masks: { cmds: 1n, maps: 2n },
    derive: { allowed: true, maxDepth: 1 },
  }
  await guest(origin, async (_, id) => {
    using heir = await Borrower.start()
    const derived = async (masks: Changes['masks']): Promise<string> => {
      try {
        await heir.borrow(guard, policyOf({ masks: masks! }), { parent: id })
        return 'ok'
      } catch (error) {
        return (error as { errnoName?: string }).errnoName ?? String(error)
      }
    }
    refused(await derived({ cmds: 1n, maps: 6n }))
    assert.equal(await derived({ cmds: 1n, maps: 2n }), 'ok')
  })
})

attempt('make tokens by deriving outside of the cgroup of its origin', async refused => {
  const derive = { allowed: true, maxDepth: 1 }
  const id = await mallory.borrow(guard, lent({ derive }), { cgroup: CGROUP })
  try {
    using heir = await Borrower.start()
    const derived = async (options: { cgroup?: string }): Promise<string> => {
      try {
        await heir.borrow(guard, policyOf(), { parent: id, ...options })
        return 'ok'
      } catch (error) {
        return (error as { errnoName?: string }).errnoName ?? String(error)
      }
    }
    refused(await derived({ cgroup: BESIDE }))
    for (const options of [{}, { cgroup: CGROUP }, { cgroup: BELOW }]) {
      assert.equal(await derived(options), 'ok')
      const { parent, cgroup } = guard.delegations().at(-1)!
      assert.deepEqual([parent, cgroup?.path], [id, options.cgroup ?? CGROUP])
      // Its own place is outside.
      assert.equal(await heir.triesToken(), 'EACCES')
      writeFileSync(`${BELOW}/cgroup.procs`, String(heir.workload.pid))
      assert.equal(await heir.triesToken(), 'ok')
      writeFileSync(`${CGROUP_ROOT}/cgroup.procs`, String(heir.workload.pid))
      await undelegate(heir.target, vocabulary)
    }
    heir[Symbol.dispose]()
    await heir.workload.exited
  } finally {
    await undelegate(mallory.target, vocabulary)
  }
})

// ---- tokens ----

policyAttempt('make more tokens than were lent', refused =>
  lending({ limits: { tokens: 1 } }, ({ id, token, mustToken }) => {
    using _ = mustToken()
    refused(token(), id)
  }),
)

policyAttempt('make a token in another cgroup', async refused => {
  const { workload, target } = mallory
  const id = await mallory.borrow(guard, lent(), { cgroup: CGROUP })
  try {
    refused(await mallory.triesToken(), id)
    writeFileSync(`${CGROUP}/cgroup.procs`, String(workload.pid))
    assert.equal(await mallory.triesToken(), 'ok')
  } finally {
    writeFileSync(`${CGROUP_ROOT}/cgroup.procs`, String(workload.pid))
    await undelegate(target, vocabulary)
  }
})

/**
 * Lends for a moment: `use` must be ok before its end, and after it is the attempt. On a slow
 * machine the moment is over too soon; then a longer one is lent.
 */
async function expiring(refused: Refused, use: (loan: Loan, token: Fd) => string): Promise<void> {
  for (const lifetimeSec of [2, 8, 32]) {
    let inTime = false
    await lending({ limits: { lifetimeSec } }, async loan => {
      try {
        using token = loan.mustToken()
        assert.equal(use(loan, token), 'ok')
        inTime = true
        await untilExpired(guard, loan.id)
        refused(use(loan, token), loan.id)
      } catch (error) {
        if (inTime || !hasExpired(guard, loan.id)) throw error
      }
    })
    if (inTime) return
  }
  throw new Inconclusive('expired before it was used')
}

policyAttempt('make a token after expiry', refused => expiring(refused, ({ token }) => token()))

policyAttempt('use a token after expiry', refused => expiring(refused, (_, token) => mallory.map(token)))

policyAttempt('make a token after revocation', refused =>
  lending({}, async ({ id, token }) => {
    assert.equal(token(), 'ok')
    guard.revoke(id)
    refused(token(), id)
  }),
)

policyAttempt('use a token after revocation', refused =>
  lending({}, async ({ id, mustToken }) => {
    using token = mustToken()
    assert.equal(mallory.map(token), 'ok')
    guard.revoke(id)
    refused(mallory.map(token), id)
  }),
)

const SHARED: Changes = { sharing: { bindMount: true, passToken: false } }

policyAttempt('make a token through a bind mount', async refused => {
  const bound = async (): Promise<string> => {
    const { workload } = mallory
    await workload.must('mount', PATH, ELSEWHERE, '', MS_BIND, '')
    try {
      return await mallory.triesToken(ELSEWHERE)
    } finally {
      await workload.must('umount2', ELSEWHERE, MNT_DETACH)
    }
  }
  await lending({}, async ({ id, token }) => {
    refused(await bound(), id)
    assert.equal(token(), 'ok', 'in its place')
  })
  await lending(SHARED, async () => assert.equal(await bound(), 'ok'))
})

policyAttempt('make a token where mount(2) has moved the mount', async refused => {
  const moved = async (): Promise<string> => {
    const { workload } = mallory
    await workload.must('mount', PATH, ELSEWHERE, '', MS_MOVE, '')
    try {
      return await mallory.triesToken(ELSEWHERE)
    } finally {
      await workload.must('mount', ELSEWHERE, PATH, '', MS_MOVE, '')
    }
  }
  await lending({}, async ({ id, token }) => {
    assert.equal(token(), 'ok')
    refused(await moved(), id)
    assert.equal(token(), 'ok', 'in its place again')
  })
  await lending(SHARED, async ({ token }) => {
    assert.equal(token(), 'ok')
    assert.equal(await moved(), 'ok')
  })
})

policyAttempt('move the mount with move_mount(2)', async refused => {
  const move = (from: string, to: string): string =>
    outcome(mallory.call('move_mount', AT_FDCWD, from, AT_FDCWD, to, 0))
  const moved = (): string => {
    const answer = move(PATH, ELSEWHERE)
    if (answer === 'ok') assert.equal(move(ELSEWHERE, PATH), 'ok')
    return answer
  }
  await lending({}, ({ id }) => refused(moved(), id))
  await lending(SHARED, () => assert.equal(moved(), 'ok'))
})

const cloneOf = (path: string): Fd =>
  made('open_tree', mallory.call('open_tree', AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC))

policyAttempt('mount a clone of the mount', async refused => {
  const attach = (): string => {
    using clone = cloneOf(PATH)
    const target = [AT_FDCWD, ELSEWHERE, MOVE_MOUNT_F_EMPTY_PATH]
    const answer = outcome(mallory.call('move_mount', clone.number, '', ...target))
    if (answer === 'ok') assert.equal(outcome(mallory.call('umount2', ELSEWHERE, MNT_DETACH)), 'ok')
    return answer
  }
  await lending({}, ({ id }) => refused(attach(), id))
  await lending(SHARED, () => assert.equal(attach(), 'ok'))
})

policyAttempt('make a token through a clone that is mounted nowhere', async refused => {
  const tried = async (): Promise<string> => {
    const { workload } = mallory
    const clone = await workload.must('open_tree', AT_FDCWD, PATH, OPEN_TREE_CLONE)
    const root = await workload.must('openat', clone, '.', O_DIRECTORY, 0)
    const token = await workload.token(root)
    for (const fd of [root, clone]) await workload.must('close', fd)
    return settled(mallory, token)
  }
  await lending({}, async ({ id }) => refused(await tried(), id))
  await lending(SHARED, async () => assert.equal(await tried(), 'ok'))
})

policyAttempt('make a token in a copy of its mount namespace', async refused => {
  const copied = async (who: Borrower): Promise<string> => {
    await who.workload.must('unshare', CLONE_NEWNS)
    return who.triesToken()
  }
  await guest({}, async (who, id) => {
    assert.equal(await who.triesToken(), 'ok')
    refused(await copied(who), id)
  })
  await guest(SHARED, async who => assert.equal(await copied(who), 'ok'))
})

attempt('make a token in a nested user namespace', refused =>
  guest(SHARED, async who => {
    assert.equal(await who.triesToken(), 'ok')
    await who.workload.must('unshare', CLONE_NEWUSER | CLONE_NEWNS)
    refused(await who.triesToken())
  }),
)

attempt('use a token in a nested user namespace', refused =>
  guest({}, async who => {
    const token = await who.ownToken()
    const used = async (): Promise<string> => settled(who, await who.workload.map('hash', token))
    assert.equal(await used(), 'ok')
    await who.workload.must('unshare', CLONE_NEWUSER)
    refused(await used())
  }),
)

attempt('open a token again through /proc', refused =>
  lending({}, async () => {
    const { workload } = mallory
    const token = await mallory.ownToken()
    const again = async (number: number): Promise<string> =>
      settled(mallory, await workload.call('openat', AT_FDCWD, `/proc/self/fd/${number}`, 0, 0))
    refused(await again(token))
    const file = await workload.must('openat', AT_FDCWD, '/proc/self/status', 0, 0)
    assert.equal(await again(file), 'ok', 'another file')
    assert.equal(await settled(mallory, await workload.map('hash', token)), 'ok', 'the token as it is')
    for (const fd of [file, token]) await workload.must('close', fd)
  }),
)

const PASSING: Changes = { sharing: { bindMount: false, passToken: true } }

/** By SCM_RIGHTS, from the workload to us. */
async function given(number: number): Promise<string> {
  const fd = (await mallory.workload.give(number)) as Fd | undefined
  fd?.close()
  return fd === undefined ? 'no descriptor arrives' : 'ok'
}

policyAttempt('pass a token to another user namespace', async refused => {
  const passed = async (): Promise<string> => {
    const token = await mallory.ownToken()
    const answer = await given(token)
    await mallory.workload.must('close', token)
    return answer
  }
  await lending({}, async ({ id }) => refused(await passed(), id))
  await lending(PASSING, async () => assert.equal(await passed(), 'ok'))
})

policyAttempt('pass a program to another user namespace', async refused => {
  const passed = async ({ mustToken }: Loan): Promise<string> => {
    using token = mustToken()
    using program = mallory.must(progCommand('xdp', 'xdp', token.number))
    const number = await mallory.workload.take(program)
    assert.ok(number > 0, 'within the namespace it may be passed')
    const answer = await given(number)
    await mallory.workload.must('close', number)
    return answer
  }
  await lending({}, async loan => refused(await passed(loan), loan.id))
  await lending(PASSING, async loan => assert.equal(await passed(loan), 'ok'))
})

policyAttempt('pass a map that carries devices to another user namespace', async refused => {
  const passed = async ({ mustToken }: Loan, type: string): Promise<string> => {
    using token = mustToken()
    using map = mallory.must({ cmd: bpf_cmd.BPF_MAP_CREATE, attr: mapAttr(type, token.number), refs: [] })
    const within = await mallory.workload.take(map)
    assert.ok(within > 0, 'within the namespace it may be passed')
    await mallory.workload.must('close', within)
    using anybody = await Workload.onHost(NOBODY)
    const number = await anybody.take(map)
    anybody[Symbol.dispose]()
    await anybody.exited
    return number < 0 ? 'no descriptor arrives' : 'ok'
  }
  await lending({}, async loan => {
    refused(await passed(loan, 'devmap'), loan.id)
    assert.equal(await passed(loan, 'array'), 'ok', 'another map')
  })
  for (const changes of [PASSING, { network: 'host' } as const])
    await lending(changes, async loan => assert.equal(await passed(loan, 'devmap'), 'ok'))
})

policyAttempt('let a process of the host take its token with pidfd_getfd(2)', async refused => {
  const taken = async (): Promise<string> => {
    const token = await mallory.ownToken()
    const answer = outcome(native().pidfd_getfd(mallory.target.process.pidfd.number, token, 0))
    await mallory.workload.must('close', token)
    return answer
  }
  await lending({}, async ({ id }) => refused(await taken(), id))
  await lending(PASSING, async () => assert.equal(await taken(), 'ok'))
})

policyAttempt('receive a token by io_uring with the credentials of its owner', async refused => {
  const received = async (): Promise<string> => {
    const { workload } = mallory
    const token = Number(await mallory.ownToken())
    using taken = made('dup', await takeOut(token))
    await workload.must('close', token)
    const words = ['-t', String(workload.pid), '-U']
    const child = spawn('nsenter', [...words, compiled(join(__dirname, 'personality.c'))], {
      stdio: ['ignore', 'pipe', 'inherit', taken.number],
    })
    let said = ''
    child.stdout!.setEncoding('utf8').on('data', text => {
      said += text
    })
    await once(child, 'close')
    const [own, below] = said.trim().split('\n')
    assert.equal(own, 'ok', 'in the namespace of the token')
    return below === 'refused' ? 'no descriptor arrives' : below!
  }
  await lending({}, async ({ id }) => refused(await received(), id))
  await lending(PASSING, async () => assert.equal(await received(), 'ok'))
})

attempt('pin a token', refused =>
  lending({}, async () => {
    const { workload } = mallory
    const token = await mallory.ownToken()
    const map = await workload.map('hash', token)
    const pathname = { off: bpf_attr_obj.fields.pathname.off, text: `${PATH}/pin` }
    const pin = async (number: number): Promise<string> => {
      const attr = bpf_attr_obj.encode({ bpf_fd: number })
      return outcome(await workload.call('bpf', bpf_cmd.BPF_OBJ_PIN, attr, pathname, attr.length))
    }
    refused(await pin(token))
    assert.equal(await pin(map), 'ok')
    await workload.must('unlinkat', AT_FDCWD, `${PATH}/pin`, 0)
    for (const fd of [map, token]) await workload.must('close', fd)
  }),
)

// ---- what is made with a token ----

policyAttempt('use a capability that was not lent', async refused => {
  const load = ({ mustToken }: Loan): string => {
    using token = mustToken()
    return mallory.run(progCommand('xdp', 'xdp', token.number))
  }
  await lending({ capabilities: ['bpf'] }, loan => refused(load(loan), loan.id))
  await lending({ capabilities: ['bpf', 'net_admin'] }, loan => assert.equal(load(loan), 'ok'))
})

attempt('make a map of a type that was not lent', refused =>
  lending({ masks: { cmds: 1n, maps: 1n << 1n } }, ({ mustToken }) => {
    using token = mustToken()
    refused(mallory.map(token, {}, 'array'))
    assert.equal(mallory.map(token, {}, 'hash'), 'ok')
  }),
)

policyAttempt('make more maps than were lent', refused =>
  lending({ limits: { maps: 1 } }, ({ id, mustToken }) => {
    using token = mustToken()
    using _ = mallory.must({ cmd: bpf_cmd.BPF_MAP_CREATE, attr: mapAttr('hash', token.number), refs: [] })
    refused(mallory.map(token), id)
  }),
)

policyAttempt('make a larger map than was lent', refused =>
  lending({ limits: { mapBytes: 4096n } }, ({ id, mustToken }) => {
    using token = mustToken()
    refused(mallory.map(token, { max_entries: 513 }), id)
    assert.equal(mallory.map(token, { max_entries: 512 }), 'ok')
  }),
)

policyAttempt('make a larger ring buffer than was lent', refused =>
  lending({ limits: { mapBytes: 4096n } }, ({ id, mustToken }) => {
    using token = mustToken()
    refused(mallory.map(token, { max_entries: 8192 }, 'ringbuf'), id)
    assert.equal(mallory.map(token, { max_entries: 4096 }, 'ringbuf'), 'ok')
  }),
)

policyAttempt('load more programs than were lent', refused =>
  lending({ limits: { programs: 1 } }, ({ id, mustToken }) => {
    using token = mustToken()
    const load = progCommand('xdp', 'xdp', token.number)
    using _ = mallory.must(load)
    refused(mallory.run(load), id)
  }),
)

policyAttempt('load a longer program than was lent', async refused => {
  const load = ({ mustToken }: Loan): string => {
    using token = mustToken()
    return mallory.run(progCommand('xdp', 'xdp', token.number))
  }
  await lending({ limits: { instructions: 1 } }, loan => refused(load(loan), loan.id))
  await lending({ limits: { instructions: 2 } }, loan => assert.equal(load(loan), 'ok'))
})

policyAttempt('load a program that is not on the list', async refused => {
  const { cmd, attr, refs } = progCommand('xdp', 'xdp')
  using known = Program.fromFd(made('BPF_PROG_LOAD', native().bpf(cmd, attr, ...refs)))
  const digests = [`tag:${known.info().tag}`]
  await lending({ programs: { digests } }, ({ id, mustToken }) => {
    using token = mustToken()
    refused(mallory.run(progCommand('cgroup_skb', 'cgroup_inet_egress', token.number)), id)
    assert.equal(mallory.run(progCommand('xdp', 'xdp', token.number)), 'ok')
  })
})

/** Made on first use, since it reads all types of the kernel. */
let targets: Targets | undefined

function functionAttempt(name: string, type: string, attach: string, target: string, other: string): void {
  policyAttempt(name, async refused => {
    targets ??= new Targets()
    const load = ({ mustToken }: Loan): string => {
      using token = mustToken()
      return mallory.run(progCommand(type, attach, token.number, targets))
    }
    const only = (name: string): Changes => ({ targets: { functions: [name] } })
    await lending(only(other), loan => refused(load(loan), loan.id))
    await lending(only(target), loan => assert.equal(load(loan), 'ok'))
  })
}

functionAttempt(
  'trace a function that is not on the list',
  'tracing',
  'trace_fentry',
  'bpf_fentry_test1',
  'bpf_fentry_test2',
)
functionAttempt(
  'load an LSM program for a hook that is not on the list',
  'lsm',
  'lsm_mac',
  'bpf_lsm_file_open',
  'bpf_lsm_task_alloc',
)

policyAttempt('register a struct_ops that nothing undoes', async refused => {
  targets ??= new Targets()
  using parts = new MapParts(targets)
  const make = ({ mustToken }: Loan): string => {
    using token = mustToken()
    return mallory.run(parts.command('struct_ops', token.number))
  }
  await lending({}, loan => refused(make(loan), loan.id))
  await lending({ revocable: false }, loan => assert.equal(make(loan), 'ok'))
})

attempt("swap the token's descriptor while a map is made", async refused => {
  const limit = 5
  const { workload, target } = mallory
  const id = await mallory.borrow(guard, policyOf({ limits: { maps: limit } }))
  const other = await mallory.borrow(guard, policyOf(), { path: ELSEWHERE })
  const kept = Number(await mallory.ownToken())
  const lost = Number(await mallory.ownToken(ELSEWHERE))
  guard.revoke(other)
  // nsenter is in the workload's user namespace, and the program inherits the tokens.
  using one = made('dup', await takeOut(kept))
  using two = made('dup', await takeOut(lost))
  const attr = Buffer.from(mapAttr('hash', 5)).toString('hex')
  const child = spawn(
    'nsenter',
    ['-t', String(workload.pid), '-U', compiled(join(__dirname, 'swap.c')), attr],
    {
      stdio: ['pipe', 'pipe', 'inherit', one.number, two.number],
    },
  )
  const ended = once(child, 'exit')
  try {
    const [line] = (await once(createInterface({ input: child.stdout! }), 'line')) as [string]
    const { made: maps, ...errors } = JSON.parse(line) as Record<string, number>
    assert.ok(maps! <= limit, `more than those of the token that is good: ${line}`)
    assert.equal(guard.delegation(id).live.maps, maps)
    assert.deepEqual(
      Object.keys(errors).filter(errno => !ANSWERS.has(Number(errno))),
      [],
    )
    if (errors[EDQUOT] === undefined || errors[EPERM] === undefined)
      throw new Inconclusive(`not both tokens were used: ${line}`)
    assert.equal(maps, limit, line)
    refused('EDQUOT', id)
    child.stdin!.end()
  } finally {
    child.kill('SIGKILL')
    await ended
    for (const fd of [kept, lost]) await workload.must('close', fd)
    await undelegate(target, vocabulary)
    await undelegate(target, vocabulary, { path: ELSEWHERE })
  }
})

const [EPERM, EACCES, EDQUOT] = [1, 13, 122]
/**
 * EACCES means that the descriptor was exchanged between the checks of the token and of the map.
 */
const ANSWERS: ReadonlySet<number> = new Set([EPERM, EACCES, EDQUOT])

attempt('hide a refusal in a flood of events', refused =>
  lending({ limits: { maps: 0 } }, ({ id, mustToken }) => {
    using token = mustToken()
    const { lostEvents } = guard.totals()
    for (let i = 0; i < 3100; i++) assert.equal(mallory.map(token), 'EDQUOT')
    assert.ok(guard.totals().lostEvents > lostEvents, 'what has no room is counted')
    guard.pastEvents()
    refused(mallory.map(token), id)
  }),
)

// ---- attaching ----

attachAttempt("attach XDP to the host's network", 'xdp', 'xdp', XDP_LINK)
attachAttempt("attach tcx to the host's network", 'sched_cls', 'tcx_ingress', {
  target_ifindex: LOOPBACK,
  attach_type: bpf_attach_type.BPF_TCX_INGRESS,
})
attachAttempt("attach netfilter to the host's network", 'netfilter', 'netfilter', {
  target_ifindex: 0,
  attach_type: bpf_attach_type.BPF_NETFILTER,
  netfilter_pf: AF_INET,
  netfilter_hooknum: 1,
  netfilter_priority: -100,
})
attachAttempt("attach sk_lookup to the host's network", 'sk_lookup', 'sk_lookup', {
  attach_type: bpf_attach_type.BPF_SK_LOOKUP,
})
attachAttempt("attach a flow dissector to the host's network", 'flow_dissector', 'flow_dissector', {
  attach_type: bpf_attach_type.BPF_FLOW_DISSECTOR,
})

policyAttempt("attach sk_lookup to the host's network by a descriptor of it", refused =>
  lending({}, async ({ id, mustToken }) => {
    using token = mustToken()
    using program = mallory.must(progCommand('sk_lookup', 'sk_lookup', token.number))
    using network = open('/proc/self/ns/net', O_RDONLY | O_CLOEXEC)
    const { workload } = mallory
    const host = await workload.take(network)
    const own = await workload.must('openat', AT_FDCWD, '/proc/self/ns/net', 0, 0)
    const number = await workload.take(program)
    const type = { attach_type: bpf_attach_type.BPF_SK_LOOKUP }
    refused(await ownLink(mallory, number, { ...type, target_fd: host }), id)
    assert.equal(await ownLink(mallory, number, { ...type, target_fd: own }), 'ok')
    for (const fd of [host, own, number]) await workload.must('close', fd)
  }),
)

policyAttempt("attach to the host's network from a nested user namespace", async refused => {
  const attached = async (who: Borrower): Promise<string> => {
    using token = made('BPF_TOKEN_CREATE', await takeOut(await who.ownToken(), who))
    using program = who.must(progCommand('xdp', 'xdp', token.number))
    const number = await who.workload.take(program)
    await who.workload.must('unshare', CLONE_NEWUSER)
    return ownLink(who, number, XDP_LINK)
  }
  await guest({}, async (who, id) => refused(await attached(who), id), { network: 'host' })
  await guest({ network: 'host' }, async who => assert.equal(await attached(who), 'ok'), { network: 'host' })
})

policyAttempt("send to the host's network by running a program as a test", async refused => {
  const attr = bpf_attr_prog_test_run
  const run = (program: number): Command => {
    const bytes = attr.encode({ prog_fd: program, data_size_in: 64 })
    const refs = [bytes, attr.fields.data_in.off, new Uint8Array(64)]
    return { cmd: bpf_cmd.BPF_PROG_TEST_RUN, attr: bytes, refs }
  }
  const tested = ({ mustToken }: Loan): string => {
    using token = mustToken()
    using program = mallory.must(progCommand('xdp', 'xdp', token.number))
    return mallory.run(run(program.number))
  }
  await lending({}, loan => refused(tested(loan), loan.id))
  await lending({ network: 'host' }, loan => assert.equal(tested(loan), 'ok'))
})

policyAttempt('attach to a cgroup what outlives it', async refused => {
  using cgroup = open(CGROUP, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
  const attach_type = bpf_attach_type.BPF_CGROUP_INET_EGRESS
  const attached = ({ mustToken }: Loan): string => {
    using token = mustToken()
    using program = mallory.must(progCommand('cgroup_skb', 'cgroup_inet_egress', token.number))
    const attr = bpf_attr_prog_attach.encode({
      target_fd: cgroup.number,
      attach_bpf_fd: program.number,
      attach_type,
    })
    const answer = mallory.run({ cmd: bpf_cmd.BPF_PROG_ATTACH, attr, refs: [] })
    if (answer === 'ok') progDetach({ target_fd: cgroup.number, attach_type })
    return answer
  }
  await lending({}, loan => refused(attached(loan), loan.id))
  await lending({ revocable: false, cgroups: 'any' }, loan => assert.equal(attached(loan), 'ok'))
})

policyAttempt('attach a program after revocation', refused =>
  lending({ network: 'host' }, ({ id, mustToken }) => {
    using token = mustToken()
    using program = mallory.must(progCommand('xdp', 'xdp', token.number))
    assert.equal(mallory.run(linkCommand(program, XDP_LINK)), 'ok')
    guard.revoke(id)
    refused(mallory.run(linkCommand(program, XDP_LINK)), id)
  }),
)

// ---- the guard itself ----

/** The id of one of the guard's maps. */
function mapId(name: string): number {
  using map = BpfMap.open(`${GUARD_DIRECTORY}/maps/${name}`)
  return map.info().id
}

attempt('open a map of the guard by its id', async refused => {
  const attr = bpf_attr_get_id.encode({ map_id: mapId('tokens') })
  const command = { cmd: bpf_cmd.BPF_MAP_GET_FD_BY_ID, attr, refs: [] }
  refused(mallory.run(command))
  assert.equal(outcome(native().bpf(command.cmd, attr)), 'ok', 'its keeper')
})

attempt('say that it means to change the guard', async refused => {
  using context = contextOf(mallory)
  refused(configure(context, FSCONFIG_SET_FLAG, GUARD_KEEPER_KEY))
  becomeKeeper()
})

const AS_CONTAINER = ', as root of a privileged container'
/** A pin that has nothing to do with the guard. */
const OTHER_PIN = '/sys/fs/bpf/bpftoken-other'

attempt(`open a map of the guard by its id${AS_CONTAINER}`, async refused => {
  refused(inContainer('openMap', String(mapId('tokens'))))
  using other = BpfMap.create({ type: 'array', keyBytes: 4, valueBytes: 4, maxEntries: 1, token: null })
  assert.equal(inContainer('openMap', String(other.info().id)), 'ok')
})

attempt(`open a pin of the guard${AS_CONTAINER}`, async refused => {
  refused(inContainer('openPin', `${GUARD_DIRECTORY}/maps/revocations`))
  assert.equal(inContainer('pin', OTHER_PIN), 'ok')
})

attempt(`remove a pin of the guard${AS_CONTAINER}`, async refused => {
  refused(inContainer('unlink', `${GUARD_DIRECTORY}/links/guard_token_cmd`))
  refused(inContainer('rmdir', `${GUARD_DIRECTORY}/links`))
  assert.equal(inContainer('pin', OTHER_PIN), 'ok')
})

attempt(`rename a pin of the guard${AS_CONTAINER}`, async refused => {
  refused(inContainer('rename', `${GUARD_DIRECTORY}/links/guard_token_cmd`))
  refused(inContainer('rename', GUARD_DIRECTORY))
  assert.equal(inContainer('pin', OTHER_PIN), 'ok')
})

attempt(`put a pin beside those of the guard${AS_CONTAINER}`, async refused => {
  refused(inContainer('plant', `${GUARD_DIRECTORY}/maps/another`))
  refused(inContainer('symlink', `${GUARD_DIRECTORY}/maps/another`))
  assert.equal(inContainer('plant', OTHER_PIN), 'ok')
  assert.equal(inContainer('unlink', OTHER_PIN), 'ok')
})

attempt(`make a directory beside the pins of the guard${AS_CONTAINER}`, async refused => {
  refused(inContainer('mkdir', `${GUARD_DIRECTORY}/links/another`))
  assert.equal(inContainer('mkdir', OTHER_PIN), 'ok')
  assert.equal(inContainer('rmdir', OTHER_PIN), 'ok')
})

attempt(`open a pin of the guard to others${AS_CONTAINER}`, async refused => {
  refused(inContainer('chmod', `${GUARD_DIRECTORY}/maps/revocations`))
  refused(inContainer('chmod', GUARD_DIRECTORY))
  assert.equal(inContainer('mkdir', OTHER_PIN), 'ok')
  assert.equal(inContainer('chmod', OTHER_PIN), 'ok')
  assert.equal(inContainer('rmdir', OTHER_PIN), 'ok')
})

attempt(`detach a link of the guard${AS_CONTAINER}`, async refused => {
  refused(inContainer('detach', `${GUARD_DIRECTORY}/links/guard_token_cmd`))
  await lending({ limits: { maps: 0 } }, ({ mustToken }) => {
    using token = mustToken()
    assert.equal(mallory.map(token), 'EDQUOT', 'and it goes on')
  })
})

attempt(`say that it means to change the guard${AS_CONTAINER}`, async refused => {
  refused(inContainer('keep', GUARD_KEEPER_KEY))
  becomeKeeper()
})

/**
 * Copies a descriptor of the workload into our table. A child there that shares our table does it,
 * so that no hook judges the copy.
 */
async function takeOut(number: number, who: Borrower = mallory): Promise<number> {
  return who.call('pidfd_getfd', who.target.process.pidfd.number, number, 0)
}
