/**
 * What a revoked delegation has attached is undone, where the kernel can, and its holders are
 * ended, and nobody else.
 *
 *   node --import tsx scripts/vm/vm.ts --kernel 6.12 --tests test/vm/guard-detach.test.ts
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync, rmdirSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface, type Interface } from 'node:readline'
import { after, before, describe, test } from 'node:test'
import { compiled } from '../../scripts/compiled.ts'
import { delegate } from '../../src/delegation/delegate.ts'
import { Sandbox } from '../../src/delegation/sandbox.ts'
import { openTarget } from '../../src/delegation/target.ts'
import { exit, mov64, R0 } from '../../src/ebpf/asm/insn.ts'
import { attachRawTracepoint } from '../../src/ebpf/attach/attach.ts'
import { linkIds, programIds } from '../../src/ebpf/object-id.ts'
import { Program } from '../../src/ebpf/prog.ts'
import { type DetachResult, detach } from '../../src/guard/detach.ts'
import type { DelegationId } from '../../src/guard/guard.ts'
import { Inventory } from '../../src/guard/inventory.ts'
import type { Policy } from '../../src/policy/policy.ts'
import { openFds, traceFds } from '../../src/sys/fd.ts'
import { cli } from '../helpers/cli.ts'
import { HangingExec } from '../kernel/delegation/hanging-exec.ts'
import { EVERYTHING, policyWith, vocabulary } from '../kernel/delegation/lab.ts'
import { removeProgram, Workload as Task } from '../kernel/delegation/workload.ts'
import type { Attached, Counts, WorkloadKind } from './attached-workload.ts'
import { eventually, skip } from './guarded.ts'
import { guard, withGuard } from './under-guard.ts'

const CGROUP = '/sys/fs/cgroup/attached'
const DETACHABLE: WorkloadKind[] = ['xdp', 'tcx', 'netfilter', 'cgroup', 'struct_ops']
const FOR_GOOD: WorkloadKind[] = ['raw_tp', 'fentry']
const CAPABILITIES: Policy['rights']['capabilities'] = ['bpf', 'net_admin', 'perfmon', 'sys_admin']

type Started = Pick<Sandbox, 'pid' | 'child' | 'exited' | typeof Symbol.dispose>

/**
 * A process, in namespaces of its own or in a confined cgroup, that has attached programs under a
 * delegation.
 */
class Workload implements Disposable {
  readonly id: DelegationId
  readonly attached: Attached
  readonly #sandbox: Started
  readonly #lines: Interface
  readonly #others: ChildProcess[] = []

  private constructor(id: DelegationId, attached: Attached, sandbox: Started, lines: Interface) {
    this.id = id
    this.attached = attached
    this.#sandbox = sandbox
    this.#lines = lines
  }

  static async start(...kinds: WorkloadKind[]): Promise<Workload> {
    const sandbox = await Sandbox.start({
      command: [process.execPath, join(__dirname, 'attached-workload.ts'), CGROUP, ...kinds],
      uid: 65534,
      gid: 65534,
      network: 'own',
      capabilities: CAPABILITIES,
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    try {
      const id = await lend(sandbox, { revocable: !kinds.includes('registered') })
      const lines = createInterface({ input: sandbox.child.stdout! })
      const first = once(lines, 'line')
      await sandbox.release()
      return new Workload(id, await answer(first, sandbox), sandbox, lines)
    } catch (error) {
      sandbox[Symbol.dispose]()
      throw error
    }
  }

  /** A service of the host: it is root, has no token, and is alone in a confined cgroup. */
  static async confined(...kinds: WorkloadKind[]): Promise<Workload> {
    const id = guard.confine(CGROUP, lent())
    const words = [process.execPath, join(__dirname, 'attached-workload.ts'), CGROUP, ...kinds]
    const child = spawn('sh', ['-c', `echo $$ >${CGROUP}/cgroup.procs && exec "$0" "$@"`, ...words], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    const started: Started = {
      pid: child.pid!,
      child,
      exited: new Promise(resolve => child.once('exit', (code, signal) => resolve({ code, signal }))),
      [Symbol.dispose]: () => child.kill('SIGKILL'),
    }
    const lines = createInterface({ input: child.stdout! })
    return new Workload(id, await answer(once(lines, 'line'), started), started, lines)
  }

  get pid(): number {
    return this.#sandbox.pid
  }

  get exited(): Sandbox['exited'] {
    return this.#sandbox.exited
  }

  /** Sends one more datagram, and gives what its programs have counted. */
  async counts(): Promise<Counts> {
    const line = once(this.#lines, 'line')
    this.#sandbox.child.stdin!.write('\n')
    return await answer(line, this.#sandbox)
  }

  /** Attaches each of its programs once more, and gives the results. */
  async attachesAgain(): Promise<Partial<Record<WorkloadKind, string>>> {
    const line = once(this.#lines, 'line')
    this.#sandbox.child.stdin!.write('again\n')
    return await answer(line, this.#sandbox)
  }

  /** A process in the same namespaces that holds nothing. */
  async bystander(): Promise<ChildProcess> {
    const words = ['-t', String(this.pid), '-U', '-m', '-n', '--preserve-credentials', 'sh', '-c']
    const child = spawn('nsenter', [...words, 'echo in; exec sleep 1000'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    this.#others.push(child)
    await once(child.stdout!, 'data')
    return child
  }

  [Symbol.dispose](): void {
    for (const child of this.#others) child.kill('SIGKILL')
    this.#sandbox[Symbol.dispose]()
  }
}

async function gone(sandbox: Started): Promise<never> {
  const { code, signal } = await sandbox.exited
  throw new Error(`the workload has ended: ${code ?? signal}`)
}

async function answer<T>(line: Promise<unknown[]>, from: Started): Promise<T> {
  return JSON.parse((await Promise.race([line, gone(from)]))[0] as string) as T
}

function lent(more: Partial<Policy> = {}): Policy {
  const plain = policyWith(EVERYTHING)
  return { ...plain, cgroups: 'any', ...more, rights: { ...plain.rights, capabilities: CAPABILITIES } }
}

async function lend(sandbox: Sandbox, more: Partial<Policy> = {}): Promise<DelegationId> {
  const policy = lent(more)
  using target = openTarget(sandbox.pid)
  using lender = guard.lend(policy)
  await delegate(policy, target, vocabulary, { guard: lender })
  return lender.delegation()!
}

async function detachAll(id: DelegationId, options: { kill?: boolean } = {}): Promise<DetachResult> {
  using inventory = await Inventory.open(guard)
  return await detach(inventory, new Set([id]), options)
}

const values = (record: Partial<Record<WorkloadKind, number>>): number[] => Object.values(record)
const sorted = (numbers: Iterable<number>): number[] => [...numbers].sort((a, b) => a - b)
const idsOf = (all: readonly { id: number }[]): number[] => sorted(all.map(({ id }) => id))

function stays(result: DetachResult): [number, string][] {
  return result.stays
    .map(({ id, errnoName }): [number, string] => [id, errnoName])
    .sort((a, b) => a[0] - b[0])
}

before(() => {
  if (skip === false) mkdirSync(CGROUP)
})
withGuard()
after(() => {
  removeProgram()
  if (skip === false) rmdirSync(CGROUP)
})

describe('a revoked delegation', { skip }, () => {
  test('is detached where the kernel can, and its holder killed; others and theirs stay', async t => {
    using workload = await Workload.start(...DETACHABLE, ...FOR_GOOD, 'socket')
    using other = await Workload.start('xdp')
    using ours = await Program.load({
      type: 'raw_tracepoint',
      insns: [mov64(R0, 0), exit()],
      license: 'GPL',
      token: null,
    })
    using _ourLink = attachRawTracepoint(ours, 'sys_enter')
    const bystander = await workload.bystander()
    const { links, programs, map } = workload.attached
    const detachable = sorted(DETACHABLE.map(kind => links[kind]!))
    const forGood = sorted(FOR_GOOD.map(kind => links[kind]!))
    const before = { links: [...linkIds()], programs: [...programIds()] }

    await t.test('the inventory has what it made, and who holds it', async () => {
      using inventory = await Inventory.open(guard)
      const found = inventory.objects(new Set([workload.id]))
      assert.deepEqual(idsOf(found.links), sorted(values(links)))
      assert.deepEqual(
        values(programs).filter(id => !found.programs.some(one => one.id === id)),
        [],
      )
      assert.deepEqual(
        found.links
          .filter(({ programId }) => programId !== undefined)
          .map(({ name, id, programId }) => [id, programId, name]),
        [...DETACHABLE, ...FOR_GOOD]
          .filter(kind => kind !== 'struct_ops')
          .map(kind => [links[kind], programs[kind], kind]),
      )
      assert.ok(found.maps.some(one => one.id === map && one.name === 'counts' && one.type === 'array'))
      const [holder, ...more] = inventory.holders(new Set([workload.id]))
      assert.deepEqual(more, [])
      assert.deepEqual([holder!.pid, holder!.within], [workload.pid, true])
      assert.deepEqual(holder!.links, sorted(values(links)))
      assert.ok(holder!.programs.includes(programs.socket!), 'held by a socket alone')
      assert.ok(holder!.maps.includes(map))
      assert.deepEqual(idsOf(inventory.programs(new Set([other.id]))), values(other.attached.programs))
      assert.deepEqual(inventory.objects(new Set()), { programs: [], maps: [], links: [] })
    })
    assert.deepEqual([...linkIds()], before.links, 'nothing of the inventory is left')

    const first = await workload.counts()
    const second = await workload.counts()
    for (const kind of ['xdp', 'tcx', 'netfilter', 'raw_tp', 'fentry'] as const)
      assert.ok(second[kind]! > first[kind]!, `${kind} does not count`)

    guard.revoke(workload.id)
    const after = await workload.counts()
    assert.ok(after.xdp! > second.xdp!, 'to revoke alone detaches nothing')

    await t.test('--detach', async () => {
      traceFds()
      const opened = openFds().length
      const result = await detachAll(workload.id)
      assert.equal(openFds().length, opened)
      assert.deepEqual(idsOf(result.detached), detachable)
      assert.deepEqual(
        stays(result),
        forGood.map(id => [id, 'EOPNOTSUPP']),
      )
      assert.deepEqual(result.killed, [])
      assert.deepEqual(
        result.holders.map(({ pid }) => pid),
        [workload.pid],
      )
      const third = await workload.counts()
      const fourth = await workload.counts()
      for (const kind of ['xdp', 'tcx', 'netfilter', 'cgroup'] as const)
        assert.equal(fourth[kind], third[kind], `${kind} counts`)
      for (const kind of FOR_GOOD) assert.ok(fourth[kind]! > third[kind]!, `${kind} does not count`)
      assert.doesNotMatch(
        readFileSync('/proc/sys/net/ipv4/tcp_available_congestion_control', 'utf8'),
        /bpftoken_cc/,
      )
    })

    await t.test('again: nothing new, and the same stays', async () => {
      const result = await detachAll(workload.id)
      assert.deepEqual(
        stays(result),
        forGood.map(id => [id, 'EOPNOTSUPP']),
      )
    })

    await t.test('what somebody outside was passed keeps it alive, and he is left alone', async () => {
      {
        using _passed = Program.fromId(programs.xdp!)
        const result = await detachAll(workload.id, { kill: true })
        assert.deepEqual(
          result.killed.map(({ pid, task }) => [pid, task]),
          [[workload.pid, 'node']],
        )
        assert.equal((await workload.exited).signal, 'SIGKILL')
        assert.deepEqual(stays(result), [])
        assert.deepEqual(idsOf(result.left.programs), [programs.xdp])
        assert.deepEqual(
          result.holders.map(({ pid, within }) => [pid, within]),
          [[process.pid, false]],
        )
      }
      const result = await detachAll(workload.id, { kill: true })
      assert.deepEqual(result.left, { programs: [], maps: [], links: [] })
      assert.deepEqual([result.killed, result.holders], [[], []])
    })

    assert.deepEqual([bystander.exitCode, bystander.signalCode], [null, null], 'the bystander was killed')
    assert.deepEqual(
      [...linkIds()],
      before.links.filter(id => !values(links).includes(id)),
    )
    const { tokens, programs: inUse, maps } = guard.delegation(workload.id).live
    assert.deepEqual([tokens, inUse, maps], [0, 0, 0], 'what the guard counts')
    // The bpffs is still mounted where the bystander is.
    bystander.kill('SIGKILL')
    await eventually(
      () => !guard.delegations().some(({ id }) => id === workload.id),
      'the delegation lives on',
    )
    const one = await other.counts()
    const two = await other.counts()
    assert.ok(two.xdp! > one.xdp!, 'another delegation was detached')
    guard.revoke(other.id)
  })

  test('attaches what it has loaded no more', async () => {
    const before = { raw_tp: 'ok', netfilter: 'ok' }
    using workload = await Workload.start('raw_tp', 'netfilter')
    using other = await Workload.start('raw_tp', 'netfilter')
    await detachAll(workload.id)
    // A program is attached to one place at most once.
    assert.deepEqual(await workload.attachesAgain(), before)
    guard.revoke(workload.id)
    guard.pastEvents()
    await detachAll(workload.id)
    assert.deepEqual(await workload.attachesAgain(), { raw_tp: 'EACCES', netfilter: 'EACCES' })
    assert.deepEqual(
      guard.pastEvents().map(({ point, cmd, reason, delegation }) => [point, cmd, reason, delegation]),
      [
        ['attach', 'raw_tracepoint_open', 'revoked', workload.id],
        ['attach', 'link_create', 'revoked', workload.id],
      ],
    )
    assert.deepEqual(await other.attachesAgain(), { raw_tp: 'ok', netfilter: 'EBUSY' })
    guard.revoke(other.id)
  })

  test('whose link no process has open is undone with all processes of the user namespace', async () => {
    using workload = await Workload.start('pinned')
    using other = await Workload.start('xdp')
    const bystander = await workload.bystander()
    const ended = once(bystander, 'exit')
    guard.revoke(workload.id)
    const link = workload.attached.links.pinned!
    const detached = await detachAll(workload.id)
    assert.deepEqual(stays(detached), [[link, 'EOPNOTSUPP']])
    assert.deepEqual(detached.killed, [])
    const result = await detachAll(workload.id, { kill: true })
    assert.deepEqual(
      result.killed.map(({ pid }) => pid),
      [workload.pid, bystander.pid],
    )
    await ended
    assert.deepEqual([stays(result), result.left.links, result.holders], [[], [], []])
    assert.ok(![...linkIds()].includes(link))
    // Another workload goes on.
    const [one, two] = [await other.counts(), await other.counts()]
    assert.ok(two.xdp! > one.xdp!)
    guard.revoke(other.id)
  })

  test('is undone in time though a process there hangs in execve(2), and its twin is told of too', async () => {
    using workload = await Workload.start('pinned')
    const inside = ['nsenter', '-t', String(workload.pid), '-U', '-m', '-n'] as const
    await using hanging = await HangingExec.of(await Task.startedBy(...inside))
    const twin = await workload.bystander()
    await hanging.hang()
    guard.revoke(workload.id)
    const id = new Set([workload.id])
    {
      using inventory = await Inventory.open(guard)
      const members = inventory.members(id).map(({ pid }) => pid)
      for (const pid of [workload.pid, hanging.pid, twin.pid!]) assert.ok(members.includes(pid), `${pid}`)
      assert.deepEqual(
        inventory.holders(id).map(({ pid }) => pid),
        [workload.pid],
      )
    }
    const link = workload.attached.links.pinned!
    const result = await detachAll(workload.id, { kill: true })
    const killed = result.killed.map(({ pid }) => pid)
    for (const pid of [workload.pid, hanging.pid, twin.pid!]) assert.ok(killed.includes(pid), `${pid}`)
    // It cannot die yet, and its mounts with it.
    assert.deepEqual(idsOf(result.left.links), [link])
    await hanging.release()
    await eventually(() => ![...linkIds()].includes(link), 'what was pinned is still there')
  })

  test('is found in a thread with files of its own', async () => {
    using sandbox = await Sandbox.start({
      command: [compiled(join(__dirname, 'own-files.c'))],
      uid: 65534,
      gid: 65534,
      network: 'own',
      capabilities: CAPABILITIES,
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const id = await lend(sandbox)
    const said = once(sandbox.child.stdout!, 'data')
    await sandbox.release()
    assert.equal(String((await said)[0]), 'ready\n')
    guard.revoke(id)
    const result = await detachAll(id, { kill: true })
    assert.deepEqual(
      result.killed.map(({ pid, maps, token }) => [pid, maps.length, token]),
      [[sandbox.pid, 1, true]],
    )
    assert.deepEqual(result.left, { programs: [], maps: [], links: [] })
  })

  test('has its struct_ops maps unregistered, which need no link where the policy lets it outlive the workload', async () => {
    const available = () => readFileSync('/proc/sys/net/ipv4/tcp_available_congestion_control', 'utf8')
    using workload = await Workload.start('registered')
    assert.match(available(), /bpftoken_cc2/)
    guard.revoke(workload.id)
    const result = await detachAll(workload.id)
    assert.deepEqual(
      result.detached.map(({ kind, type, name }) => [kind, type, name]),
      [['map', 'struct_ops', 'unlinked']],
    )
    assert.deepEqual(result.stays, [])
    assert.doesNotMatch(available(), /bpftoken_cc2/)
  })

  test('of a confined cgroup is undone in the same way: who is in the cgroup is killed', async () => {
    using workload = await Workload.confined('cgroup', 'raw_tp')
    try {
      guard.revoke(workload.id)
      const { links } = workload.attached
      const detached = await detachAll(workload.id)
      assert.deepEqual(idsOf(detached.detached), [links.cgroup])
      assert.deepEqual(stays(detached), [[links.raw_tp, 'EOPNOTSUPP']])
      const result = await detachAll(workload.id, { kill: true })
      assert.deepEqual(
        result.killed.map(({ pid, within }) => [pid, within]),
        [[workload.pid, true]],
      )
      assert.deepEqual(result.left, { programs: [], maps: [], links: [] })
    } finally {
      guard.unconfine(workload.id)
    }
  })

  test('is undone by the command, which says what stays, and why', async () => {
    using workload = await Workload.start('xdp', 'raw_tp')
    const { links, programs } = workload.attached
    const revoke = (...words: string[]) => cli(['revoke', String(workload.id), ...words])

    const revoked = await revoke()
    assert.equal(revoked.status, 0, revoked.stderr)
    assert.match(revoked.stdout, new RegExp(`^delegation ${workload.id} is revoked`))

    const detached = await revoke('--detach')
    assert.equal(detached.status, 1, detached.stderr)
    assert.match(detached.stdout, new RegExp(`^detached +link ${links.xdp} +xdp +"xdp"$`, 'm'))
    const holder = `node \\(${workload.pid}\\)`
    assert.match(
      detached.stdout,
      new RegExp(`^attached +link ${links.raw_tp} +raw_tracepoint +"raw_tp": .*, held by ${holder}$`, 'm'),
    )
    assert.match(detached.stdout, new RegExp(`--kill ends ${holder}$`, 'm'))
    const [one, two] = [await workload.counts(), await workload.counts()]
    assert.equal(two.xdp, one.xdp)
    assert.ok(two.raw_tp! > one.raw_tp!)

    const quiet = await Workload.start('xdp')
    try {
      const { status, stdout } = await cli(['revoke', String(quiet.id), '--detach'])
      assert.equal(status, 1, stdout)
      assert.match(stdout, /not all is undone: whether these programs run cannot be told/)
      assert.match(stdout, /who holds programs can attach them again/)
    } finally {
      quiet[Symbol.dispose]()
    }

    const killed = await revoke('--kill', '--json')
    assert.equal(killed.status, 0, killed.stderr)
    const said = JSON.parse(killed.stdout)
    assert.deepEqual(said.revoked, [Number(workload.id)])
    assert.deepEqual(said.left, { programs: [], maps: [], links: [] })
    assert.deepEqual(
      said.killed.map(({ pid }: { pid: number }) => pid),
      [workload.pid],
    )
    assert.ok(![...programIds()].some(id => values(programs).includes(id)))
  })
})
