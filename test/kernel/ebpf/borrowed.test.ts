/**
 * What users of the library can do under a token, and what the kernel keeps from them however much
 * is lent: each either happens or is refused as its documentation says. Everything is lent, to an
 * ordinary user with bpf, perfmon and net_admin in namespaces of its own.
 */
import assert from 'node:assert/strict'
import { copyFileSync, cpSync, existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { compiled } from '../../../scripts/compiled.ts'
import { exit, mov64, R0 } from '../../../src/ebpf/asm/insn.ts'
import { attachNetkit } from '../../../src/ebpf/attach/attach.ts'
import { Features } from '../../../src/ebpf/kernel/features.ts'
import { loadObject } from '../../../src/ebpf/load/object.ts'
import { parseObject } from '../../../src/ebpf/object/spec.ts'
import { Program } from '../../../src/ebpf/prog.ts'
import { SyscallError } from '../../../src/errors.ts'
import { endExecutors } from '../../../src/sys/executor/pool.ts'
import { openFds, traceFds } from '../../../src/sys/fd.ts'
import { kernelSince, needsTokens, ROOT } from '../../helpers/machine.ts'
import { Scratch } from '../../helpers/scratch.ts'
import { EVERYTHING } from '../delegation/lab.ts'
import { Worker } from '../delegation/worker.ts'

const CAPABILITIES = ['bpf', 'perfmon', 'net_admin']
const MODERN = join(ROOT, 'test/fixtures/modern')

interface Answer {
  readonly ok: boolean
  readonly token: boolean
  readonly value?: unknown
  readonly code?: string
  readonly errnoName?: string
  readonly op?: string
  readonly hint?: string
  readonly message?: string
  readonly stack?: string
}

let stage: Scratch
let worker: Worker

before(async () => {
  if (needsTokens().skip !== undefined) return
  traceFds()
  // The worker is an ordinary user, who may not reach this clone.
  stage = new Scratch()
  for (const part of ['dist', 'package.json', 'build/Release/bpftoken.node'])
    cpSync(join(ROOT, part), join(stage.path, part), { recursive: true })
  for (const file of ['usdt.bpf.o', 'links.bpf.o']) copyFileSync(join(MODERN, file), join(stage.path, file))
  copyFileSync(compiled(join(__dirname, 'probed.c')), join(stage.path, 'probed'))
  const program = join(stage.path, 'borrow-worker.cjs')
  copyFileSync(join(__dirname, 'borrow-worker.cjs'), program)
  worker = await Worker.start([process.execPath, program], [...CAPABILITIES])
})

after(async () => {
  if (worker === undefined) return
  worker[Symbol.dispose]()
  await worker.ended
  stage[Symbol.dispose]()
  await endExecutors()
  assert.deepEqual(openFds(), [])
})

function ask(deed: string): Promise<Answer> {
  return worker.ask<Answer>(JSON.stringify({ deed }), EVERYTHING)
}

type Missing = () => string | undefined | Promise<string | undefined>

/** It happens, and gives this. */
function can(deed: string, value: unknown, missing: Missing = () => undefined): void {
  test(`a token lets it happen: ${deed}`, needsTokens(), async t => {
    const why = await missing()
    if (why !== undefined) return t.skip(why)
    const answer = await ask(deed)
    assert.ok(answer.ok, `${answer.message}: ${answer.hint} ${answer.stack}`)
    return assert.deepEqual([answer.token, answer.value], [true, value])
  })
}

/** The kernel refuses it, and the error says why. */
function cannot(
  deed: string,
  refusal: Partial<Answer> & { says?: RegExp },
  missing: Missing = () => undefined,
): void {
  test(`no token lets it happen: ${deed}`, needsTokens(), async t => {
    const why = await missing()
    if (why !== undefined) return t.skip(why)
    const answer = await ask(deed)
    const { says, ...exact } = refusal
    assert.equal(answer.ok, false, JSON.stringify(answer.value))
    assert.equal(answer.token, true)
    for (const [key, value] of Object.entries(exact))
      assert.equal(answer[key as keyof Answer], value, answer.message)
    if (says !== undefined) assert.match(`${answer.message}: ${answer.hint}`, says)
    return undefined
  })
}

const newer = (major: number, minor: number) => (): string | undefined =>
  kernelSince(major, minor) ? undefined : `it is since Linux ${major}.${minor}`

const paranoid = Number(readFileSync('/proc/sys/kernel/perf_event_paranoid', 'utf8'))
const fprobe: Missing = async () =>
  (await new Features(null).has('kprobe_multi'))
    ? undefined
    : 'this kernel has no kprobe_multi links (CONFIG_FPROBE)'
const uprobeEvents: Missing = () =>
  existsSync('/sys/bus/event_source/devices/uprobe') ? undefined : 'this kernel has no uprobe events'

/** This kernel has such devices: it says of another that it is none. */
const netkit: Missing = async () => {
  using program = await Program.load({
    type: 'sched_cls',
    expectedAttachType: 'netkit_primary',
    insns: [mov64(R0, 0), exit()],
    token: null,
  })
  try {
    attachNetkit(program, { ifindex: 1, end: 'primary' }).close()
  } catch (error) {
    if (error instanceof SyscallError && error.errnoName === 'ENXIO') return undefined
  }
  return 'this kernel has no netkit devices (CONFIG_NETKIT, Linux 6.7)'
}
/** Some kernels refuse all that is patched into running code; a token reads types since 6.15. */
const patched: Missing = async () => {
  if (!kernelSince(6, 15)) return 'types are opened by id under a token since Linux 6.15'
  const spec = parseObject(readFileSync(join(MODERN, 'links.bpf.o')), { name: 'links' })
  using asks = await loadObject(spec, { token: null, only: ['asks'] })
  const programs = { instead: { targetProgram: asks.program('asks') } }
  try {
    using _instead = await loadObject(spec, { token: null, only: ['instead'], programs })
    return undefined
  } catch (error) {
    if (error instanceof SyscallError && error.errnoName === 'EPERM')
      return 'this kernel refuses it to root, too'
    throw error
  }
}

cannot('perfOfAll', { errnoName: 'EACCES', op: 'perf_event_open', says: /CAP_PERFMON.*no token/ }, () =>
  paranoid > 0 ? undefined : 'kernel.perf_event_paranoid lets everybody',
)
can('perfOfOurselves', 42, () => (paranoid < 3 ? undefined : 'kernel.perf_event_paranoid lets nobody'))
can('usdt', [1, 2], () => (process.arch === 'x64' ? undefined : 'probed.c is for x86-64'))
can('uprobeMulti', true)
cannot('uprobe', { errnoName: 'EACCES', op: 'perf_event_open' }, uprobeEvents)
can('kprobeMulti', true, fprobe)
cannot('kprobePattern', { code: 'BPFTOKEN_NOT_SUPPORTED' }, fprobe)
cannot('perfEvent', { errnoName: 'EACCES', op: 'perf_event_open' })
can('iterator', 40_000)
can('tcx', 1)
can('direct', 'attached')
can('netkit', 'netkit_primary', netkit)
can('tasks', [true, true])
can('classicTc', true)
can('reuseport', 'attached')
cannot('query', { errnoName: 'EPERM', op: 'BPF_PROG_QUERY' })
cannot('stats', { errnoName: 'EPERM', op: 'BPF_ENABLE_STATS' })
can('info', [true, true, true, true])

test('a token lets it happen with sys_admin beside it: freplace', needsTokens(), async t => {
  const why = await patched()
  if (why !== undefined) return t.skip(why)
  // The types of the program that is extended are opened by their id.
  const refused = await ask('freplace')
  assert.deepEqual([refused.ok, refused.errnoName, refused.op], [false, 'EPERM', 'BPF_BTF_GET_FD_BY_ID'])
  const program = join(stage.path, 'borrow-worker.cjs')
  const more = await Worker.start([process.execPath, program], [...CAPABILITIES, 'sys_admin'])
  try {
    const { ok, value, message, hint } = await more.ask<Answer>(
      JSON.stringify({ deed: 'freplace' }),
      EVERYTHING,
    )
    return assert.deepEqual([ok, value], [true, 2], `${message}: ${hint}`)
  } finally {
    more[Symbol.dispose]()
    await more.ended
  }
})

test('a token lets it happen: stream', needsTokens(), async t => {
  const why = newer(6, 17)()
  if (why !== undefined) return t.skip(why)
  const { ok, value, message, hint } = await ask('stream')
  assert.ok(ok, `${message}: ${hint}`)
  // A kernel that cannot allocate without locks keeps nothing: links.test.ts.
  const [returned, text] = value as [number, string]
  return assert.equal(text, returned === 2 ** 32 - 12 ? '' : '3 and 4\n')
})
