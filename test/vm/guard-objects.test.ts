/**
 * What was lent is judged by itself, whoever holds it: programs that the verifier moves,
 * descriptors that cross user namespaces without a hook, maps that carry devices and programs, and
 * what is taken away. As in guard-hostile.test.ts, SECURITY.md has the answer to each attempt, the
 * guard must tell of it, and whoever may do the same must succeed.
 *
 *   node --import tsx scripts/vm/vm.ts --kernel 6.12 --tests test/vm/guard-objects.test.ts
 */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { undelegate } from '../../src/delegation/delegate.ts'
import { Btf, type BtfComposite } from '../../src/ebpf/btf/btf.ts'
import { Program } from '../../src/ebpf/prog.ts'
import type { DelegationId } from '../../src/guard/guard.ts'
import { DEFAULT_LIMITS } from '../../src/policy/policy.ts'
import { progDetach } from '../../src/sys/bpf.ts'
import type { Fd } from '../../src/sys/fd.ts'
import { native } from '../../src/sys/native.ts'
import { open } from '../../src/sys/open.ts'
import {
  bpf_attach_type,
  bpf_attr_iter_create,
  bpf_attr_link_create,
  bpf_attr_link_detach,
  bpf_attr_link_update,
  bpf_attr_map_batch,
  bpf_attr_map_elem,
  bpf_attr_obj,
  bpf_attr_prog_attach,
  bpf_attr_prog_load,
  bpf_attr_prog_test_run,
  bpf_attr_raw_tracepoint,
  bpf_cmd,
  bpf_map_flags,
} from '../../src/uapi/bpf.ts'
import {
  AT_FDCWD,
  BPF_F_ALLOW_MULTI,
  BPF_F_BEFORE,
  BPF_F_REPLACE,
  CLONE_NEWNET,
  CLONE_NEWNS,
  CLONE_NEWUSER,
  O_CLOEXEC,
  O_DIRECTORY,
  O_PATH,
  XDP_FLAGS_SKB_MODE,
} from '../../src/uapi/constants.ts'
import { btfCommand, type Command, mapAttr, progCommand, Targets } from '../kernel/delegation/attributes.ts'
import { openIn, outcome, tokenWithin, vocabulary } from '../kernel/delegation/lab.ts'
import { Workload } from '../kernel/delegation/workload.ts'
import { attempt, guard, hostile, lending, mallory, policyAttempt } from './attempts.ts'
import { Borrower, type Changes, type Loan, made, PATH, policyOf } from './borrower.ts'
import { eventually, skip } from './guarded.ts'

const CGROUP_ROOT = '/sys/fs/cgroup'
const CGROUP = `${CGROUP_ROOT}/lent`
const HOME = `${CGROUP}/home`
const BELOW = `${HOME}/below`
const BESIDE = `${CGROUP}/beside`
const JIT_HARDEN = '/proc/sys/net/core/bpf_jit_harden'
const ELSEWHERE = '/mnt'
const LOOPBACK = 1
const NOBODY = 65534
const AF_INET = 2
const AF_XDP = 44
const SOL_XDP = 283
const XDP_RX_RING = 2
const SOL_SOCKET = 1
const SO_REUSEPORT = 15
const SOCK_STREAM = 1
const SOCK_RAW = 3
const BPF_F_PATH_FD = 1 << 14
const {
  BPF_CGROUP_INET_SOCK_CREATE,
  BPF_FLOW_DISSECTOR,
  BPF_SK_MSG_VERDICT,
  BPF_STRUCT_OPS,
  BPF_TCX_INGRESS,
  BPF_TRACE_ITER,
  BPF_XDP,
} = bpf_attach_type

before(() => {
  if (skip !== false) return
  for (const directory of [CGROUP, HOME, BELOW, BESIDE]) mkdirSync(directory)
})
after(async () => {
  if (skip !== false) return
  // A cgroup is in use until its last task has been reaped.
  for (const directory of [BESIDE, BELOW, HOME, CGROUP])
    await eventually(() => removed(directory), `${directory} is still in use`)
})

function removed(directory: string): boolean {
  try {
    rmdirSync(directory)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EBUSY') return false
    throw error
  }
}

hostile('What nobody can do with what was lent')

// ---- what attempts are made of ----

/** One bpf(2) command of that process itself: `ok` or the errno's name. What it makes is closed. */
async function by(who: Workload, { cmd, attr, refs }: Command): Promise<string> {
  const pointers = []
  for (let i = 0; i < refs.length; i += 3)
    pointers.push({ off: refs[i + 1] as number, text: refs[i + 2] as Uint8Array })
  const result = await who.call('bpf', cmd, attr, ...pointers, attr.length)
  if (result > 2) await who.call('close', result)
  return result < 0 ? outcome(result) : 'ok'
}

/** One bpf(2) command of that process that must make an object; gives its descriptor there. */
async function keep(who: Workload, { cmd, attr, refs }: Command): Promise<number> {
  const pointers = [0, 3].map(i => ({ off: refs[i + 1] as number, text: refs[i + 2] as Uint8Array }))
  return who.must('bpf', cmd, attr, ...pointers, attr.length)
}

/** The same by ourselves, who are root of the host. */
function byRoot({ cmd, attr, refs }: Command): string {
  return outcome(native().bpf(cmd, attr, ...refs))
}

/** Starts one that has `inherited` as its descriptors from 3 on. */
async function withAccomplice(
  start: (inherited: readonly Fd[]) => Promise<Workload>,
  inherited: readonly Fd[],
  body: (who: Workload) => Promise<void>,
): Promise<void> {
  using who = await start(inherited)
  await body(who)
  who[Symbol.dispose]()
  await who.exited
}

/**
 * A socket in the host's network. One of TCP listens, at an address that the kernel chooses. The
 * caller closes it.
 */
async function hostSocket(family: number, kind: number): Promise<Fd> {
  if (family === AF_XDP) {
    const socket = made('socket', native().socket(family, kind, 0))
    assert.equal(native().setsockopt(socket.number, SOL_XDP, XDP_RX_RING, RING), 0)
    return socket
  }
  using who = await Workload.onHost(NOBODY)
  const number = await who.must('socket', family, kind, 0)
  await listening(who, number)
  const socket = await who.give(number)
  who[Symbol.dispose]()
  await who.exited
  return socket
}

/** Has a socket listen, as one of a group: none else comes into a reuseport_sockarray. */
async function listening(who: Workload, socket: number): Promise<void> {
  await who.must('setsockopt', socket, SOL_SOCKET, SO_REUSEPORT, u32(1), 4)
  await who.must('listen', socket, 1)
}

/** An ordinary user of the host. */
const anybody =
  (uid = 1000) =>
  (inherited: readonly Fd[]): Promise<Workload> =>
    Workload.onHost(uid, inherited)
const owner = (inherited: readonly Fd[]): Promise<Workload> => Workload.powerless(inherited)

/** Gives the socket a receive ring. Newer kernels put no socket without one into an xskmap. */
const RING = new Uint8Array(Uint32Array.of(64).buffer)

const u32 = (...values: number[]): Uint8Array => new Uint8Array(Uint32Array.from(values).buffer)

function update(map: number, value: Uint8Array): Command {
  const { key, value: at } = bpf_attr_map_elem.fields
  const attr = bpf_attr_map_elem.encode({ map_fd: map })
  return { cmd: bpf_cmd.BPF_MAP_UPDATE_ELEM, attr, refs: [attr, key.off, u32(0), attr, at.off, value] }
}

type LinkFields = Parameters<typeof bpf_attr_link_create.encode>[0]

function link(program: number, fields: LinkFields): Command {
  return {
    cmd: bpf_cmd.BPF_LINK_CREATE,
    attr: bpf_attr_link_create.encode({ prog_fd: program, ...fields }),
    refs: [],
  }
}

const XDP_LINK: LinkFields = { target_ifindex: LOOPBACK, attach_type: BPF_XDP, flags: XDP_FLAGS_SKB_MODE }
const creating = (target_fd: number): LinkFields => ({ target_fd, attach_type: BPF_CGROUP_INET_SOCK_CREATE })

type AttachFields = Parameters<typeof bpf_attr_prog_attach.encode>[0]

const attach = (fields: AttachFields): Command => ({
  cmd: bpf_cmd.BPF_PROG_ATTACH,
  attr: bpf_attr_prog_attach.encode(fields),
  refs: [],
})
const detach = (fields: AttachFields): Command => ({
  cmd: bpf_cmd.BPF_PROG_DETACH,
  attr: bpf_attr_prog_attach.encode(fields),
  refs: [],
})

function testRun(program: number): Command {
  const { fields } = bpf_attr_prog_test_run
  const attr = bpf_attr_prog_test_run.encode({ prog_fd: program, data_size_in: 64 })
  return { cmd: bpf_cmd.BPF_PROG_TEST_RUN, attr, refs: [attr, fields.data_in.off, new Uint8Array(64)] }
}

const ofMap = (target_fd: number) => ({ target_fd, attach_type: BPF_SK_MSG_VERDICT })

const tcx = (token?: Fd): Command => progCommand('sched_cls', 'tcx_ingress', token?.number)
const xdp = (token?: Fd): Command => progCommand('xdp', 'xdp', token?.number)
const sock = (token?: Fd): Command => progCommand('cgroup_sock', 'cgroup_inet_sock_create', token?.number)
const map = (type: string, token: Fd, shape: Parameters<typeof mapAttr>[2] = {}): Command => ({
  cmd: bpf_cmd.BPF_MAP_CREATE,
  attr: mapAttr(type, token.number, shape),
  refs: [],
})

/** Inner maps are like this one. */
function outer(type: string, token: Fd, inner: Fd): Command {
  return map(type, token, { max_entries: 4, inner_map_fd: inner.number })
}

/**
 * Reads of the context each become more instructions, and these fill more than the page that the
 * program begins with.
 */
const READS = 450

function longProgram(token?: Fd): Command {
  const command = xdp(token)
  const insns = new Uint8Array(8 * (READS + 2))
  for (let i = 0; i < READS; i++) insns.set([0x61, 0x10, 12, 0], 8 * i)
  insns.set([0xb7, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0], 8 * READS)
  const { insn_cnt } = bpf_attr_prog_load.fields
  new DataView(command.attr.buffer, command.attr.byteOffset).setUint32(insn_cnt.off, READS + 2, true)
  return { ...command, refs: command.refs.map((ref, i) => (i === 2 ? insns : ref)) }
}

const rootMakes = ({ cmd, attr, refs }: Command): Fd =>
  made(`command ${cmd}`, native().bpf(cmd, attr, ...refs))

/** A policy's digest for the program that this command loads: the kernel's tag of it. */
function digestOf(command: Command): string {
  using program = Program.fromFd(rootMakes(command))
  return `tag:${program.info().tag}`
}

const directory = (path: string, flags = O_PATH): Fd => open(path, flags | O_DIRECTORY | O_CLOEXEC)

// ---- programs that the verifier moves ----

policyAttempt('load a program that is not on the list, and that grows', async refused => {
  await lending({ programs: { digests: [digestOf(xdp())] } }, ({ id, mustToken }) => {
    using token = mustToken()
    refused(mallory.run(longProgram(token)), id)
    assert.equal(mallory.run(xdp(token)), 'ok')
  })
  await lending({ programs: { digests: [digestOf(longProgram())] } }, ({ mustToken }) => {
    using token = mustToken()
    assert.equal(mallory.run(longProgram(token)), 'ok')
  })
})

policyAttempt('load a program that is not on the list where constants are blinded', async refused => {
  const before = readFileSync(JIT_HARDEN, 'utf8')
  writeFileSync(JIT_HARDEN, '2')
  try {
    await lending({ programs: { digests: [digestOf(xdp())] } }, ({ id, mustToken }) => {
      using token = mustToken()
      refused(mallory.run(sock(token)), id)
      assert.equal(mallory.run(xdp(token)), 'ok')
    })
  } finally {
    writeFileSync(JIT_HARDEN, before)
  }
})

attempt('load more programs than were lent, that grow', refused =>
  lending({ limits: { programs: 2 } }, async ({ id, mustToken }) => {
    using token = mustToken()
    const live = (): number => guard.delegation(id).live.programs
    {
      using _one = mallory.must(longProgram(token))
      using _two = mallory.must(longProgram(token))
      assert.equal(live(), 2)
      refused(mallory.run(longProgram(token)), id)
      await eventually(() => live() === 2, 'the refused one is not counted')
    }
    await eventually(() => live() === 0, 'they are counted down')
    assert.equal(mallory.run(longProgram(token)), 'ok')
  }),
)

policyAttempt('attach a program that has grown, after revocation', refused =>
  lending({ network: 'host' }, ({ id, mustToken }) => {
    using token = mustToken()
    using program = mallory.must(longProgram(token))
    assert.equal(mallory.run(link(program.number, XDP_LINK)), 'ok')
    guard.revoke(id)
    refused(mallory.run(link(program.number, XDP_LINK)), id)
  }),
)

test("a record that is another delegation's is a refusal, and is told of", { skip }, () =>
  lending({ network: 'host' }, ({ id, mustToken }) => {
    using token = mustToken()
    using program = mallory.must(xdp(token))
    const programs = guard.map('programs')
    const delegationIn = (value: Uint8Array): bigint =>
      new DataView(value.buffer, value.byteOffset).getBigUint64(0, true)
    const [key, value] = [...programs.entries()].find(([, value]) => delegationIn(value) === id)!
    const other = Uint8Array.from(value)
    new DataView(other.buffer).setBigUint64(0, id - 1n, true)
    programs.update(key, other)
    guard.pastEvents()
    assert.equal(mallory.run(link(program.number, XDP_LINK)), 'EACCES')
    const event = guard.pastEvents().find(({ reason }) => reason === 'mismatch')
    assert.deepEqual([event?.point, event?.verdict, event?.delegation], ['attach', 'refused', id])
    programs.update(key, value)
    assert.equal(mallory.run(link(program.number, XDP_LINK)), 'ok')
  }),
)

// ---- descriptors that cross user namespaces ----

policyAttempt('use a token from another user namespace', async refused => {
  const load = async ({ mustToken }: Loan): Promise<string> => {
    using token = mustToken()
    let answer = ''
    await withAccomplice(owner, [token], async who => {
      answer = await by(who, progCommand('xdp', 'xdp', 3))
    })
    return answer
  }
  await lending({}, async loan => refused(await load(loan), loan.id))
  await lending({ sharing: { bindMount: false, passToken: true } }, async loan =>
    assert.equal(await load(loan), 'ok'),
  )
})

function strangerAttempt(name: string, command: (program: number) => Command): void {
  policyAttempt(name, async refused => {
    const attached = async ({ mustToken }: Loan): Promise<string> => {
      using token = mustToken()
      using program = mallory.must(xdp(token))
      let answer = ''
      await withAccomplice(anybody(), [program], async who => {
        answer = await by(who, command(3))
      })
      return answer
    }
    await lending({ network: 'host' }, async loan => refused(await attached(loan), loan.id))
    const passed: Changes = { network: 'host', sharing: { bindMount: false, passToken: true } }
    await lending(passed, async loan => assert.equal(await attached(loan), 'ok'))
    // By itself.
    await lending({ network: 'host' }, ({ mustToken }) => {
      using token = mustToken()
      using program = mallory.must(xdp(token))
      assert.equal(mallory.run(command(program.number)), 'ok')
    })
  })
}

strangerAttempt('attach a program from another user namespace', program => link(program, XDP_LINK))
strangerAttempt('run a program as a test from another user namespace', testRun)

policyAttempt("attach to the host's network what may be passed, but not there", async refused => {
  const attached = async ({ mustToken }: Loan): Promise<string> => {
    using token = mustToken()
    using program = mallory.must(xdp(token))
    let answer = ''
    await withAccomplice(anybody(), [program], async who => {
      answer = await by(who, link(3, XDP_LINK))
    })
    return answer
  }
  const sharing = { bindMount: false, passToken: true }
  await lending({ sharing }, async loan => refused(await attached(loan), loan.id))
  await lending({ sharing, network: 'host' }, async loan => assert.equal(await attached(loan), 'ok'))
})

policyAttempt('open a pinned program through a directory that was passed', async refused => {
  const opened = async ({ mustToken }: Loan, inside: (by: Command) => Promise<void>): Promise<string> => {
    using token = mustToken()
    using program = mallory.must(xdp(token))
    const { workload } = mallory
    const directory = await workload.must('openat', AT_FDCWD, PATH, O_DIRECTORY, 0)
    const held = await workload.take(program)
    const { pathname } = bpf_attr_obj.fields
    const name = new TextEncoder().encode('pin\0')
    const pin = bpf_attr_obj.encode({ bpf_fd: held, file_flags: BPF_F_PATH_FD, path_fd: directory })
    const pinned = { cmd: bpf_cmd.BPF_OBJ_PIN, attr: pin, refs: [pin, pathname.off, name] }
    assert.equal(await by(workload, pinned), 'ok')
    // Nobody is asked about a directory: the hook that passing goes by lets it through.
    using root = await workload.give(directory)
    for (const fd of [held, directory]) await workload.must('close', fd)
    const get = (path_fd: number): Command => {
      const attr = bpf_attr_obj.encode({ file_flags: BPF_F_PATH_FD, path_fd })
      return { cmd: bpf_cmd.BPF_OBJ_GET, attr, refs: [attr, pathname.off, name] }
    }
    let answer = ''
    await withAccomplice(anybody(NOBODY), [root], async who => {
      answer = await by(who, get(3))
    })
    await inside(get(root.number))
    return answer
  }
  await lending({}, async loan => {
    const answer = await opened(loan, async get => {
      assert.equal(mallory.run(get), 'ok', 'the workload itself')
      assert.equal(byRoot(get), 'ok', "the host's root")
    })
    refused(answer, loan.id)
  })
  await lending({ sharing: { bindMount: false, passToken: true } }, async loan =>
    assert.equal(await opened(loan, async () => {}), 'ok'),
  )
})

// ---- descriptors of a table that is shared ----

/**
 * Two processes with one table of descriptors: one in namespaces of its own, to which `changes` is
 * lent; the other an ordinary user of the host, in the host's network, who owns that user namespace
 * and so has every capability in it.
 */
async function withTwins(
  changes: Changes,
  body: (inside: Borrower, outside: Workload, id: DelegationId) => Promise<void>,
): Promise<void> {
  const [outside, inside] = await Workload.twins(1000)
  using _outside = outside
  await inside.must('unshare', CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET)
  for (const map of ['uid_map', 'gid_map']) writeFileSync(`/proc/${inside.pid}/${map}`, '0 1000 1')
  using borrower = Borrower.of(inside)
  await body(borrower, outside, await borrower.borrow(guard, policyOf(changes)))
  borrower[Symbol.dispose]()
  outside[Symbol.dispose]()
  await Promise.all([inside.exited, outside.exited])
}

const PASSED: Changes = { network: 'host', sharing: { bindMount: false, passToken: true } }

attempt('use a token through a table of descriptors that is shared', async refused => {
  const used = async (inside: Borrower, outside: Workload): Promise<string> => {
    const token = await inside.ownToken()
    assert.ok(token > 0, `BPF_TOKEN_CREATE: ${token}`)
    assert.equal(await by(inside.workload, progCommand('xdp', 'xdp', token)), 'ok')
    return by(outside, progCommand('xdp', 'xdp', token))
  }
  await withTwins({}, async (inside, outside, id) => refused(await used(inside, outside), id))
  await withTwins(PASSED, async (inside, outside) => assert.equal(await used(inside, outside), 'ok'))
})

attempt("attach a program to the host's network through a table that is shared", async refused => {
  const attached = async (inside: Borrower, outside: Workload): Promise<string> => {
    const token = await inside.ownToken()
    assert.ok(token > 0, `BPF_TOKEN_CREATE: ${token}`)
    const program = await keep(inside.workload, progCommand('xdp', 'xdp', token))
    assert.equal(await by(inside.workload, link(program, XDP_LINK)), 'ok', 'in its own network')
    return by(outside, link(program, XDP_LINK))
  }
  await withTwins({}, async (inside, outside, id) => refused(await attached(inside, outside), id))
  await withTwins(PASSED, async (inside, outside) => assert.equal(await attached(inside, outside), 'ok'))
})

// ---- maps that carry devices and programs ----

for (const type of ['devmap', 'devmap_hash', 'cpumap'] as const)
  policyAttempt(`put something of the host's network into a ${type}`, async refused => {
    const put = ({ mustToken }: Loan): string => {
      using token = mustToken()
      using carrier = mallory.must(map(type, token))
      return mallory.run(update(carrier.number, u32(type === 'cpumap' ? 192 : LOOPBACK)))
    }
    await lending({}, loan => refused(put(loan), loan.id))
    await lending({ network: 'host' }, loan => assert.equal(put(loan), 'ok'))
    // In its own network.
    await lending({}, async ({ mustToken }) => {
      using token = mustToken()
      using carrier = mallory.must(map(type, token))
      const number = await mallory.workload.take(carrier)
      assert.equal(await by(mallory.workload, update(number, u32(type === 'cpumap' ? 192 : LOOPBACK))), 'ok')
      await mallory.workload.must('close', number)
    })
  })

policyAttempt(
  "put a device of the host's network into a devmap from another user namespace",
  async refused => {
    const put = async ({ mustToken }: Loan): Promise<string> => {
      using token = mustToken()
      using carrier = mallory.must(map('devmap', token))
      let answer = ''
      await withAccomplice(anybody(), [carrier], async who => {
        answer = await by(who, update(3, u32(LOOPBACK)))
      })
      return answer
    }
    await lending({}, async loan => refused(await put(loan), loan.id))
    await lending({ network: 'host' }, async loan => assert.equal(await put(loan), 'ok'))
  },
)

/** Two loans at once; the first is revoked after `prepare`. */
async function afterRevoking<T extends Disposable>(
  prepare: (ended: Loan, live: Loan) => T,
  body: (made: T, ids: { ended: DelegationId; live: DelegationId }) => void | Promise<void>,
): Promise<void> {
  await lending({ network: 'host' }, live =>
    lending(
      { network: 'host' },
      async ended => {
        using prepared = prepare(ended, live)
        await body(prepared, { ended: ended.id, live: live.id })
      },
      { path: ELSEWHERE },
    ),
  )
}

class Parts implements Disposable {
  readonly #fds: Fd[] = []

  add(fd: Fd): Fd {
    this.#fds.push(fd)
    return fd
  }

  /** Opens the object with this id. */
  of(number: number): Fd | undefined {
    return this.#fds.find(fd => !fd.closed && fd.number === number)
  }

  [Symbol.dispose](): void {
    for (const fd of this.#fds) fd.close()
  }
}

for (const [what, type, shape, value] of [
  ['prog_array', 'prog_array', {}, (fd: number) => u32(fd)],
  ['devmap', 'devmap', { value_size: 8 }, (fd: number) => u32(LOOPBACK, fd)],
  ['cpumap', 'cpumap', { value_size: 8 }, (fd: number) => u32(192, fd)],
] as const)
  attempt(`put to work a program of an ended delegation by a ${what}`, refused =>
    afterRevoking(
      (ended, live) => {
        const parts = new Parts()
        using endedToken = ended.mustToken()
        using liveToken = live.mustToken()
        const attachType = type === 'prog_array' ? 'xdp' : `xdp_${type}`
        const load = (token: Fd): Fd => parts.add(mallory.must(progCommand('xdp', attachType, token.number)))
        const carrier = (token: Fd): Fd => parts.add(mallory.must(map(type, token, shape)))
        return Object.assign(parts, {
          program: load(endedToken),
          other: load(liveToken),
          own: carrier(endedToken),
          carrier: carrier(liveToken),
        })
      },
      ({ program, other, own, carrier }, { ended }) => {
        assert.equal(mallory.run(update(own.number, value(program.number))), 'ok')
        guard.revoke(ended)
        refused(mallory.run(update(own.number, value(program.number))), ended)
        refused(mallory.run(update(carrier.number, value(program.number))), ended)
        assert.equal(mallory.run(update(carrier.number, value(other.number))), 'ok')
      },
    ),
  )

for (const type of ['array_of_maps', 'hash_of_maps'] as const)
  attempt(
    `put to work a map of an ended delegation by ${type === 'array_of_maps' ? 'an array' : 'a hash'} of maps`,
    refused =>
      afterRevoking(
        (ended, live) => {
          const parts = new Parts()
          using endedToken = ended.mustToken()
          using liveToken = live.mustToken()
          const inner = (token: Fd): Fd => parts.add(mallory.must(map('array', token)))
          const other = inner(liveToken)
          return Object.assign(parts, {
            inner: inner(endedToken),
            other,
            outer: parts.add(mallory.must(outer(type, liveToken, other))),
          })
        },
        ({ inner, other, outer }, { ended }) => {
          const batch = (...fds: number[]): Command => {
            const { keys, values } = bpf_attr_map_batch.fields
            const attr = bpf_attr_map_batch.encode({ map_fd: outer.number, count: fds.length })
            const all = u32(...fds.map((_, i) => i))
            const refs = [attr, keys.off, all, attr, values.off, u32(...fds)]
            return { cmd: bpf_cmd.BPF_MAP_UPDATE_BATCH, attr, refs }
          }
          assert.equal(mallory.run(batch(inner.number, other.number)), 'ok')
          guard.revoke(ended)
          refused(mallory.run(update(outer.number, u32(inner.number))), ended)
          refused(mallory.run(batch(other.number, inner.number)), ended)
          assert.equal(mallory.run(update(outer.number, u32(other.number))), 'ok')
          assert.equal(mallory.run(batch(other.number, other.number)), 'ok')
        },
      ),
  )

attempt("replace the program of another delegation's link", refused =>
  afterRevoking(
    (one, two) => {
      const parts = new Parts()
      using oneToken = one.mustToken()
      using twoToken = two.mustToken()
      const load = (token: Fd): Fd => parts.add(mallory.must(xdp(token)))
      const program = load(oneToken)
      return Object.assign(parts, {
        same: load(oneToken),
        other: load(twoToken),
        link: parts.add(mallory.must(link(program.number, XDP_LINK))),
      })
    },
    ({ same, other, link }, { live }) => {
      refused(mallory.run(swap(link.number, other.number)), live)
      assert.equal(mallory.run(swap(link.number, same.number)), 'ok')
    },
  ),
)

for (const [type, shape, family, kind] of [
  ['sockmap', {}, AF_INET, SOCK_STREAM],
  ['sockhash', {}, AF_INET, SOCK_STREAM],
  ['xskmap', {}, AF_XDP, SOCK_RAW],
  ['reuseport_sockarray', {}, AF_INET, SOCK_STREAM],
] as const)
  policyAttempt(`put a socket of the host's network into a ${type}`, async refused => {
    const put = async ({ mustToken }: Loan): Promise<string> => {
      using token = mustToken()
      using carrier = mallory.must(map(type, token, shape))
      using socket = await hostSocket(family, kind)
      return mallory.run(update(carrier.number, u32(socket.number)))
    }
    await lending({}, async loan => refused(await put(loan), loan.id))
    await lending({ network: 'host' }, async loan => assert.equal(await put(loan), 'ok'))
    // Of its own network.
    await lending({}, async ({ mustToken }) => {
      const { workload } = mallory
      using token = mustToken()
      using carrier = mallory.must(map(type, token, shape))
      const number = await workload.take(carrier)
      const socket = await workload.must('socket', family, kind, 0)
      if (family === AF_INET) await listening(workload, socket)
      else await workload.must('setsockopt', socket, SOL_XDP, XDP_RX_RING, RING, RING.length)
      assert.equal(await by(workload, update(number, u32(socket))), 'ok')
      for (const fd of [socket, number]) await workload.must('close', fd)
    })
  })

attempt('freeze a map that carries devices, after revocation', refused =>
  lending({ network: 'host' }, ({ id, mustToken }) => {
    using token = mustToken()
    using one = mallory.must(map('devmap', token))
    using two = mallory.must(map('devmap', token))
    const freeze = ({ number }: Fd): string =>
      mallory.run({
        cmd: bpf_cmd.BPF_MAP_FREEZE,
        attr: bpf_attr_map_elem.encode({ map_fd: number }),
        refs: [],
      })
    assert.equal(freeze(one), 'ok')
    guard.revoke(id)
    refused(freeze(two), id)
  }),
)

// ---- other ways to attach ----

function rawTracepoint(program: number): Command {
  const { name } = bpf_attr_raw_tracepoint.fields
  const attr = bpf_attr_raw_tracepoint.encode({ prog_fd: program })
  return {
    cmd: bpf_cmd.BPF_RAW_TRACEPOINT_OPEN,
    attr,
    refs: [attr, name.off, new TextEncoder().encode('sys_enter\0')],
  }
}

const iterate = (link: number): Command => ({
  cmd: bpf_cmd.BPF_ITER_CREATE,
  attr: bpf_attr_iter_create.encode({ link_fd: link }),
  refs: [],
})

/**
 * What is done with an object under a delegation: by itself, after revocation, and by a user of the
 * host who shares it.
 */
function objectAttempts(
  what: string,
  make: (token: Fd, parts: Parts) => Fd,
  use: (fd: number) => Command,
): void {
  policyAttempt(`${what} after revocation`, refused =>
    lending({ network: 'host' }, ({ id, mustToken }) => {
      using parts = new Parts()
      using token = mustToken()
      const object = make(token, parts)
      assert.equal(mallory.run(use(object.number)), 'ok')
      guard.revoke(id)
      refused(mallory.run(use(object.number)), id)
    }),
  )
  policyAttempt(`${what} from another user namespace`, async refused => {
    const used = async ({ mustToken }: Loan): Promise<string> => {
      using parts = new Parts()
      using token = mustToken()
      const object = make(token, parts)
      let answer = ''
      await withAccomplice(anybody(), [object], async who => {
        answer = await by(who, use(3))
      })
      return answer
    }
    await lending({ network: 'host' }, async loan => refused(await used(loan), loan.id))
    await lending(PASSED, async loan => assert.equal(await used(loan), 'ok'))
  })
}

objectAttempts(
  'open a raw tracepoint',
  (token, parts) =>
    parts.add(mallory.must(progCommand('raw_tracepoint', 'cgroup_inet_ingress', token.number))),
  rawTracepoint,
)

objectAttempts(
  'create an iterator',
  (token, parts) => {
    const program = progCommand('tracing', 'trace_iter', token.number, new Targets())
    const iter = parts.add(mallory.must(program))
    return parts.add(mallory.must(link(iter.number, { attach_type: BPF_TRACE_ITER })))
  },
  iterate,
)

for (const [who, name] of [
  ['owner', 'read the pin of an iterator after revocation'],
  ['stranger', 'read the pin of an iterator from another user namespace'],
] as const)
  policyAttempt(name, async refused => {
    const pinned = async (
      loan: Loan,
      body: (read: () => Promise<string>) => Promise<void>,
    ): Promise<void> => {
      const { workload } = mallory
      using token = loan.mustToken()
      using program = mallory.must(progCommand('tracing', 'trace_iter', token.number, new Targets()))
      using iterator = mallory.must(link(program.number, { attach_type: BPF_TRACE_ITER }))
      const root = await workload.must('openat', AT_FDCWD, PATH, O_DIRECTORY, 0)
      const held = await workload.take(iterator)
      const { pathname } = bpf_attr_obj.fields
      const attr = bpf_attr_obj.encode({ bpf_fd: held, file_flags: BPF_F_PATH_FD, path_fd: root })
      const refs = [attr, pathname.off, new TextEncoder().encode('pin\0')]
      assert.equal(await by(workload, { cmd: bpf_cmd.BPF_OBJ_PIN, attr, refs }), 'ok')
      await workload.must('fchmodat', root, 'pin', 0o644)
      using directory = await workload.give(root)
      for (const fd of [held, root]) await workload.must('close', fd)
      // To open the iterator runs the program.
      const open = async (who: Workload, at: number): Promise<string> => {
        const result = await who.call('openat', at, 'pin', 0, 0)
        if (result > 2) await who.call('close', result)
        return result < 0 ? outcome(result) : 'ok'
      }
      if (who === 'stranger')
        await withAccomplice(anybody(), [directory], other => body(() => open(other, 3)))
      else {
        const at = await workload.take(directory)
        await body(() => open(workload, at))
        await workload.must('close', at)
      }
    }
    await lending({}, loan =>
      pinned(loan, async read => {
        if (who === 'owner') {
          assert.equal(await read(), 'ok', 'before')
          guard.revoke(loan.id)
        }
        refused(await read(), loan.id)
      }),
    )
    if (who === 'stranger')
      await lending(PASSED, loan => pinned(loan, async read => assert.equal(await read(), 'ok')))
  })

/** A congestion control of three programs, that is registered by a link. */
class Congestion {
  static #names = 0
  readonly map: Fd
  /** The value that names it and its programs. */
  readonly value: Uint8Array

  constructor(token: Fd, parts: Parts) {
    const btf = Btf.parse(readFileSync('/sys/kernel/btf/vmlinux'))
    const all = new Targets()
    const shape = all.structOps()
    using own = mallory.must(btfCommand(token.number))
    const flags = bpf_map_flags.BPF_F_LINK
    this.map = parts.add(
      mallory.must(map('struct_ops', token, { ...shape, btf_fd: own.number, map_flags: flags })),
    )
    this.value = new Uint8Array(shape.value_size!)
    const outer = composite(btf, 'bpf_struct_ops_tcp_congestion_ops')
    const inner = composite(btf, 'tcp_congestion_ops')
    const data = offsetOf(outer, 'data')
    const view = new DataView(this.value.buffer)
    for (const name of ['ssthresh', 'cong_avoid', 'undo_cwnd']) {
      const command = progCommand('struct_ops', 'cgroup_inet_ingress', token.number, all)
      const { expected_attach_type: type } = bpf_attr_prog_load.fields
      const index = inner.members.findIndex(member => member.name === name)
      new DataView(command.attr.buffer, command.attr.byteOffset).setUint32(type.off, index, true)
      const program = parts.add(mallory.must(command))
      view.setBigUint64(data + offsetOf(inner, name), BigInt(program.number), true)
    }
    const name = new TextEncoder().encode(`lent_${Congestion.#names++}`)
    this.value.set(name, data + offsetOf(inner, 'name'))
  }

  /** Writes the value, so that a link may register the map. */
  ready(): this {
    assert.equal(mallory.run(update(this.map.number, this.value)), 'ok')
    return this
  }
}

function composite(btf: Btf, name: string): BtfComposite {
  const type = btf.type(btf.find(name, 'struct')[0]!)
  assert.ok(type.kind === 'struct')
  return type
}

function offsetOf({ members }: BtfComposite, name: string): number {
  return members.find(member => member.name === name)!.bitOff / 8
}

const structOpsLink = (number: number): Command => link(number, { attach_type: BPF_STRUCT_OPS })

objectAttempts(
  'register struct_ops by a link',
  (token, parts) => new Congestion(token, parts).ready().map,
  structOpsLink,
)

// Whoever calls here shares descriptors, and is in the host's network.
attempt('fill struct_ops after revocation', refused =>
  lending({ network: 'host' }, ({ id, mustToken }) => {
    using parts = new Parts()
    using token = mustToken()
    const one = new Congestion(token, parts)
    const two = new Congestion(token, parts)
    assert.equal(mallory.run(update(one.map.number, one.value)), 'ok')
    guard.revoke(id)
    refused(mallory.run(update(two.map.number, two.value)), id)
  }),
)

attempt('fill struct_ops from another user namespace', async refused => {
  const filled = async ({ mustToken }: Loan): Promise<string> => {
    using parts = new Parts()
    using token = mustToken()
    const { map: carrier, value } = new Congestion(token, parts)
    const data = new DataView(value.buffer)
    // Its programs are others' there, at other numbers.
    const programs: Fd[] = []
    for (let at = 0; at < value.length; at += 8) {
      const program = parts.of(Number(data.getBigUint64(at, true)))
      if (program === undefined) continue
      data.setBigUint64(at, BigInt(4 + programs.length), true)
      programs.push(program)
    }
    let answer = ''
    await withAccomplice(anybody(), [carrier, ...programs], async who => {
      answer = await by(who, update(3, value))
    })
    return answer
  }
  await lending({}, async loan => refused(await filled(loan), loan.id))
  await lending(PASSED, async loan => assert.equal(await filled(loan), 'ok'))
})

function swap(link: number, next: number): Command {
  const attr = bpf_attr_link_update.encode({ link_fd: link, new_prog_fd: next })
  return { cmd: bpf_cmd.BPF_LINK_UPDATE, attr, refs: [] }
}

attempt('replace the struct_ops of a link after revocation', refused =>
  lending({ network: 'host' }, ({ id, mustToken }) => {
    using parts = new Parts()
    using token = mustToken()
    const [one, two] = [new Congestion(token, parts), new Congestion(token, parts)]
    // What takes the place of another has its name.
    two.value.set(one.value.subarray(nameAt(), nameAt() + 16), nameAt())
    for (const each of [one, two]) each.ready()
    const held = parts.add(mallory.must(structOpsLink(one.map.number)))
    assert.equal(mallory.run(swap(held.number, two.map.number)), 'ok')
    guard.revoke(id)
    refused(mallory.run(swap(held.number, one.map.number)), id)
  }),
)

/** Where a congestion control's value has its name. */
function nameAt(): number {
  const btf = Btf.parse(readFileSync('/sys/kernel/btf/vmlinux'))
  const data = offsetOf(composite(btf, 'bpf_struct_ops_tcp_congestion_ops'), 'data')
  return data + offsetOf(composite(btf, 'tcp_congestion_ops'), 'name')
}

policyAttempt("replace a link's program after revocation", refused =>
  lending({ network: 'host' }, ({ id, mustToken }) => {
    using token = mustToken()
    using one = mallory.must(xdp(token))
    using two = mallory.must(xdp(token))
    using held = mallory.must(link(one.number, XDP_LINK))
    assert.equal(mallory.run(swap(held.number, two.number)), 'ok')
    guard.revoke(id)
    refused(mallory.run(swap(held.number, one.number)), id)
  }),
)

attempt("replace a link's program from another user namespace", async refused => {
  const swapped = async ({ mustToken }: Loan): Promise<string> => {
    using token = mustToken()
    using one = mallory.must(xdp(token))
    using two = mallory.must(xdp(token))
    using held = mallory.must(link(one.number, XDP_LINK))
    let answer = ''
    await withAccomplice(anybody(), [held, two], async who => {
      answer = await by(who, swap(3, 4))
    })
    return answer
  }
  await lending({ network: 'host' }, async loan => refused(await swapped(loan), loan.id))
  await lending(PASSED, async loan => assert.equal(await swapped(loan), 'ok'))
})

// ---- taking away ----

/** While `body` runs, root of the host has a program attached to the cgroup with these flags. */
async function withHostProgram(at: Fd, flags: number, body: (program: Fd) => Promise<void>): Promise<void> {
  using program = rootMakes(sock())
  const fields = {
    target_fd: at.number,
    attach_bpf_fd: program.number,
    attach_type: BPF_CGROUP_INET_SOCK_CREATE,
  }
  assert.equal(byRoot(attach({ ...fields, attach_flags: flags })), 'ok')
  try {
    await body(program)
  } finally {
    progDetach({
      target_fd: at.number,
      attach_bpf_fd: program.number,
      attach_type: BPF_CGROUP_INET_SOCK_CREATE,
    })
  }
}

attempt("detach the host's program from a cgroup, as any user", async refused => {
  using at = directory(BESIDE)
  await withHostProgram(at, 0, () =>
    withAccomplice(anybody(), [at], async who => {
      refused(await by(who, detach({ target_fd: 3, attach_type: BPF_CGROUP_INET_SOCK_CREATE })))
    }),
  )
  // What that user attached there, it takes away: the kernel asks for the program where it is one
  // of several.
  using own = rootMakes(sock())
  await withAccomplice(anybody(), [at, own], async who => {
    const fields = { target_fd: 3, attach_bpf_fd: 4, attach_type: BPF_CGROUP_INET_SOCK_CREATE }
    assert.equal(await by(who, attach({ ...fields, attach_flags: BPF_F_ALLOW_MULTI })), 'ok')
    assert.equal(await by(who, detach(fields)), 'ok')
  })
})

attempt("replace the host's program at a cgroup, as any user", async refused => {
  using at = directory(BESIDE)
  using other = rootMakes(sock())
  await withHostProgram(at, 0, () =>
    withAccomplice(anybody(), [at, other], async who => {
      const fields = { target_fd: 3, attach_bpf_fd: 4, attach_type: BPF_CGROUP_INET_SOCK_CREATE }
      refused(await by(who, attach(fields)))
    }),
  )
})

attempt("detach the host's program from its own cgroup by naming one of its own", refused =>
  lending({ revocable: false, cgroups: 'any' }, async ({ mustToken }) => {
    using token = mustToken()
    using own = mallory.must(sock(token))
    using at = directory(HOME)
    const fields = {
      target_fd: at.number,
      attach_bpf_fd: own.number,
      attach_type: BPF_CGROUP_INET_SOCK_CREATE,
    }
    await withHostProgram(at, 0, async () =>
      refused(mallory.run(detach(fields)), guard.delegations().at(-1)!.id),
    )
    assert.equal(mallory.run(attach(fields)), 'ok')
    assert.equal(mallory.run(detach(fields)), 'ok', 'what is its own')
  }),
)

attempt("detach the host's program from a device without naming it, as any user", async refused => {
  using program = rootMakes(tcx())
  const fields = { target_ifindex: LOOPBACK, attach_type: BPF_TCX_INGRESS }
  assert.equal(byRoot(attach({ ...fields, attach_bpf_fd: program.number })), 'ok')
  await withAccomplice(anybody(), [program], async who => {
    refused(await by(who, detach({ ...fields, attach_flags: BPF_F_BEFORE })))
    assert.equal(await by(who, detach({ ...fields, attach_bpf_fd: 3 })), 'ok', 'who has the program')
  })
})

/** While `body` runs, root of the host has a program attached to a device. */
async function withHostTcx(body: (program: Fd, fields: AttachFields) => Promise<void>): Promise<void> {
  using program = rootMakes(tcx())
  const fields = { target_ifindex: LOOPBACK, attach_type: BPF_TCX_INGRESS }
  const its = { ...fields, attach_bpf_fd: program.number }
  assert.equal(byRoot(attach(its)), 'ok')
  try {
    await body(program, fields)
    assert.equal(byRoot(detach(its)), 'ok', 'it is still there')
  } finally {
    native().bpf(bpf_cmd.BPF_PROG_DETACH, bpf_attr_prog_attach.encode(its))
  }
}

attempt("detach the host's program from a device whose number is a cgroup's descriptor", async refused => {
  using at = directory(BESIDE)
  using own = rootMakes(tcx())
  await withHostTcx((program, fields) =>
    withAccomplice(anybody(), [at, own, program], async who => {
      assert.equal(await who.must('dup3', 3, LOOPBACK, 0), LOOPBACK)
      refused(await by(who, detach(fields)))
      // The kernel takes 0 for no program, whatever has that number.
      assert.equal(await who.must('dup3', 4, 6, 0), 6)
      refused(await by(who, detach({ ...fields, attach_flags: BPF_F_BEFORE })))
      assert.equal(await by(who, attach({ ...fields, attach_bpf_fd: 6 })), 'ok')
      assert.equal(await by(who, detach({ ...fields, attach_bpf_fd: 6 })), 'ok', 'what is its own')
    }),
  )
})

test("a device is no cgroup, though its number is one's descriptor", { skip }, () =>
  within(HOME, () =>
    lending({}, async () => {
      const { workload } = mallory
      const token = await mallory.ownToken()
      const program = await keep(workload, xdp({ number: token } as Fd))
      const beside = await workload.must('openat', AT_FDCWD, BESIDE, O_PATH | O_DIRECTORY, 0)
      await workload.must('dup3', beside, LOOPBACK, 0)
      assert.equal(await by(workload, link(program, XDP_LINK)), 'ok')
      assert.equal(
        await by(workload, link(program, { ...XDP_LINK, target_ifindex: beside })),
        'EINVAL',
        'the kernel looks for a device of that number',
      )
      for (const fd of [LOOPBACK, beside, program, token]) await workload.must('close', fd)
    }),
  ),
)

/**
 * What may be done only with what one's own delegation, or nobody's, was: by the workload to the
 * host's, and to its own.
 */
const REPLACING: Changes = { network: 'host', revocable: false, cgroups: 'any' }

attempt("replace the host's program at its own cgroup by naming it", refused =>
  lending(REPLACING, async ({ mustToken }) => {
    using token = mustToken()
    using one = mallory.must(sock(token))
    using two = mallory.must(sock(token))
    using at = directory(HOME)
    const fields = { target_fd: at.number, attach_type: BPF_CGROUP_INET_SOCK_CREATE }
    const flags = BPF_F_ALLOW_MULTI | BPF_F_REPLACE
    const replace = (next: Fd, old: Fd): Command =>
      attach({ ...fields, attach_bpf_fd: next.number, attach_flags: flags, replace_bpf_fd: old.number })
    await withHostProgram(at, BPF_F_ALLOW_MULTI, async program => {
      refused(mallory.run(replace(one, program)))
      const its = attach({ ...fields, attach_bpf_fd: one.number, attach_flags: BPF_F_ALLOW_MULTI })
      assert.equal(mallory.run(its), 'ok')
      assert.equal(mallory.run(replace(two, one)), 'ok', 'what is its own')
      assert.equal(mallory.run(detach({ ...fields, attach_bpf_fd: two.number })), 'ok')
    })
  }),
)

attempt("replace the host's program at a device by naming it", refused =>
  lending(REPLACING, async ({ mustToken }) => {
    using token = mustToken()
    using one = mallory.must(tcx(token))
    using two = mallory.must(tcx(token))
    await withHostTcx(async (program, fields) => {
      const replace = (next: Fd, old: Fd): Command =>
        attach({
          ...fields,
          attach_bpf_fd: next.number,
          attach_flags: BPF_F_REPLACE,
          replace_bpf_fd: old.number,
        })
      refused(mallory.run(replace(one, program)))
      assert.equal(mallory.run(attach({ ...fields, attach_bpf_fd: one.number })), 'ok')
      assert.equal(mallory.run(replace(two, one)), 'ok', 'what is its own')
      assert.equal(mallory.run(detach({ ...fields, attach_bpf_fd: two.number })), 'ok')
    })
  }),
)

attempt("replace the host's flow dissector", refused =>
  lending(REPLACING, async ({ mustToken }) => {
    const dissector = (token?: Fd): Command => progCommand('flow_dissector', 'flow_dissector', token?.number)
    using token = mustToken()
    using one = mallory.must(dissector(token))
    using two = mallory.must(dissector(token))
    using hosts = rootMakes(dissector())
    const fields = (program: Fd): AttachFields => ({
      attach_bpf_fd: program.number,
      attach_type: BPF_FLOW_DISSECTOR,
    })
    assert.equal(byRoot(attach(fields(hosts))), 'ok')
    try {
      refused(mallory.run(attach(fields(one))))
    } finally {
      assert.equal(byRoot(detach(fields(hosts))), 'ok', 'it is still there')
    }
    for (const own of [one, two]) assert.equal(mallory.run(attach(fields(own))), 'ok')
    assert.equal(mallory.run(detach(fields(two))), 'ok')
  }),
)

for (const [how, command] of [
  ['', (target_fd: number, program: Fd) => attach({ ...ofMap(target_fd), attach_bpf_fd: program.number })],
  [' by a link', (target_fd: number, program: Fd) => link(program.number, ofMap(target_fd))],
] as const)
  attempt(`replace the program of the host's sockmap${how}`, refused =>
    lending(REPLACING, async ({ mustToken }) => {
      using token = mustToken()
      using verdict = mallory.must(progCommand('sk_msg', 'sk_msg_verdict', token.number))
      using own = mallory.must(map('sockmap', token))
      using hosts = rootMakes({ cmd: bpf_cmd.BPF_MAP_CREATE, attr: mapAttr('sockmap'), refs: [] })
      using program = rootMakes(progCommand('sk_msg', 'sk_msg_verdict'))
      const its = { ...ofMap(hosts.number), attach_bpf_fd: program.number }
      assert.equal(byRoot(attach(its)), 'ok')
      refused(mallory.run(command(hosts.number, verdict)))
      assert.equal(byRoot(detach(its)), 'ok', 'it is still there')
      const made = mallory.run(command(own.number, verdict))
      // Links to maps came with Linux 6.10.
      assert.equal(made, 'ok')
    }),
  )

const linkDetach = (fd: number): Command => ({
  cmd: bpf_cmd.BPF_LINK_DETACH,
  attr: bpf_attr_link_detach.encode({ link_fd: fd }),
  refs: [],
})

attempt("detach a link of the host's", refused =>
  lending({}, async () => {
    using program = rootMakes(xdp())
    using hosts = rootMakes(link(program.number, XDP_LINK))
    refused(mallory.run(linkDetach(hosts.number)))
    await withAccomplice(anybody(), [hosts], async who => {
      assert.equal(await by(who, linkDetach(3)), 'ok', 'a user of the host to whom it was given')
    })
  }),
)

attempt("detach another workload's link", refused =>
  lending({ network: 'host' }, async ({ id, mustToken }) => {
    using token = mustToken()
    using program = mallory.must(xdp(token))
    using its = mallory.must(link(program.number, XDP_LINK))
    using other = await Borrower.start()
    refused(other.run(linkDetach(its.number)), id)
    assert.equal(mallory.run(linkDetach(its.number)), 'ok')
    other[Symbol.dispose]()
    await other.workload.exited
  }),
)

// ---- the rules of a user namespace ----

/** What counts there: own network and revocable, enforced and watched. */
function rulesThere(number: number): number[] {
  const { enforced, watched } = guard.tables.namespaces.get(number)!
  return [enforced, watched].flatMap(rules => [rules.own_network, rules.revocable])
}

test('rules of a user namespace end with its last token and program, whatever maps are left', {
  skip,
}, async () => {
  const id = await mallory.borrow(guard, policyOf())
  const number = guard.delegation(id).userNamespace!
  using root = await openIn(mallory.target, PATH)
  using token = made('BPF_TOKEN_CREATE', tokenWithin(mallory.target, root.number))
  using left = mallory.must(map('array', token))
  root.close()
  await undelegate(mallory.target, vocabulary)
  assert.deepEqual(rulesThere(number), [1, 1, 0, 0], 'the token is there')
  token.close()
  await eventually(() => rulesThere(number).every(count => count === 0), 'the rules stay')
  assert.equal(guard.delegation(id).live.maps, 1)
  left.close()
  await eventually(() => guard.delegations().length === 0, 'the delegation stays')
  assert.deepEqual(rulesThere(number), [0, 0, 0, 0], 'they are counted down once')
})

// ---- cgroups ----

/** While `body` runs, the workload is in this cgroup, with whatever it is lent. */
async function within(place: string, body: () => Promise<void>): Promise<void> {
  const { pid } = mallory.workload
  const before = readFileSync(`/proc/${pid}/cgroup`, 'utf8').trim().replace(/^0::/, '')
  writeFileSync(`${place}/cgroup.procs`, String(pid))
  try {
    await body()
  } finally {
    writeFileSync(`${CGROUP_ROOT}${before}/cgroup.procs`, String(pid))
  }
}

/**
 * Links a program of the workload's to these cgroups, in the order of their paths: what comes of
 * each.
 */
async function linked(paths: readonly string[], revocable = true): Promise<string[]> {
  const { workload } = mallory
  const token = await mallory.ownToken()
  assert.ok(token > 0, `BPF_TOKEN_CREATE: ${token}`)
  const program = await keep(workload, progCommand('cgroup_sock', 'cgroup_inet_sock_create', token))
  const answers: string[] = []
  for (const path of paths) {
    const at = await workload.must('openat', AT_FDCWD, path, O_PATH | O_DIRECTORY, 0)
    const attach_type = BPF_CGROUP_INET_SOCK_CREATE
    const fields = { target_fd: at, attach_bpf_fd: program, attach_type }
    const attached = attach({ ...fields, attach_flags: BPF_F_ALLOW_MULTI })
    answers.push(await by(workload, revocable ? link(program, creating(at)) : attached))
    if (!revocable && answers.at(-1) === 'ok') assert.equal(await by(workload, detach(fields)), 'ok')
    await workload.must('close', at)
  }
  for (const fd of [program, token]) await workload.must('close', fd)
  return answers
}

for (const [name, revocable] of [
  ['link to a cgroup that is not its own', true],
  ['attach without a link to a cgroup that is not its own', false],
] as const)
  attempt(name, refused =>
    within(HOME, async () => {
      await lending({ revocable }, async ({ id }) => {
        const [own, below, beside, above, root] = await linked(
          [HOME, BELOW, BESIDE, CGROUP, CGROUP_ROOT],
          revocable,
        )
        assert.deepEqual([own, below], ['ok', 'ok'])
        assert.deepEqual([beside, above], ['EACCES', 'EACCES'])
        refused(root!, id)
      })
      await lending({ revocable, cgroups: 'any' }, async () =>
        assert.deepEqual(await linked([BESIDE, CGROUP_ROOT], revocable), ['ok', 'ok']),
      )
    }),
  )

attempt('move to another cgroup, and link there', refused =>
  within(HOME, () =>
    lending({}, async ({ id }) => {
      assert.deepEqual(await linked([HOME]), ['ok'])
      await within(BESIDE, async () => {
        refused((await linked([BESIDE]))[0]!, id)
        assert.deepEqual(await linked([HOME]), ['ok'])
      })
    }),
  ),
)

attempt("link to a cgroup from the root of all, which is nobody's own", refused =>
  within(CGROUP_ROOT, async () => {
    await lending({}, async ({ id }) => refused((await linked([CGROUP_ROOT]))[0]!, id))
    await lending({ cgroups: 'any' }, async () => assert.deepEqual(await linked([CGROUP_ROOT]), ['ok']))
  }),
)

// ---- nobody starves others ----

/**
 * What the guard has counted of a delegation, as if it were alive. The record is read and written
 * back whole: nothing else of the delegation may come or go meanwhile.
 */
function pretend(id: DelegationId, counts: Partial<Record<'tokens' | 'programs' | 'maps', number>>): void {
  const { usages } = guard.tables
  const now = usages.get(id)
  const next = Object.entries(counts).map(([field, more]) => [field, now[field as 'maps'] + more])
  usages.set(id, { ...now, ...Object.fromEntries(next) })
}

for (const [what, kind, make] of [
  ['tokens', 'tokens', ({ token }: Loan) => token()],
  [
    'programs',
    'programs',
    (loan: Loan) => {
      using token = loan.mustToken()
      return mallory.run(xdp(token))
    },
  ],
  [
    'maps',
    'maps',
    (loan: Loan) => {
      using token = loan.mustToken()
      return mallory.map(token)
    },
  ],
] as const)
  attempt(`make more ${what} than anybody may whose policy states no limit`, refused =>
    lending({}, loan => {
      const all = DEFAULT_LIMITS[kind]
      pretend(loan.id, { [kind]: all })
      refused(make(loan), loan.id)
      pretend(loan.id, { [kind]: -all })
      assert.equal(make(loan), 'ok')
    }),
  )

attempt('make more maps by deriving than its origin may, whose policy states no limit', async refused => {
  const derivable = (maxDepth: number): Changes => ({ derive: { allowed: true, maxDepth } })
  await lending(derivable(2), async ({ id }) => {
    const live = (): number => guard.delegation(id).live.maps
    const heirs = [await Borrower.start(), await Borrower.start(), await Borrower.start()] as const
    const [first, second, below] = heirs
    const parts = new Parts()
    pretend(id, { maps: DEFAULT_LIMITS.maps - 2 })
    try {
      // A part that is stated is taken at once, and is more than is left.
      await assert.rejects(first.borrow(guard, policyOf({ limits: { maps: 3 } }), { parent: id }), /EACCES/)
      const one = await first.borrow(guard, policyOf(derivable(1)), { parent: id })
      const two = await second.borrow(guard, policyOf(), { parent: id })
      const three = await below.borrow(guard, policyOf(), { parent: one })
      const make = async ({ target }: Borrower, what: (token: Fd) => void): Promise<void> => {
        using root = await openIn(target, PATH)
        using token = made('BPF_TOKEN_CREATE', tokenWithin(target, root.number))
        what(token)
      }
      await make(first, token => parts.add(first.must(map('array', token))))
      await make(below, token => parts.add(below.must(map('array', token))))
      assert.equal(live(), DEFAULT_LIMITS.maps)
      await make(second, token => refused(second.map(token), two))
      await make(below, token => refused(below.map(token), three))
      parts[Symbol.dispose]()
      await eventually(() => live() === DEFAULT_LIMITS.maps - 2, 'they are not counted down')
      await make(second, token => assert.equal(second.map(token), 'ok'))
      await eventually(() => live() === DEFAULT_LIMITS.maps - 2, 'it is not counted down')
    } finally {
      parts[Symbol.dispose]()
      for (const heir of heirs) {
        heir[Symbol.dispose]()
        await heir.workload.exited
      }
    }
    await eventually(() => guard.delegation(id).live.children === 0, 'the heirs have not gone')
    pretend(id, { maps: 2 - DEFAULT_LIMITS.maps })
    assert.equal(live(), 0)
  })
})

const TABLE = 65536

attempt("make a map when the guard's table is full", refused =>
  lending({ limits: { maps: 100_000 } }, async ({ id, mustToken }) => {
    using token = mustToken()
    const maps = guard.map('maps')
    const key = (i: number): Uint8Array => new Uint8Array(BigUint64Array.of(BigInt(i + 1)).buffer)
    // Its delegation, and its bytes.
    const record = new Uint8Array(BigUint64Array.of(id, 0n).buffer)
    let filled = 0
    try {
      for (; filled < TABLE; filled++) {
        try {
          maps.update(key(filled), record)
        } catch {
          break
        }
      }
      pretend(id, { maps: filled })
      await lending(
        {},
        async other => {
          using theirs = other.mustToken()
          guard.pastEvents()
          const answer = mallory.map(theirs)
          const event = guard.pastEvents().find(({ reason }) => reason === 'full')
          assert.equal(event?.holder, id, 'whose fault it is')
          assert.equal(answer, 'ENOSPC')
          refused(mallory.map(theirs), other.id)
        },
        { path: ELSEWHERE },
      )
    } finally {
      for (let i = 0; i < filled; i++) maps.delete(key(i))
      pretend(id, { maps: -filled })
    }
    assert.equal(mallory.map(token), 'ok')
  }),
)
