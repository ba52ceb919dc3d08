/**
 * A real bpftokend under load: 64 clients at once, waves of loans of which half are revoked and the
 * others end with their processes, and a flood. Nothing may be left of it. Times are printed, and
 * judge nothing. `make load` has 10,000 loans, and 1,000 that live at once.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Client } from '../../../src/client/client.ts'
import { listInstances } from '../../../src/delegation/instances.ts'
import { Bpftokend } from '../../helpers/bpftokend.ts'
import { eventually } from '../../helpers/eventually.ts'
import { Scratch } from '../../helpers/scratch.ts'
import { vocabulary } from '../delegation/lab.ts'
import { leavesNothing } from '../delegation/leaves-nothing.ts'
import { removeProgram, Workload } from '../delegation/workload.ts'
import { inOwnNamespaces } from './service-lab.ts'

const CLIENTS = 64
const WAVES = 5
/** Each wave has as many; half of them live at once at its end. */
const WAVE = Math.ceil(Number(process.env['BPFTOKEN_TEST_LOANS'] ?? 600) / WAVES)
const TARGETS = 8
const USER = 61041
const FLOODER = 61042
const ASKED = 30
/** A loan that has ended is remembered, up to 2,000 of a user; and a heap breathes. */
const BYTES_PER_ENDED_LOAN = 4096
const BREATH_BYTES = 32 * 2 ** 20

const EXECUTOR = 'process bpftoken-execut'
/** As many stay when nothing is done: src/sys/executor/pool.ts. */
const FEW_EXECUTORS = 4

after(removeProgram)
leavesNothing()

const progress = (text: string): void => {
  if (process.env['BPFTOKEN_TEST_LOANS'] !== undefined) process.stderr.write(`${text}\n`)
}

/** Nearest rank. */
function percentile(all: readonly number[], percent: number): number {
  const sorted = [...all].sort((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil((percent / 100) * sorted.length) - 1)] ?? Number.NaN
}

const times = (all: readonly number[]): string =>
  `p50 ${percentile(all, 50).toFixed(1)} ms, p99 ${percentile(all, 99).toFixed(1)} ms of ${all.length}`

/**
 * What the daemon has of the machine: descriptors by what they are, children, mounts. Without
 * processes and user namespaces, which are those of loans: see `namespacesHeld`.
 */
function held(pid: number): Record<string, number> {
  const all: string[] = []
  for (const fd of readdirSync(`/proc/${pid}/fd`))
    try {
      const what = readlinkSync(`/proc/${pid}/fd/${fd}`)
      if (!/^user:|\[pidfd\]/.test(what)) all.push(`fd ${what.replace(/\d+/g, 'N')}`)
    } catch {
      // Closed meanwhile: whoever waits for it asks again.
    }
  for (const one of descendants(pid)) all.push(`process ${one}`)
  for (const line of readFileSync(`/proc/${pid}/mountinfo`, 'utf8').split('\n'))
    if (line.includes(' - bpf ')) all.push('mount of bpf')
  const counts: Record<string, number> = {}
  for (const one of all.sort()) counts[one] = (counts[one] ?? 0) + 1
  // A few executors stay: each with two children that wait, and two sockets.
  const executors = counts[EXECUTOR] ?? 0
  delete counts[EXECUTOR]
  counts['process bpftoken-inside'] = (counts['process bpftoken-inside'] ?? 0) - 2 * executors
  counts['fd socket:[N]'] = (counts['fd socket:[N]'] ?? 0) - 2 * executors
  return counts
}

/** Each loan has one, and a pidfd with it. */
function namespacesHeld(pid: number): number {
  const links = readdirSync(`/proc/${pid}/fd`).flatMap(fd => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`)
    } catch {
      return [] // Closed meanwhile.
    }
  })
  const count = (start: string): number => links.filter(one => one.startsWith(start)).length
  // Of connections there is a pidfd, too.
  return Math.max(count('user:'), count('anon_inode:[pidfd]') - count('socket:'))
}

function descendants(pid: number): string[] {
  const found: string[] = []
  for (const child of readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' '))
    if (child !== '')
      try {
        found.push(readFileSync(`/proc/${child}/comm`, 'utf8').trim(), ...descendants(Number(child)))
      } catch {
        // It has exited.
      }
  return found
}

/** What it has when that does not change any more, or when it is what is wanted. */
async function settled(
  pid: number,
  wanted: Record<string, number> | undefined,
): Promise<Record<string, number>> {
  const executors = (): number => descendants(pid).filter(name => EXECUTOR.endsWith(name)).length
  await eventually(() => executors() <= FEW_EXECUTORS, 'executors that are idle stay')
  let last = ''
  for (let same = 0, tries = 0; same < 10 && tries < 300; tries++) {
    const now = JSON.stringify(held(pid))
    same = now === last ? same + 1 : 0
    last = now
    if (now === JSON.stringify(wanted)) break
    await sleep(100)
  }
  return JSON.parse(last) as Record<string, number>
}

function residentBytes(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) * 1024
}

class Load {
  readonly lend: number[] = []
  readonly revoke: number[] = []
  readonly #socket: string
  readonly #directory: string

  constructor(socket: string, directory: string) {
    this.#socket = socket
    this.#directory = directory
    for (let i = 0; i < Math.ceil(WAVE / TARGETS); i++) mkdirSync(this.#place(i), { recursive: true })
  }

  #place(nth: number): string {
    return join(this.#directory, `place-${nth}`)
  }

  /** So many loans, by all clients at once; every other one is revoked by who asked for it. */
  async wave(targets: readonly Workload[], count: number, told: string): Promise<void> {
    let next = 0
    const work = async (): Promise<void> => {
      using client = new Client({ socket: this.#socket, timeoutMs: 600_000 })
      for (let nth = next++; nth < count; nth = next++) {
        const { pid } = targets[nth % targets.length]!
        const place = { path: this.#place(Math.floor(nth / targets.length)) }
        const began = performance.now()
        const answer = await client.lend({
          body: { policy: { name: 'roots' }, recipient: { pid }, place, anySubject: true },
        })
        this.lend.push(performance.now() - began)
        assert.ok('loan' in answer)
        if (nth % 100 === 99) progress(`${told}: ${nth + 1} of ${count} lent`)
        if (nth % 2 === 0) continue
        const between = performance.now()
        const { loans } = await client.revoke({ body: { what: { loan: answer.loan.id } } })
        this.revoke.push(performance.now() - between)
        assert.deepEqual(
          loans.map(({ id, state }) => [id, state]),
          [[answer.loan.id, 'ended']],
        )
      }
    }
    await Promise.all(Array.from({ length: CLIENTS }, work))
  }
}

/** Loans of others on this machine, such as those of tests beside this one: they are no load. */
async function adoptedSoFar(client: Client): Promise<number> {
  for (let count = 0, after = 0; ; ) {
    const { records, next } = await client.audit({ query: { after, limit: 10_000 } })
    if (records.length === 0) return count
    count += records.filter(({ event }) => event === 'loan.adopted').length
    after = next
  }
}

async function ended(workloads: readonly Workload[]): Promise<void> {
  for (const one of workloads) one[Symbol.dispose]()
  await Promise.all(workloads.map(one => one.exited))
}

test('64 clients at once: all is lent, half is revoked, the rest ends with its processes, nothing is left', async t => {
  using scratch = new Scratch()
  await using daemon = new Bpftokend(scratch.path)
  writeFileSync(
    join(daemon.policies, 'roots.yaml'),
    'apiVersion: bpftoken.dev/v1\nkind: DelegationPolicy\nmetadata: { name: roots }\nspec:\n  rights: { cmds: [map_create], maps: [hash] }\n',
  )
  await daemon.ready()
  const load = new Load(daemon.socket, join(scratch.path, 'places'))
  using client = new Client({ socket: daemon.socket, timeoutMs: 600_000 })
  const live = async (): Promise<number> => (await client.status()).loans.live
  const resident: number[] = []
  let before: Record<string, number> | undefined
  for (let wave = 0; wave < WAVES; wave++) {
    const targets = await Promise.all(Array.from({ length: TARGETS }, () => Workload.sandboxed()))
    try {
      await load.wave(targets, WAVE, `wave ${wave + 1} of ${WAVES}`)
      assert.equal(await live(), Math.ceil(WAVE / 2))
      const mounted = listInstances(vocabulary).filter(({ pids }) =>
        targets.some(({ pid }) => pids.includes(pid)),
      )
      assert.equal(mounted.length, Math.ceil(WAVE / 2))
    } finally {
      // The last wave is taken back while its processes live.
      if (wave === WAVES - 1) {
        const { loans } = await client.revoke({ body: { what: { policy: 'roots' } } })
        assert.ok(loans.every(({ state }) => state === 'ended'))
        assert.deepEqual(
          listInstances(vocabulary).filter(({ pids }) => targets.some(({ pid }) => pids.includes(pid))),
          [],
        )
      }
      await ended(targets)
    }
    await eventually(async () => (await live()) === 0, 'loans live on')
    resident.push(residentBytes(daemon.pid))
    progress(`wave ${wave + 1}: ${Math.round(resident.at(-1)! / 2 ** 20)} MiB resident`)
    // What is kept for ever, such as executors, is there after the first one.
    const now = await settled(daemon.pid, before)
    before ??= now
    assert.deepEqual(now, before, `wave ${wave + 1} has left something`)
    // Of what others lend on this machine meanwhile a process and its namespace are held, too.
    const isOthers = async () => namespacesHeld(daemon.pid) <= (await client.status()).loans.adopted
    await eventually(isOthers, 'a namespace is held of a loan that has ended')
  }
  const grown = resident.at(-1)! - resident[0]!
  const allowed = BREATH_BYTES + (WAVES - 1) * WAVE * BYTES_PER_ENDED_LOAN
  assert.ok(grown <= allowed, `it has grown by ${grown} bytes, from ${resident.join(', ')}`)
  assert.equal(load.lend.length, WAVES * WAVE)
  assert.equal(load.revoke.length, WAVES * Math.floor(WAVE / 2))
  let own = 0
  const isAll = async (): Promise<boolean> => {
    const adopted = await adoptedSoFar(client)
    const { loans } = await client.status()
    own = loans.ended + loans.adopted - adopted
    return own === WAVES * WAVE
  }
  await eventually(isAll, 'other than as many loans as were lent have ended')
  const { audit } = await client.status()
  const verdict = await client.verifyAudit()
  assert.deepEqual([verdict.intact, audit.records >= 3 * own], [true, true])
  t.diagnostic(`lend: ${times(load.lend)}; revoke: ${times(load.revoke)}`)
  t.diagnostic(
    `resident after each wave of ${WAVE}: ${resident.map(n => `${Math.round(n / 2 ** 20)} MiB`).join(', ')}`,
  )
})

interface Said {
  readonly statuses: Record<string, number>
  readonly ms: number[]
}

class UserClient {
  readonly #child: ChildProcess
  #text = ''
  readonly #closed: Promise<unknown>

  constructor(socket: string, uid: number, how: 'flood' | 'ask', pid: number) {
    const words = [join(__dirname, 'user-client.ts'), socket, ...[uid, how, pid, ASKED].map(String)]
    this.#child = spawn(process.execPath, ['--import', 'tsx', ...words], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    this.#child.stdout!.on('data', text => {
      this.#text += text
    })
    this.#closed = once(this.#child, 'close')
  }

  floods(): Promise<void> {
    return eventually(() => this.#text.includes('floods'), 'it does not flood')
  }

  async said(): Promise<Said> {
    this.#child.stdin!.end()
    await this.#closed
    return JSON.parse(this.#text.trim().split('\n').at(-1)!) as Said
  }
}

test('while one user floods, every request of another has its answer', async t => {
  using scratch = new Scratch()
  await using daemon = new Bpftokend(scratch.path)
  const subjects = [USER, FLOODER].map(uid => `{ user: ${uid} }`).join(', ')
  writeFileSync(
    join(daemon.policies, 'everybodys.yaml'),
    `apiVersion: bpftoken.dev/v1\nkind: DelegationPolicy\nmetadata: { name: everybodys }\nspec:\n  subjects: [${subjects}]\n  rights: { cmds: [map_create], maps: [hash] }\n`,
  )
  await daemon.ready()
  const own = await inOwnNamespaces(USER)
  const others = await inOwnNamespaces(FLOODER)
  try {
    const ask = (): Promise<Said> => new UserClient(daemon.socket, USER, 'ask', own.pid).said()
    const calm = await ask()
    const flooder = new UserClient(daemon.socket, FLOODER, 'flood', others.pid)
    await flooder.floods()
    const flooded = await ask()
    const flood = await flooder.said()
    const answers = { 200: 3 * ASKED }
    assert.deepEqual([calm.statuses, flooded.statuses], [answers, answers])
    // It did flood: it was refused, and served as far as it may ask.
    assert.ok((flood.statuses['429'] ?? 0) > 100, JSON.stringify(flood.statuses))
    const ratio = percentile(flooded.ms, 99) / percentile(calm.ms, 99)
    t.diagnostic(
      `calm: ${times(calm.ms)}; flooded: ${times(flooded.ms)}: ${ratio.toFixed(1)} times; the flood: ${JSON.stringify(flood.statuses)}`,
    )
  } finally {
    await ended([own, others])
  }
})
