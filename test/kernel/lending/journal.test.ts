/**
 * What a journal is told, held against what is mounted at that moment: nothing can be reached
 * before `will` has returned, and what `did` did not take is undone.
 */
import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { listInstances } from '../../../src/delegation/instances.ts'
import type { Accounts } from '../../../src/delegation/subject.ts'
import type { Journal, Operation, Place } from '../../../src/lending/journal.ts'
import { lend, type PreparedLoan, prepareLoan } from '../../../src/lending/lend.ts'
import { HeldProgram, prepareRun } from '../../../src/lending/run.ts'
import { undelegate } from '../../../src/lending/undelegate.ts'
import { policyWith, vocabulary } from '../delegation/lab.ts'
import { leavesNothing } from '../delegation/leaves-nothing.ts'
import { Workload } from '../delegation/workload.ts'

const PATH = '/sys/fs/bpf'
const policy = policyWith({ cmds: 1n, maps: 1n << 2n })
const accounts: Accounts = { uidOf: () => undefined, gidOf: () => undefined }
const common = { policy, vocabulary, accounts, guard: undefined }

let workload: Workload
leavesNothing()
beforeEach(async () => {
  workload = await Workload.sandboxed()
})
afterEach(async () => {
  workload[Symbol.dispose]()
  await workload.exited
})

const prepared = (place: Place = { path: PATH }): Promise<PreparedLoan> =>
  prepareLoan({ ...common, recipient: workload.pid, place })

const isMounted = (pid = workload.pid): boolean =>
  listInstances(vocabulary).some(({ pids, path }) => pids.includes(pid) && path === PATH)

type Call = keyof Journal

/**
 * Writes down its calls, with what `look` sees at that moment. `instead`: what a call does besides.
 */
class Recorder implements Journal {
  readonly calls: [call: Call, seen: unknown][] = []
  readonly facts: unknown[] = []
  readonly #look: () => unknown
  readonly #instead: Partial<Record<Call, () => void | Promise<void>>>

  constructor(
    instead: Partial<Record<Call, () => void | Promise<void>>> = {},
    look: () => unknown = isMounted,
  ) {
    this.#instead = instead
    this.#look = look
  }

  async #told(call: Call, facts: unknown): Promise<void> {
    this.facts.push(facts)
    this.calls.push([call, await this.#look()])
    await this.#instead[call]?.()
    // Whoever does not wait for it, goes on in this time.
    await sleep(20)
    this.calls.push([call, await this.#look()])
  }

  will = (operation: Operation): Promise<void> => this.#told('will', operation)
  did = (outcome: object): Promise<void> => this.#told('did', outcome)
  failed = (error: unknown): Promise<void> => this.#told('failed', error)
}

/** Each call twice: when it began, and when it ended. */
const twice = (...calls: [Call, unknown][]): [Call, unknown][] => calls.flatMap(call => [call, call])

const full = (): never => {
  throw new Error('no room')
}

test('lend() waits for will before anything is mounted, and tells did once it is', async () => {
  const journal = new Recorder()
  using loan = await prepared()
  const made = await lend(loan, { journal })
  assert.deepEqual(journal.calls, twice(['will', false], ['did', true]))
  const [operation, outcome] = journal.facts as [Operation & { do: 'lend' }, typeof made]
  assert.equal(operation.do, 'lend')
  assert.deepEqual([operation.place, operation.policy], [{ path: PATH }, policy])
  assert.deepEqual([operation.target.pid, operation.verdict.because], [workload.pid, 'operator'])
  assert.equal(outcome, made)
  assert.equal(made.mount?.path, PATH)
})

test('lend() does nothing when will throws, at once or later, and lends the next time', async () => {
  for (const will of [full, () => sleep(5).then(full)]) {
    const journal = new Recorder({ will })
    using loan = await prepared()
    await assert.rejects(lend(loan, { journal }), /^Error: no room$/)
    assert.deepEqual(journal.calls, [['will', false]])
    assert.equal(isMounted(), false)
  }
  using loan = await prepared()
  await lend(loan)
  assert.equal(isMounted(), true)
})

test('lend() undoes what did does not take, and tells failed that it could be reached', async () => {
  const journal = new Recorder({ did: full })
  using loan = await prepared()
  const code = 'BPFTOKEN_NOT_UNDONE'
  await assert.rejects(lend(loan, { journal }), { code, message: /^no room\nIt was unmounted again/ })
  assert.deepEqual(journal.calls, [...twice(['will', false]), ['did', true], ...twice(['failed', false])])
  assert.equal((journal.facts.at(-1) as { code: string }).code, code)
  assert.equal(isMounted(), false)
})

test('lend() tells failed when the place is taken, and what is there stays', async () => {
  using first = await prepared()
  await lend(first)
  const journal = new Recorder()
  using second = await prepared()
  await assert.rejects(lend(second, { journal }), { reason: 'place-taken' })
  assert.deepEqual(journal.calls, twice(['will', true], ['failed', true]))
})

test('lend() tells failed when it is given up after will, and nothing is mounted', async () => {
  const abort = new AbortController()
  const reason = new Error('given up')
  const journal = new Recorder({ will: () => abort.abort(reason) })
  using loan = await prepared()
  await assert.rejects(lend(loan, { journal, signal: abort.signal }), reason)
  assert.deepEqual(journal.calls, twice(['will', false], ['failed', false]))
})

test('lend() of the context of a workload creates it after will, and spoils it when did throws', async () => {
  const open = () => workload.must('fsopen', 'bpf', 0)
  /** Only one that was created can be mounted; that ends it. */
  const wasCreated = async (contextFd: number): Promise<boolean> => {
    const mount = await workload.call('fsmount', contextFd, 0, 0)
    if (mount >= 0) await workload.must('close', mount)
    return mount >= 0
  }
  const attempt = async (instead: Partial<Record<Call, () => void>>): Promise<[Recorder, boolean]> => {
    const contextFd = await open()
    const journal = new Recorder(instead, () => undefined)
    using loan = await prepared({ contextFd })
    await lend(loan, { journal }).catch(error => assert.match(error.message, /no room/))
    const created = await wasCreated(contextFd)
    await workload.must('close', contextFd)
    return [journal, created]
  }
  const [made, isMade] = await attempt({})
  assert.equal(isMade, true)
  assert.deepEqual(
    made.calls.map(([call]) => call),
    ['will', 'will', 'did', 'did'],
  )
  assert.equal((made.facts[1] as { mount: unknown }).mount, undefined)
  const [refused, isRefused] = await attempt({ will: full })
  assert.deepEqual([refused.calls.length, isRefused], [1, false])
  const [untold, isUntold] = await attempt({ did: full })
  assert.deepEqual([untold.calls.at(-1)![0], isUntold], ['failed', false])
})

test('undelegate() takes nothing away before will, and tells did once it is gone', async () => {
  using loan = await prepared()
  await lend(loan)
  const request = { ...common, recipient: workload.pid, path: PATH }
  const refusing = new Recorder({ will: full })
  await assert.rejects(undelegate(request, { journal: refusing }), /^Error: no room$/)
  assert.equal(isMounted(), true)
  const journal = new Recorder()
  const taken = await undelegate(request, { journal })
  assert.deepEqual(journal.calls, twice(['will', true], ['did', false]))
  assert.equal(journal.facts[1], taken)
  const again = new Recorder()
  await assert.rejects(undelegate(request, { journal: again }), { reason: 'not-delegated' })
  assert.deepEqual(again.calls, twice(['will', false], ['failed', false]))
})

const start = (command: [string, ...string[]]): Promise<HeldProgram> =>
  HeldProgram.start(
    prepareRun({
      ...common,
      path: PATH,
      program: {
        command,
        ...{ uid: 65534, gid: 65534, network: 'own', capabilities: [] },
        stdio: ['ignore', 'ignore', 'inherit'],
      },
    }),
  )

test('a program does not run before did, and never when will throws', async () => {
  {
    const journal = new Recorder({}, () => undefined)
    using program = await start(['grep', '-q', 'delegate_cmds=', '/proc/self/mountinfo'])
    const { target, mount } = await program.lend({ journal })
    assert.equal(mount!.path, PATH)
    assert.deepEqual(
      journal.calls.map(([call]) => call),
      ['will', 'will', 'did', 'did'],
    )
    const { program: facts } = journal.facts[0] as Operation & { do: 'lend' }
    assert.deepEqual([facts!.command[0], facts!.uid], ['grep', 65534])
    assert.equal(isMounted(target.pid), true)
    await program.release()
    assert.deepEqual(await program.ended(), { code: 0, signal: null })
  }
  using program = await start(['true'])
  await assert.rejects(program.lend({ journal: new Recorder({ will: full }) }), /^Error: no room$/)
})
