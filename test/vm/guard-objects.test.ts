/**
 * What was lent is judged by itself, whoever holds it: programs that the verifier moves, descriptors that cross user namespaces
 * without a hook, maps that carry devices and programs, and what is taken away. As in guard-hostile.test.ts SECURITY.md says what
 * comes of it, the guard's event is seen, and who may do the same does it.
 *
 *   node --import tsx scripts/vm.ts --kernel 6.12 --tests test/vm/guard-objects.test.ts
 */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { Program } from '../../src/ebpf/prog.ts'
import { Guard } from '../../src/guard/guard.ts'
import { installGuard, removeGuard } from '../../src/guard/install.ts'
import { guard_usage } from '../../src/guard/layout.ts'
import { DEFAULT_LIMITS } from '../../src/policy/policy.ts'
import { progDetach } from '../../src/sys/bpf.ts'
import type { Fd } from '../../src/sys/fd.ts'
import { native } from '../../src/sys/native.ts'
import { open } from '../../src/sys/open.ts'
import {
  bpf_attach_type,
  bpf_attr_link_create,
  bpf_attr_link_detach,
  bpf_attr_link_update,
  bpf_attr_map_batch,
  bpf_attr_map_elem,
  bpf_attr_obj,
  bpf_attr_prog_attach,
  bpf_attr_prog_load,
  bpf_attr_prog_test_run,
  bpf_cmd,
} from '../../src/uapi/bpf.ts'
import { AT_FDCWD, O_CLOEXEC, O_DIRECTORY, O_PATH, XDP_FLAGS_SKB_MODE } from '../../src/uapi/constants.ts'
import { type Command, mapAttr, progCommand } from '../kernel/delegation/attributes.ts'
import { outcome } from '../kernel/delegation/lab.ts'
import { removeProgram, Workload } from '../kernel/delegation/workload.ts'
import { readAttempts } from './attempts.ts'
import { Borrower, type Changes, type Loan, made, PATH } from './borrower.ts'
import { eventually, skip } from './guarded.ts'

const CGROUP_ROOT = '/sys/fs/cgroup'
const CGROUP = `${CGROUP_ROOT}/lent`
const HOME = `${CGROUP}/home`
const BELOW = `${HOME}/below`
const BESIDE = `${CGROUP}/beside`
const JIT_HARDEN = '/proc/sys/net/core/bpf_jit_harden'
const LOOPBACK = 1
const NOBODY = 65534
const BPF_F_PATH_FD = 1 << 14
const BPF_F_ALLOW_MULTI = 2
const BPF_F_BEFORE = 8
const { BPF_CGROUP_INET_SOCK_CREATE, BPF_TCX_INGRESS, BPF_XDP } = bpf_attach_type

let guard: Guard
/** The workload, in a cgroup of its own and a network of its own; its children are in the host's. */
let mallory: Borrower

before(async () => {
  if (skip !== false) return
  for (const directory of [CGROUP, HOME, BELOW, BESIDE]) mkdirSync(directory)
  await installGuard()
  guard = Guard.open()
  mallory = await Borrower.start()
  writeFileSync(`${HOME}/cgroup.procs`, String(mallory.workload.pid))
})
after(async () => {
  if (skip !== false) return
  writeFileSync(`${CGROUP_ROOT}/cgroup.procs`, String(mallory.workload.pid))
  mallory[Symbol.dispose]()
  await mallory.workload.exited
  removeProgram()
  guard[Symbol.dispose]()
  await removeGuard()
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

// ---- the list ----

const listed = new Map(readAttempts('What nobody can do with what was lent').map(one => [one.name, one]))
const tried: string[] = []

/** What came of it, and whose delegation the guard's event must name; undefined: nobody's. */
type Refused = (answer: string, delegation?: bigint) => void

function attempt(name: string, body: (refused: Refused) => Promise<void>): void {
  tried.push(name)
  test(name, { skip }, async () => {
    const expected = listed.get(name)
    assert.ok(expected?.guard !== undefined, 'SECURITY.md does not have it')
    const { point, reason } = expected.guard
    let count = 0
    guard.pastEvents()
    await body((answer, delegation) => {
      count++
      assert.equal(answer, expected.answer)
      const told = guard.pastEvents().filter(({ verdict }) => verdict === 'refused')
      const event = told.find(one => one.point === point && one.reason === reason)
      const seen = told.map(one => `${one.point}: ${one.reason}`).join(', ')
      assert.ok(event !== undefined, `no event says ${point}: ${reason}, but ${seen || 'there is none'}`)
      assert.equal(event.delegation, delegation)
    })
    assert.ok(count > 0, 'nothing was tried')
  })
}

test('the list of SECURITY.md is what is tried here', { skip }, () => {
  assert.deepEqual([...listed.keys()].sort(), [...tried].sort())
  assert.ok(tried.length >= 20)
})

// ---- what attempts are made of ----

const lending = (
  changes: Changes,
  body: (loan: Loan) => void | Promise<void>,
  path?: string,
): Promise<void> => mallory.lending(guard, changes, body, path === undefined ? {} : { path })

/** One bpf(2) command of that process itself: `ok` or the errno's name. What it makes is closed. */
async function by(who: Workload, { cmd, attr, refs }: Command): Promise<string> {
  const pointers = []
  for (let i = 0; i < refs.length; i += 3)
    pointers.push({ off: refs[i + 1] as number, text: refs[i + 2] as Uint8Array })
  const result = await who.call('bpf', cmd, attr, ...pointers, attr.length)
  if (result > 2) await who.call('close', result)
  return result < 0 ? outcome(result) : 'ok'
}

/** The same of the host's root, which we are. */
function byRoot({ cmd, attr, refs }: Command): string {
  return outcome(native().bpf(cmd, attr, ...refs))
}

/** With `inherited` as its descriptors from 3 on. */
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

/** An ordinary user of the host. */
const anybody =
  (uid = 1000) =>
  (inherited: readonly Fd[]): Promise<Workload> =>
    Workload.onHost(uid, inherited)
const owner = (inherited: readonly Fd[]): Promise<Workload> => Workload.powerless(inherited)

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

/** Reads of the context each become more instructions, and these fill more than the page that the program begins with. */
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

/** As the kernel knows the program that this loads. */
function digestOf(command: Command): string {
  using program = Program.fromFd(rootMakes(command))
  return `tag:${program.info().tag}`
}

const directory = (path: string, flags = O_PATH): Fd => open(path, flags | O_DIRECTORY | O_CLOEXEC)

// ---- programs that the verifier moves ----

attempt('load a program that is not on the list, and that grows', async refused => {
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

attempt('load a program that is not on the list where constants are blinded', async refused => {
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

attempt('attach a program that has grown, after revocation', refused =>
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

attempt('use a token from another user namespace', async refused => {
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
  attempt(name, async refused => {
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

attempt("attach to the host's network what may be passed, but not there", async refused => {
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

attempt('open a pinned program through a directory that was passed', async refused => {
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

// ---- maps that carry devices and programs ----

for (const type of ['devmap', 'devmap_hash', 'cpumap'] as const)
  attempt(`put something of the host's network into a ${type}`, async refused => {
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

attempt("put a device of the host's network into a devmap from another user namespace", async refused => {
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
})

const ELSEWHERE = '/mnt'

/** Two loans at once; the first is revoked after `prepare`. */
async function afterRevoking<T extends Disposable>(
  prepare: (ended: Loan, live: Loan) => T,
  body: (made: T, ids: { ended: bigint; live: bigint }) => void | Promise<void>,
): Promise<void> {
  await lending({ network: 'host' }, live =>
    lending(
      { network: 'host' },
      async ended => {
        using prepared = prepare(ended, live)
        await body(prepared, { ended: ended.id, live: live.id })
      },
      ELSEWHERE,
    ),
  )
}

class Parts implements Disposable {
  readonly #fds: Fd[] = []

  add(fd: Fd): Fd {
    this.#fds.push(fd)
    return fd
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
      const swap = (program: Fd): string => {
        const attr = bpf_attr_link_update.encode({ link_fd: link.number, new_prog_fd: program.number })
        return mallory.run({ cmd: bpf_cmd.BPF_LINK_UPDATE, attr, refs: [] })
      }
      refused(swap(other), live)
      assert.equal(swap(same), 'ok')
    },
  ),
)

// ---- taking away ----

/** The host's root attaches to a cgroup with these flags, and has it back afterwards. */
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
  // What that user attached there, it takes away: the kernel asks for the program where it is one of several.
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
  using program = rootMakes(progCommand('sched_cls', 'tcx_ingress'))
  const fields = { target_ifindex: LOOPBACK, attach_type: BPF_TCX_INGRESS }
  assert.equal(byRoot(attach({ ...fields, attach_bpf_fd: program.number })), 'ok')
  await withAccomplice(anybody(), [program], async who => {
    refused(await by(who, detach({ ...fields, attach_flags: BPF_F_BEFORE })))
    assert.equal(await by(who, detach({ ...fields, attach_bpf_fd: 3 })), 'ok', 'who has the program')
  })
})

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
    using guest = await Borrower.start()
    refused(guest.run(linkDetach(its.number)), id)
    assert.equal(mallory.run(linkDetach(its.number)), 'ok')
    guest[Symbol.dispose]()
    await guest.workload.exited
  }),
)

// ---- cgroups ----

/** Links a program of the workload's to these cgroups, in the order of their paths: what comes of each. */
async function linked(paths: readonly string[], revocable = true): Promise<string[]> {
  const { workload } = mallory
  const token = await mallory.ownToken()
  assert.ok(token > 0, outcome(token))
  const { cmd, attr, refs } = progCommand('cgroup_sock', 'cgroup_inet_sock_create', token)
  const pointers = [0, 3].map(i => ({ off: refs[i + 1] as number, text: refs[i + 2] as Uint8Array }))
  const program = await workload.must('bpf', cmd, attr, ...pointers, attr.length)
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
  attempt(name, async refused => {
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
  })

attempt('move to another cgroup, and link there', refused =>
  lending({}, async ({ id }) => {
    assert.deepEqual(await linked([HOME]), ['ok'])
    writeFileSync(`${BESIDE}/cgroup.procs`, String(mallory.workload.pid))
    try {
      refused((await linked([BESIDE]))[0]!, id)
      assert.deepEqual(await linked([HOME]), ['ok'])
    } finally {
      writeFileSync(`${HOME}/cgroup.procs`, String(mallory.workload.pid))
    }
  }),
)

attempt("link to a cgroup from the root of all, which is nobody's own", async refused => {
  writeFileSync(`${CGROUP_ROOT}/cgroup.procs`, String(mallory.workload.pid))
  try {
    await lending({}, async ({ id }) => refused((await linked([CGROUP_ROOT]))[0]!, id))
    await lending({ cgroups: 'any' }, async () => assert.deepEqual(await linked([CGROUP_ROOT]), ['ok']))
  } finally {
    writeFileSync(`${HOME}/cgroup.procs`, String(mallory.workload.pid))
  }
})

// ---- nobody starves others ----

/** What the guard has counted of a delegation, as if it were alive. */
function pretend(id: bigint, counts: Partial<Record<'tokens' | 'programs' | 'maps', number>>): void {
  const usages = guard.map('usages')
  const slot = Number(id % 8192n)
  const now = guard_usage.decode(usages.lookup(slot)!) as Parameters<typeof guard_usage.encode>[0]
  const next = Object.entries(counts).map(([field, more]) => [field, now[field as 'maps']! + more])
  usages.update(slot, guard_usage.encode({ ...now, ...Object.fromEntries(next) }))
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
        ELSEWHERE,
      )
    } finally {
      for (let i = 0; i < filled; i++) maps.delete(key(i))
      pretend(id, { maps: -filled })
    }
    assert.equal(mallory.map(token), 'ok')
  }),
)
