/**
 * Random sequences of all that the daemon can be asked, against a simple model of it. What fails is
 * shrunk. Each run tells its seed: with it in BPFTOKEN_TEST_SEED the same sequences come again. With
 * BPFTOKEN_TEST_RUNS=10 there are ten times as many.
 */
import assert from 'node:assert/strict'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import { NS_PER_SEC, REAL_CLOCK } from '../../../src/daemon/clock.ts'
import type { Parts } from '../../../src/daemon/parts.ts'
import type { Peer } from '../../../src/daemon/peer.ts'
import { listInstances } from '../../../src/delegation/instances.ts'
import { journaled, type Loan } from '../../../src/lending/journal.ts'
import { eventually } from '../../helpers/eventually.ts'
import { vocabulary } from '../delegation/lab.ts'
import { leavesNothing } from '../delegation/leaves-nothing.ts'
import { Workload } from '../delegation/workload.ts'
import {
  type Expected,
  LIMITS,
  Model,
  type ModelPolicy,
  type PolicyFile,
  type PolicyName,
  type Target,
  type User,
  type Wish,
} from './model.ts'
import { PretendedGuard } from './pretended-guard.ts'
import { inOwnNamespaces, type LabOptions, ServiceLab } from './service-lab.ts'

const UIDS = { root: 0, alice: 61031, bob: 61032 } as const
const START_NS = 1_000_000n * NS_PER_SEC
const SEED = Number(process.env['BPFTOKEN_TEST_SEED'] ?? Date.now() % 0x7fff_ffff)
const MORE = Number(process.env['BPFTOKEN_TEST_RUNS'] ?? 1)

let lab: ServiceLab
const askers = {} as Record<User, Peer>
const insides = {} as Record<Target, Workload>
const workloads: Workload[] = []

before(async () => {
  lab = await ServiceLab.open()
  askers.root = await lab.root()
  for (const name of ['alice', 'bob'] as const) {
    const outside = await Workload.onHost(UIDS[name])
    insides[name] = await inOwnNamespaces(UIDS[name])
    workloads.push(outside, insides[name])
    askers[name] = await lab.askerOf(outside)
  }
})
after(async () => {
  for (const one of workloads) {
    one[Symbol.dispose]()
    await one.exited
  }
  await lab[Symbol.asyncDispose]()
})
leavesNothing()

/** Time that passes when it is told to. */
class Time {
  seconds = 0
  #due: bigint | undefined
  #ring: () => void = () => {}

  readonly clock = {
    wall: REAL_CLOCK.wall,
    bootNs: () => this.#now,
    alarm: (ring: () => void) => {
      this.#ring = ring
      this.#due = undefined
      return {
        set: (atNs: bigint | undefined) => {
          this.#due = atNs
        },
        [Symbol.dispose]() {},
      }
    },
  }

  get #now(): bigint {
    return START_NS + BigInt(this.seconds) * NS_PER_SEC
  }

  pass(seconds: number): void {
    this.seconds += seconds
    if (this.#due === undefined || this.#due > this.#now) return
    this.#due = undefined
    this.#ring()
  }
}

interface Real {
  readonly time: Time
  readonly options: LabOptions
}

/** Lends nothing: all but the kernel's part is as it is. */
function pretendedLending(guard: PretendedGuard | undefined): Parts['lend'] {
  return ({ facts }, how) =>
    journaled(how, { do: 'lend', ...facts }, async did => {
      const { target, place } = facts
      const made: Loan = { target, place, mount: undefined, delegation: guard?.begin(facts) }
      await did(made)
      return made
    })
}

const policyText = ({ subjects, approval, lifetimeSec }: ModelPolicy): string =>
  [
    ...(subjects === undefined
      ? []
      : [`  subjects: [${subjects.map(user => `{ user: ${UIDS[user]} }`).join(', ')}]`]),
    ...(approval ? ['  approval: required'] : []),
    '  rights: { cmds: [map_create], maps: [hash] }',
    '  guard: optional',
    '  derive: { allowed: true, maxDepth: 2 }',
    ...(lifetimeSec === undefined ? [] : [`  limits: { lifetime: ${lifetimeSec}s }`]),
  ].join('\n')

interface Answered {
  readonly status: number
  readonly body: Record<string, unknown>
}

const numberOf = (name: unknown): number => Number(/-(\d+)$/.exec(String(name))![1])

/** Asks, and sees that what comes is what the model says. Undefined: it is refused, as it should be. */
async function ask(asked: Promise<unknown>, expected: Expected): Promise<Answered | undefined> {
  const came = await asked.then(
    answer => answer as Answered,
    (error: { code?: string; message: string }) => error,
  )
  if (expected.is === 'refused' || expected.is === 'failed') {
    const { code, message } = came as { code?: string; message?: string }
    assert.ok(code !== undefined, `it was not ${expected.is}: ${JSON.stringify(came)}`)
    if (expected.is === 'refused') assert.equal(code, expected.code, message)
    return undefined
  }
  assert.ok('status' in came, `it was refused: ${(came as { message: string }).message}`)
  return came
}

type Command = fc.AsyncCommand<Model, Real>

/** Each is followed by a look at all that is written down. */
function command(
  text: string,
  act: (model: Model, real: Real) => Promise<void>,
  check: (model: Readonly<Model>) => boolean = () => true,
): Command {
  return {
    check,
    async run(model, real) {
      await act(model, real)
      await compare(model)
    },
    toString: () => text,
  }
}

const hasLoans = ({ loans }: Readonly<Model>): boolean => loans.size > 0
const nth = (of: ReadonlyMap<number, unknown>, index: number): number => [...of.keys()][index % of.size]!

function bodyOf({ policy, target, place, lifetimeSec }: Wish) {
  return {
    policy: { name: policy },
    recipient: { pid: insides[target].pid },
    place: { path: place },
    ...(lifetimeSec === undefined ? {} : { lifetimeSec }),
  }
}

/** The loan that is new in the registry. */
function newLoan(model: Model): number {
  const fresh = [...lab.registry.loans()].filter(({ id, kind }) => kind !== 'adopted' && !model.loans.has(id))
  assert.equal(fresh.length, 1)
  return fresh[0]!.id
}

function sameAnswer({ status, body }: Answered, expected: Expected): void {
  if (expected.is !== 'same') return
  const { loan, request } = body as { loan?: { id: string }; request?: { id: string } }
  assert.equal(status, expected.request === undefined ? 201 : 202)
  assert.deepEqual(
    [loan && numberOf(loan.id), request && numberOf(request.id)],
    [expected.loan, expected.request],
  )
}

const lends = (user: User, wish: Wish, key: string | undefined): Command =>
  command(`${user} lends ${JSON.stringify(wish)} ${key ?? ''}`, async model => {
    const expected = model.lend(user, wish, key)
    const options = key === undefined ? {} : { key }
    const came = await ask(lab.ask('lend', askers[user], { body: bodyOf(wish) }, options), expected)
    if (expected.is === 'failed') model.couldNot(newLoan(model), user, wish)
    if (came === undefined) return
    sameAnswer(came, expected)
    const { loan, request } = came.body as { loan?: { id: string }; request?: { id: string } }
    if (expected.is === 'made') model.lent(numberOf(loan!.id), user, wish, key)
    if (expected.is === 'waits') model.waits(numberOf(request!.id), user, wish, key)
  })

const derives = (user: User, which: number, wish: Wish, key: string | undefined): Command =>
  command(
    `${user} derives from #${which} ${JSON.stringify(wish)} ${key ?? ''}`,
    async model => {
      const from = nth(model.loans, which)
      const expected = model.derive(user, from, wish, key)
      const request = { params: { id: `loan-${from}` }, body: bodyOf(wish) }
      const came = await ask(
        lab.ask('derive', askers[user], request, key === undefined ? {} : { key }),
        expected,
      )
      if (came === undefined) return
      sameAnswer(came, expected)
      const { loan } = came.body as { loan: { id: string } }
      if (expected.is === 'made') model.derived(numberOf(loan.id), user, from, wish, key)
    },
    hasLoans,
  )

const renews = (user: User, which: number, seconds: number): Command =>
  command(
    `${user} renews #${which} for ${seconds} s`,
    async model => {
      const id = nth(model.loans, which)
      const request = { params: { id: `loan-${id}` }, body: { lifetimeSec: seconds } }
      const came = await ask(lab.ask('renew', askers[user], request), model.renew(user, id))
      if (came !== undefined) model.renewed(user, id, seconds)
    },
    hasLoans,
  )

const revokes = (user: User, which: number | 'all'): Command =>
  command(
    `${user} revokes ${which === 'all' ? 'all' : `#${which}`}`,
    async model => {
      const id = which === 'all' ? undefined : nth(model.loans, which)
      // What others of this machine have lent is not `all`.
      const what = id === undefined ? { all: true as const } : { loan: `loan-${id}` }
      const expected = id === undefined ? ({ is: 'done' } as const) : model.revoke(user, id)
      const came = await ask(lab.ask('revoke', askers[user], { body: { what } }), expected)
      if (came !== undefined) model.end(id === undefined ? model.own(user) : [id], 'revoked')
    },
    model => which === 'all' || hasLoans(model),
  )

const passes = (seconds: number): Command =>
  command(`${seconds} s pass`, async (model, { time }) => {
    model.pass(seconds)
    time.pass(seconds)
    const isOver = () =>
      [...model.loans].every(([id, { ended }]) => {
        const state = lab.registry.loan(id)?.state
        return (ended !== undefined) === (state === 'ended')
      })
    await eventually(isOver, 'what was to expire has not, or more has')
  })

const decides = (user: User, which: number, how: 'approve' | 'deny' | 'withdraw'): Command =>
  command(
    `${user}: ${how} request #${which}`,
    async model => {
      const id = nth(model.requests, which)
      const request = model.requests.get(id)!
      const expected = model[how](user, id)
      const asked = lab.ask(how as 'approve', askers[user], { params: { id: `request-${id}` }, body: {} })
      const over = async (state: string): Promise<void> => {
        assert.equal(((await asked).body as { state: string }).state, state)
        request.state = state
      }
      if (how === 'approve' && (expected.is === 'failed' || isBusy(expected))) {
        // It is approved, and then it cannot be lent.
        await over('failed')
        if (expected.is === 'failed') model.couldNot(newLoan(model), request.asker, request.wish)
        return
      }
      const came = await ask(asked, expected)
      if (came === undefined) return
      if (how === 'deny') return over('denied')
      if (how === 'withdraw') return over('withdrawn')
      await over('approved')
      request.loan = numberOf((came.body as { loan: string }).loan)
      model.lent(request.loan, request.asker, request.wish, undefined)
    },
    ({ requests }) => requests.size > 0,
  )

function isBusy(expected: Expected): boolean {
  return expected.is === 'refused' && expected.code === 'BPFTOKEN_BUSY'
}

async function edit(model: Model, name: PolicyName, file: PolicyFile): Promise<void> {
  const path = join(lab.policyDirectory, `${name}.yaml`)
  if (file === 'none') rmSync(path, { force: true })
  else if (file === 'bad') lab.write(name, '  rights: nonsense')
  else lab.write(name, policyText(file))
  model.read(name, file)
  const { body } = await lab.ask('reload', askers.root, {})
  assert.equal(body.faults.length, [...model.files.values()].filter(file => file === 'bad').length)
  const { body: listed } = await lab.ask('listPolicies', askers.root, {})
  assert.deepEqual(
    listed.policies.map(({ name }) => name),
    [...model.policies.keys()].sort(),
  )
}

const edits = (name: PolicyName, file: PolicyFile): Command =>
  command(`policy ${name} is ${JSON.stringify(file)}`, model => edit(model, name, file))

const RESTART = command('restart', async (model, { options }) => {
  await lab.stop()
  await lab.start(options)
  await lab.service.settle()
  model.restart()
})

const LOOK = command('all look', async model => {
  await lab.service.settle()
  for (const user of Object.keys(UIDS) as User[]) {
    const { body } = await lab.ask('listLoans', askers[user], { query: {} })
    const shown = body.loans.filter(({ kind }) => kind !== 'adopted').map(({ id }) => numberOf(id))
    const live = [...model.loans].filter(([, loan]) => loan.ended === undefined && model.sees(user, loan))
    assert.deepEqual(
      shown,
      live.map(([id]) => id),
      `what ${user} sees`,
    )
    const waiting = await lab.ask('listRequests', askers[user], { query: {} })
    assert.deepEqual(
      waiting.body.requests.map(({ id }) => numberOf(id)),
      [...model.requests]
        .filter(([, { state, asker }]) => state === 'waiting' && (user === 'root' || asker === user))
        .map(([id]) => id),
      `what waits for ${user}`,
    )
  }
})

/** What is written down, against the model. */
async function compare(model: Model): Promise<void> {
  const loans = [...lab.registry.loans()].filter(({ kind }) => kind !== 'adopted').sort((a, b) => a.id - b.id)
  const userOf = (uid: number) => Object.entries(UIDS).find(([, one]) => one === uid)![0]
  assert.deepEqual(
    loans.map(({ id, state, asker, recipient, parent, expires }) => ({
      ...{ id, state, asker: userOf(asker.uid), target: userOf(recipient!.ownerUid), parent },
      expires: expires && Number((BigInt(expires.bootNs) - START_NS) / NS_PER_SEC),
    })),
    [...model.loans].map(([id, { ended, asker, target, parent, expires }]) => ({
      ...{ id, state: ended === undefined ? 'live' : 'ended', asker, target, parent, expires },
    })),
  )
  for (const { id, ended } of loans) {
    const expected = model.loans.get(id)!
    if (expected.ended === undefined) continue
    assert.ok(expected.ended.includes(ended!.why), `loan-${id}: ${ended!.why}, not ${expected.ended.join()}`)
    expected.ended = [ended!.why]
  }
  assert.deepEqual(
    [...lab.registry.requests()].map(({ id, state, loan }) => ({ id, state, loan })),
    [...model.requests].map(([id, { state, loan }]) => ({ id, state, loan })),
  )
  const { liveLoans, waitingRequests } = lab.service.gauges()
  const count = <T>(all: Iterable<T>, is: (one: T) => boolean) => [...all].filter(is).length
  assert.deepEqual(
    [liveLoans, waitingRequests],
    [
      count(model.loans.values(), ({ ended }) => ended === undefined),
      count(model.requests.values(), ({ state }) => state === 'waiting'),
    ],
  )
  if (!model.how.mounts) return
  const places = (target: Target) =>
    listInstances(vocabulary)
      .filter(({ pids }) => pids.includes(insides[target].pid))
      .map(({ path }) => path)
      .sort()
  for (const target of ['alice', 'bob'] as const)
    assert.deepEqual(
      places(target),
      [...model.loans.values()]
        .filter(one => one.target === target && one.ended === undefined)
        .map(({ place }) => place)
        .sort(),
    )
}

const user = fc.constantFrom<User>('root', 'alice', 'alice', 'bob')
const target = fc.constantFrom<Target>('alice', 'alice', 'bob')
const policy = fc.constantFrom<PolicyName>('a', 'b')
const key = fc.option(fc.constantFrom('k1', 'k2'), { nil: undefined, freq: 2 })
const which = fc.nat(20)
const wish = fc.record({
  policy,
  target,
  place: fc.constantFrom('/sys/fs/bpf', '/mnt'),
  lifetimeSec: fc.constantFrom(undefined, 20, 100, 300),
})
const file = fc.oneof(
  fc.constantFrom<PolicyFile>('none', 'bad'),
  fc.record({
    subjects: fc.constantFrom<(readonly User[] | undefined)[]>(
      undefined,
      ['alice'],
      ['alice', 'bob'],
      ['bob'],
    ),
    approval: fc.boolean(),
    lifetimeSec: fc.constantFrom(undefined, undefined, 60),
  }),
)
const many = <T>(n: number, one: fc.Arbitrary<T>) => Array.from({ length: n }, () => one)
const COMMANDS = [
  ...many<Command>(
    5,
    fc.tuple(user, wish, key).map(([by, what, with_]) => lends(by, what, with_)),
  ),
  ...many<Command>(
    2,
    fc.tuple(user, which, wish, key).map(([by, of, what, with_]) => derives(by, of, what, with_)),
  ),
  fc.tuple(user, which, fc.constantFrom(30, 400)).map(([by, of, seconds]) => renews(by, of, seconds)),
  ...many<Command>(
    2,
    fc.tuple(user, which).map(([by, of]) => revokes(by, of)),
  ),
  user.map(by => revokes(by, 'all')),
  ...many<Command>(
    2,
    fc.constantFrom(10, 50, 200, 600).map(seconds => passes(seconds)),
  ),
  ...many<Command>(
    3,
    fc
      .tuple(
        user,
        which,
        fc.constantFrom('approve' as const, 'approve' as const, 'deny' as const, 'withdraw' as const),
      )
      .map(([by, of, how]) => decides(how === 'withdraw' ? by : by === 'bob' ? 'bob' : 'root', of, how)),
  ),
  ...many<Command>(
    2,
    fc.tuple(policy, file).map(([name, text]) => edits(name, text)),
  ),
  fc.constant(RESTART),
  fc.constant(LOOK),
]

/** Alice may, Bob must be approved: so that much happens from the beginning. */
const FIRST: Readonly<Record<PolicyName, ModelPolicy>> = {
  a: { subjects: ['alice', 'bob'], approval: false, lifetimeSec: undefined },
  b: { subjects: ['alice', 'bob'], approval: true, lifetimeSec: undefined },
}

for (const { title, guarded, mounts, runs, length } of [
  { title: 'without a guard', guarded: false, mounts: false, runs: 30, length: 40 },
  { title: 'with a guard', guarded: true, mounts: false, runs: 30, length: 40 },
  { title: 'and the kernel lends', guarded: false, mounts: true, runs: 8, length: 25 },
])
  test(`any sequence of requests agrees with the model, ${title}`, async t => {
    const counts = { commands: 0, restarts: 0 }
    t.diagnostic(`seed ${SEED}, ${Math.ceil(runs * MORE)} sequences of up to ${length}`)
    const guardFile = join(lab.directory, 'guard.json')
    let failed = true
    try {
      await fc.assert(
        fc.asyncProperty(fc.commands(COMMANDS, { maxCommands: length, size: 'max' }), async commands => {
          await lab.stop()
          const left = ['a.yaml', 'b.yaml'].map(name => join(lab.policyDirectory, name))
          for (const path of [lab.stateDirectory, guardFile, ...left])
            rmSync(path, { recursive: true, force: true })
          const time = new Time()
          const guard = guarded ? new PretendedGuard(guardFile, () => true) : undefined
          const limits = { ...LIMITS, requestsPerMinute: 1_000_000 }
          const options: LabOptions = {
            ...{ clock: time.clock, limits },
            ...(mounts ? {} : { lend: pretendedLending(guard) }),
            ...(guard === undefined ? {} : { guard: guard.guard }),
          }
          await lab.start(options)
          const setup = async () => {
            const model = new Model({ guarded, mounts })
            for (const name of ['a', 'b'] as const) await edit(model, name, FIRST[name])
            return { model, real: { time, options } }
          }
          await fc.asyncModelRun(setup, commands)
          for (const one of commands) {
            counts.commands++
            if (String(one) === 'restart') counts.restarts++
          }
          assert.equal((await lab.ask('verifyAudit', askers.root, {})).body.intact, true)
          await lab.ask('revoke', askers.root, { body: { what: { all: true } } })
          assert.deepEqual(
            lab.log.lines.filter(
              line => line.startsWith('error') && !line.includes('a policy could not be taken'),
            ),
            [],
          )
        }),
        { seed: SEED, numRuns: Math.ceil(runs * MORE) },
      )
      failed = false
    } finally {
      if (failed) await lab.ask('revoke', askers.root, { body: { what: { all: true } } }).catch(() => {})
      rmSync(guardFile, { force: true })
      t.diagnostic(`${counts.commands} commands, ${counts.restarts} restarts`)
    }
  })
