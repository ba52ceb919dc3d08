/**
 * What a descriptor is when the guard looks it need not be when the kernel does: another thread
 * exchanges it in between. As in guard-hostile.test.ts, SECURITY.md has the answer to each attempt,
 * the guard must tell of it, and whoever may do the same must succeed, with threads of its own.
 *
 *   node --import tsx scripts/vm/vm.ts --kernel 6.12 --tests test/vm/guard-exchange.test.ts
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync, rmdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { after, before, test } from 'node:test'
import { compiled } from '../../scripts/compiled.ts'
import { attachProgram, loadObject, parseObject } from '../../src/ebpf/index.ts'
import { Program } from '../../src/ebpf/prog.ts'
import type { DelegationId } from '../../src/guard/guard.ts'
import type { Fd } from '../../src/sys/fd.ts'
import { open } from '../../src/sys/open.ts'
import { bpf_attach_type, bpf_attr_link_create, bpf_cmd } from '../../src/uapi/bpf.ts'
import { O_CLOEXEC, O_DIRECTORY, O_RDONLY } from '../../src/uapi/constants.ts'
import { Inconclusive } from '../helpers/conclusive.ts'
import { mapAttr, progCommand } from '../kernel/delegation/attributes.ts'
import { attempt, guard, hostile, lending, mallory } from './attempts.ts'
import type { Loan } from './borrower.ts'
import { eventually, skip } from './guarded.ts'

const OWN = '/sys/fs/cgroup/own'
const BESIDE = '/sys/fs/cgroup/beside'
const ELSEWHERE = '/mnt'
const LOOPBACK = 1
/** The descriptor that exchange.c exchanges, and one behind those between which it does. */
const [EXCHANGED, FURTHER] = [10, 5]
/** What it asks the kernel about a link: where these are in struct bpf_link_info. */
const [PROGRAM_ID, TARGET] = [8, 16]

const { BPF_CGROUP_INET_SOCK_CREATE, BPF_SK_LOOKUP } = bpf_attach_type

before(() => {
  if (skip === false) for (const directory of [OWN, BESIDE]) mkdirSync(directory)
})
after(async () => {
  if (skip !== false) return
  for (const directory of [OWN, BESIDE])
    await eventually(() => {
      try {
        rmdirSync(directory)
        return true
      } catch {
        return false
      }
    }, `${directory} is still in use`)
})

hostile('What an exchanged descriptor does not change')

/** How often a call came to what; what was not to be reached, at most once. */
interface Ends {
  readonly ok: number
  readonly reached: number
  readonly refused: number
  readonly other: Readonly<Record<string, number>>
}

const IN_OWN_NETWORK = ['-U', '-n']
const IN_HOST_NETWORK = ['-U']

/** exchange.c in the workload's namespaces, with these descriptors from 3 on. */
async function exchange(
  namespaces: readonly string[],
  inherited: readonly Fd[],
  ...words: (string | number)[]
): Promise<Ends> {
  const child = spawn(
    'nsenter',
    [
      ...['-t', String(mallory.workload.pid), ...namespaces],
      ...[compiled(join(__dirname, 'exchange.c')), ...words.map(String)],
    ],
    { stdio: ['ignore', 'pipe', 'inherit', ...inherited.map(({ number }) => number)] },
  )
  const ended = once(child, 'exit')
  const line = await text(child.stdout!)
  assert.deepEqual(await ended, [0, null], line)
  const { ok, reached, [EACCES]: refused = 0, ...other } = JSON.parse(line) as Record<string, number>
  return { ok: ok!, reached: reached!, refused, other }
}

const EACCES = '13'

function link(fields: Parameters<typeof bpf_attr_link_create.encode>[0]): string {
  return Buffer.from(bpf_attr_link_create.encode(fields)).toString('hex')
}

/** That it was tried both ways, and that only the one was let through. */
function onlyGood(ends: Ends, refused: (answer: string, id: DelegationId) => void, id: DelegationId): void {
  const seen = JSON.stringify(ends)
  assert.equal(ends.reached, 0, seen)
  if (ends.ok === 0 || ends.refused === 0) throw new Inconclusive(`not both were tried: ${seen}`)
  refused('EACCES', id)
}

/** Of what may be done as it is: nothing is refused. */
function allGood(ends: Ends): void {
  const seen = JSON.stringify(ends)
  assert.ok(ends.ok > 0, seen)
  assert.equal(ends.refused, 0, seen)
}

const network = (file: string): Fd => open(file, O_RDONLY | O_CLOEXEC)
const directory = (path: string): Fd => open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
const inodeOf = (file: string): number => statSync(file).ino

attempt('attach to the host’s network by exchanging the descriptor of a network', refused =>
  lending({}, async ({ id, mustToken }) => {
    using token = mustToken()
    using program = mallory.must(progCommand('sk_lookup', 'sk_lookup', token.number))
    using own = network(`/proc/${mallory.workload.pid}/ns/net`)
    using host = network('/proc/self/ns/net')
    const attr = link({ prog_fd: FURTHER, target_fd: EXCHANGED, attach_type: BPF_SK_LOOKUP })
    const [ofHost, ofOwn] = ['self', mallory.workload.pid].map(who => inodeOf(`/proc/${who}/ns/net`))
    const linked = (bad: Fd, inode: number): Promise<Ends> =>
      exchange(IN_OWN_NETWORK, [own, bad, program], 'link', attr, TARGET, inode)
    onlyGood(await linked(host, ofHost!), refused, id)
    // Threads exchange two descriptors of its own network: each link is one of it.
    const twin = await linked(own, ofOwn!)
    assert.equal(twin.reached, 1)
    allGood(twin)
  }),
)

attempt('attach to a cgroup that is not its own by exchanging its descriptor', async refused => {
  const creating = { prog_fd: FURTHER, target_fd: EXCHANGED, attach_type: BPF_CGROUP_INET_SOCK_CREATE }
  const linked = async ({ mustToken }: Loan): Promise<Ends> => {
    using token = mustToken()
    using program = mallory.must(progCommand('cgroup_sock', 'cgroup_inet_sock_create', token.number))
    using own = directory(OWN)
    using beside = directory(BESIDE)
    const words = ['link', link(creating), TARGET, inodeOf(BESIDE)]
    return exchange(IN_OWN_NETWORK, [own, beside, program], ...words)
  }
  await within(OWN, async () => {
    await lending({}, async loan => onlyGood(await linked(loan), refused, loan.id))
    await lending({ cgroups: 'any' }, async loan => {
      const twin = await linked(loan)
      assert.equal(twin.reached, 1)
      allGood(twin)
    })
  })
})

attempt('attach a program of an ended delegation by exchanging its descriptor', refused =>
  lending({}, live =>
    lending(
      {},
      async ended => {
        const load = ({ mustToken }: Loan): Program => {
          using token = mustToken()
          return Program.fromFd(mallory.must(progCommand('sk_lookup', 'sk_lookup', token.number)))
        }
        using good = load(live)
        using bad = load(ended)
        using own = network(`/proc/${mallory.workload.pid}/ns/net`)
        const { id } = bad.info()
        const attr = link({ prog_fd: EXCHANGED, target_fd: FURTHER, attach_type: BPF_SK_LOOKUP })
        const linked = (): Promise<Ends> =>
          exchange(IN_OWN_NETWORK, [good.fd, bad.fd, own], 'link', attr, PROGRAM_ID, id)
        const twin = await linked()
        assert.equal(twin.reached, 1)
        allGood(twin)
        guard.revoke(ended.id)
        onlyGood(await linked(), refused, ended.id)
      },
      { path: ELSEWHERE },
    ),
  ),
)

attempt('put a device of the host’s network into a devmap by exchanging the map', refused =>
  lending({}, async ({ id, mustToken }) => {
    using token = mustToken()
    const make = (type: string): Fd =>
      mallory.must({ cmd: bpf_cmd.BPF_MAP_CREATE, attr: mapAttr(type, token.number), refs: [] })
    using array = make('array')
    using devices = make('devmap')
    // In its own network all of it may be written to.
    const twin = await exchange(IN_OWN_NETWORK, [array, devices], 'map', LOOPBACK)
    assert.equal(twin.reached, 1)
    allGood(twin)
    using others = make('devmap')
    // In the host's by a task that shares its descriptors with none.
    const alone = await exchange(IN_HOST_NETWORK, [array, others], 'alone', LOOPBACK)
    assert.deepEqual(alone.reached, 0)
    allGood(alone)
    const ends = await exchange(IN_HOST_NETWORK, [array, others], 'map', LOOPBACK)
    assert.deepEqual([ends.ok, ends.reached], [0, 0])
    assert.ok(ends.refused > 0)
    refused('EACCES', id)
  }),
)

/** While `body` runs, we are in this cgroup, and so is who makes tokens for us. */
async function within(place: string, body: () => Promise<void>): Promise<void> {
  writeFileSync(`${place}/cgroup.procs`, String(process.pid))
  try {
    await body()
  } finally {
    writeFileSync('/sys/fs/cgroup/cgroup.procs', String(process.pid))
  }
}

/** As many as make the guard refuse what it cannot judge, were they its own. */
const MANY_LINKS = 70
const EINVAL = 22

test('a call that made no link leaves nothing behind: its task opens files, whatever links others make', {
  skip,
}, async () => {
  await lending({}, async ({ mustToken }) => {
    const { workload } = mallory
    using token = mustToken()
    using program = mallory.must(progCommand('sk_lookup', 'sk_lookup', token.number))
    using own = network(`/proc/${workload.pid}/ns/net`)
    const [prog_fd, target_fd] = [await workload.take(program), await workload.take(own)]
    // The kernel knows no such flag: it makes no link.
    const attr = bpf_attr_link_create.encode({ prog_fd, target_fd, attach_type: BPF_SK_LOOKUP, flags: 1 })
    assert.equal(await workload.call('bpf', bpf_cmd.BPF_LINK_CREATE, attr, attr.length), -EINVAL)
    const file = join(__dirname, '../../examples/library/filter.bpf.o')
    using object = await loadObject(parseObject(readFileSync(file), { name: 'filter' }))
    for (let made = 0; made < MANY_LINKS; made++) {
      using _ = attachProgram(object, 'filter', { kind: 'xdp', device: 'lo' })
    }
    const opened = await workload.must('openat', -100, '/', O_DIRECTORY, 0)
    for (const fd of [prog_fd, target_fd, opened]) await workload.must('close', fd)
  })
})
