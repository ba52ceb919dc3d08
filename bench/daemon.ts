/**
 * Load upon a real bpftokend, over its socket, by root (whom no limit stops) and by ordinary users:
 * `npx tsx bench/daemon.ts [start] [latency] [throughput] [many] [flood] [memory] [decide]`. Times beside
 * the C floor of the same run; processor times are of the daemon with its executors.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { CProgram } from './c-program.ts'
import { Client, decisions, indexes, masks, policies, vocabularies } from './dist.ts'
import { interleave, summarize } from './stats.ts'

const MAIN = path.resolve(__dirname, '../dist/daemon/main.js')
const EXAMPLE = path.resolve(__dirname, '../examples/policies/packet-counter.yaml')
const TICKS_PER_SEC = 100
const NAMESPACES = 8
const PLACES = 150
const SECTIONS = ['start', 'latency', 'throughput', 'many', 'flood', 'memory', 'decide'] as const

/** A daemon with directories of its own. */
class Daemon implements AsyncDisposable {
  readonly directory = mkdtempSync(path.join(tmpdir(), 'bpftoken-bench-'))
  readonly socket = path.join(this.directory, 's.sock')
  readonly #process: ReturnType<typeof spawn>
  #log = ''

  /** `configured`: by a file, for which it loads a parser. */
  constructor({ configured = true }: { readonly configured?: boolean } = {}) {
    chmodSync(this.directory, 0o755)
    const policyDirectory = path.join(this.directory, 'policies')
    mkdirSync(policyDirectory, { mode: 0o755 })
    const text = readFileSync(EXAMPLE, 'utf8')
    writeFileSync(path.join(policyDirectory, 'packet-counter.yaml'), text, { mode: 0o644 })
    const limits = 'limits: { openLoans: 10000, requestsPerMinute: 120 }\n'
    const config = path.join(this.directory, 'bpftokend.yaml')
    if (configured) writeFileSync(config, limits, { mode: 0o644 })
    const words = ['--socket', this.socket, '--state', path.join(this.directory, 'state')]
    const more = ['--policies', policyDirectory, ...(configured ? ['--config', config] : [])]
    const profile = process.env['BENCH_NODE_OPTIONS']?.split(' ') ?? []
    this.#process = spawn(process.execPath, [...profile, MAIN, ...words, ...more], {
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    this.#process.stderr!.setEncoding('utf8').on('data', text => {
      this.#log += text
    })
  }

  get pid(): number {
    return this.#process.pid!
  }

  async ready(): Promise<this> {
    while (!this.#log.includes('is ready')) {
      if (this.#process.exitCode !== null) throw new Error(`bpftokend has ended: ${this.#log}`)
      await new Promise(resolve => setTimeout(resolve, 5))
    }
    return this
  }

  /** Milliseconds from its start until it answered, and on processors, as it says. */
  get untilReady(): { tookMs: number; cpuMs: number } {
    const said = (name: string): number => Number(new RegExp(`${name}="?(\\d+)`).exec(this.#log)?.[1])
    return { tookMs: said('READY_MS'), cpuMs: said('READY_CPU_MS') }
  }

  /** Its executors, and their children, are its descendants. */
  #all(): number[] {
    const parents = readdirSync('/proc')
      .filter(name => /^\d+$/.test(name))
      .flatMap(name => {
        const stat = statOf(Number(name))
        return stat === undefined ? [] : [{ pid: Number(name), parent: Number(stat[1]) }]
      })
    const all = [this.pid]
    for (const one of all) all.push(...parents.filter(({ parent }) => parent === one).map(({ pid }) => pid))
    return all
  }

  /** On processors, by the daemon alone and by all; those that have ended are counted too. */
  cpuMs(): { daemon: number; all: number } {
    const times = this.#all().map(pid => statOf(pid)?.slice(11, 15).map(Number) ?? [0, 0, 0, 0])
    const ms = (ticks: number): number => (ticks * 1000) / TICKS_PER_SEC
    const sum = times.reduce((all, one) => all + one.reduce((a, b) => a + b, 0), 0)
    return { daemon: ms(times[0]![0]! + times[0]![1]!), all: ms(sum) }
  }

  counts(): { descriptors: number; processes: number; rssMb: number } {
    const status = readFileSync(`/proc/${this.pid}/status`, 'utf8')
    return {
      descriptors: readdirSync(`/proc/${this.pid}/fd`).length,
      processes: this.#all().length,
      rssMb: Number(/^VmRSS:\s+(\d+)/m.exec(status)![1]) / 1024,
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = once(this.#process, 'exit')
    this.#process.kill('SIGTERM')
    await ended
    rmSync(this.directory, { recursive: true })
  }
}

/** From the third field on; undefined: it has ended. */
function statOf(pid: number): string[] | undefined {
  try {
    return readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /s, '')
      .split(' ')
  } catch {
    return undefined
  }
}

/** A user and a mount namespace with many places to mount at. */
class Namespaces implements Disposable {
  readonly #process: ReturnType<typeof spawn>
  readonly started: Promise<unknown>

  constructor(uid = 0) {
    const script = `mount -t tmpfs none /mnt && cd /mnt && for i in $(seq ${PLACES}); do mkdir $i; done && echo ready && exec sleep 3600`
    const words = ['--user', '--map-root-user', '--mount', '--net', 'sh', '-c', script]
    this.#process = spawn('unshare', words, { stdio: ['ignore', 'pipe', 'inherit'], uid, gid: uid })
    this.started = once(this.#process.stdout!, 'data')
  }

  get pid(): number {
    return this.#process.pid!
  }

  get mounts(): number {
    return readFileSync(`/proc/${this.pid}/mountinfo`, 'utf8')
      .split('\n')
      .filter(line => / - bpf /.test(line)).length
  }

  static async several(count: number): Promise<Namespaces[]> {
    const all = Array.from({ length: count }, () => new Namespaces())
    await Promise.all(all.map(one => one.started))
    return all
  }

  [Symbol.dispose](): void {
    this.#process.kill('SIGKILL')
  }
}

const nowMs = (): number => performance.now()
const ms = (value: number): string => value.toFixed(2)

function quantiles(times: readonly number[]): string {
  const sorted = [...times].sort((a, b) => a - b)
  const at = (q: number): number => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))]!
  return `p50 ${ms(at(0.5))} ms, p99 ${ms(at(0.99))} ms`
}

type Lending = InstanceType<typeof Client>

async function lendAt(client: Lending, pid: number, place: number): Promise<string> {
  const { loan } = (await client.lend({
    body: {
      policy: { name: 'packet-counter' },
      recipient: { pid },
      place: { path: `/mnt/${place}` },
      anySubject: true,
    },
  })) as { loan: { id: string } }
  return loan.id
}

/**
 * `count` loans by `clients` at one time, round and round through the places; the times of each.
 */
async function lendMany(
  daemon: Daemon,
  clients: number,
  places: readonly { readonly pid: number; readonly place: number }[],
): Promise<{ times: number[]; loans: string[]; tookMs: number; cpu: { daemon: number; all: number } }> {
  const times: number[] = []
  const loans: string[] = []
  const rest = [...places]
  const before = daemon.cpuMs()
  const start = nowMs()
  const work = async (): Promise<void> => {
    using client = new Client({ socket: daemon.socket })
    for (let one = rest.shift(); one !== undefined; one = rest.shift()) {
      const begun = nowMs()
      loans.push(await lendAt(client, one.pid, one.place))
      times.push(nowMs() - begun)
    }
  }
  await Promise.all(Array.from({ length: clients }, work))
  const tookMs = nowMs() - start
  const after = daemon.cpuMs()
  return { times, loans, tookMs, cpu: { daemon: after.daemon - before.daemon, all: after.all - before.all } }
}

function placesOf(all: readonly Namespaces[], count: number): { pid: number; place: number }[] {
  return Array.from({ length: count }, (_, i) => ({
    pid: all[i % all.length]!.pid,
    place: 1 + Math.floor(i / all.length),
  }))
}

/** How long taking all back takes, and on processors. */
async function revokeAll(
  daemon: Daemon,
): Promise<{ tookMs: number; cpuMs: number; count: number; complete: number }> {
  using client = new Client({ socket: daemon.socket, timeoutMs: 600_000 })
  const before = daemon.cpuMs().all
  const start = nowMs()
  const { loans } = (await client.revoke({ body: { what: { all: true } } })) as { loans: { state: string }[] }
  const ended = loans.filter(({ state }) => state === 'ended').length
  return { tookMs: nowMs() - start, cpuMs: daemon.cpuMs().all - before, count: loans.length, complete: ended }
}

const told = (text: string): void => console.log(`  ${text}`)

async function measureStart(): Promise<void> {
  console.log('Start, until it answers, without a configuration and with one, in turn')
  for (let i = 0; i < 10; i++) {
    const configured = i % 2 === 1
    const begun = nowMs()
    await using daemon = await new Daemon({ configured }).ready()
    const { tookMs, cpuMs } = daemon.untilReady
    told(
      `${configured ? 'with' : 'without'}: ready after ${tookMs} ms, ${cpuMs} ms on processors; warm after ${(nowMs() - begun).toFixed(0)} ms, ${daemon.cpuMs().all} ms on processors, ${daemon.counts().rssMb.toFixed(0)} MB`,
    )
  }
}

async function measureLatency(rounds: number): Promise<void> {
  console.log('One loan at a time through the socket, beside the C floor')
  await using daemon = await new Daemon().ready()
  const [ours] = (await Namespaces.several(1)) as [Namespaces]
  using _ = ours
  const vocabulary = vocabularies.runningVocabulary()
  const policy = policies.parsePolicy(readFileSync(EXAMPLE, 'utf8'), { source: EXAMPLE, vocabulary })
  const hex = (['cmds', 'maps', 'progs', 'attachs'] as const).map(d => masks.hexMask(policy.rights.masks[d]))
  using floor = new CProgram('delegate-floor', [`${ours.pid}`, '/mnt/149', '0', '0', ...hex])
  using client = new Client({ socket: daemon.socket })
  const lends = async (): Promise<number[]> => {
    const times: number[] = []
    for (let i = 0; i < 10; i++) {
      const begun = nowMs()
      const loan = await lendAt(client, ours.pid, 1 + i)
      times.push(nowMs() - begun)
      await client.revoke({ body: { what: { loan } } })
    }
    return times
  }
  const c = async (): Promise<number[]> => (JSON.parse(await floor.ask('10')) as number[]).map(ns => ns / 1e6)
  for (let i = 0; i < 3; i++) await lends()
  const measured = await interleave(rounds, lends, c)
  const our = summarize(measured.flatMap(round => round.ours))
  const its = summarize(measured.flatMap(round => round.c))
  told(`ours: min ${ms(our.min)}, median ${ms(our.median)}, p90 ${ms(our.p90)} ms`)
  told(`C floor: min ${ms(its.min)}, median ${ms(its.median)}, p90 ${ms(its.p90)} ms`)
  told(`ratio of minima ${ms(our.min / its.min)}x, of medians ${ms(our.median / its.median)}x; goal 1.5x`)
}

async function measureThroughput(count: number): Promise<void> {
  console.log(`${count} loans into ${NAMESPACES} namespaces, then all taken back at once`)
  await using daemon = await new Daemon().ready()
  const all = await Namespaces.several(NAMESPACES)
  try {
    for (const clients of [1, 8, 1, 8, 64]) {
      const { times, tookMs, cpu } = await lendMany(daemon, clients, placesOf(all, count))
      const lent = times.length
      told(
        `${clients} clients: ${((lent * 1000) / tookMs).toFixed(0)} in a second, ${quantiles(times)}; on processors ${ms(cpu.daemon / lent)} ms the daemon, ${ms(cpu.all / lent)} ms with its executors`,
      )
      const { descriptors, processes, rssMb } = daemon.counts()
      const mounts = all.reduce((sum, one) => sum + one.mounts, 0)
      told(`   ${mounts} mounts, ${descriptors} descriptors, ${processes} processes, ${rssMb.toFixed(0)} MB`)
      const back = await revokeAll(daemon)
      told(
        `   ${back.complete} of ${back.count} taken back in ${back.tookMs.toFixed(0)} ms, on processors ${back.cpuMs} ms; ${all.reduce((sum, one) => sum + one.mounts, 0)} mounts are left`,
      )
    }
  } finally {
    for (const one of all) one[Symbol.dispose]()
  }
}

/**
 * In rounds of 1,000 that live at one time; half of each is taken back by name, the rest with all.
 */
async function measureMany(total: number): Promise<void> {
  console.log(`${total} loans in all, half of them taken back one by one, 1,000 alive at one time`)
  await using daemon = await new Daemon().ready()
  const all = await Namespaces.several(NAMESPACES)
  try {
    for (let made = 0; made < total; made += 1000) {
      const { times, loans } = await lendMany(daemon, 64, placesOf(all, 1000))
      const { descriptors, processes, rssMb } = daemon.counts()
      const rest = loans.filter((_, i) => i % 2 === 0)
      const single: number[] = []
      const work = async (): Promise<void> => {
        using client = new Client({ socket: daemon.socket })
        for (let loan = rest.shift(); loan !== undefined; loan = rest.shift()) {
          const begun = nowMs()
          await client.revoke({ body: { what: { loan } } })
          single.push(nowMs() - begun)
        }
      }
      await Promise.all(Array.from({ length: 16 }, work))
      const back = await revokeAll(daemon)
      const after = daemon.counts()
      told(
        `${made + 1000}: lend ${quantiles(times)}; revoke ${quantiles(single)}; all the rest ${back.tookMs.toFixed(0)} ms; alive: ${descriptors} descriptors, ${processes} processes, ${rssMb.toFixed(0)} MB; after: ${after.descriptors}, ${after.processes}, ${after.rssMb.toFixed(0)} MB, ${all.reduce((sum, one) => sum + one.mounts, 0)} mounts`,
      )
    }
  } finally {
    for (const one of all) one[Symbol.dispose]()
  }
}

/** What one user's requests take while another asks as fast as it can. */
async function measureFlood(): Promise<void> {
  console.log('One user asks, alone and while another floods')
  await using daemon = await new Daemon().ready()
  const asker = path.join(__dirname, 'asker.ts')
  const ask = (uid: number, how: string) =>
    spawn(process.execPath, ['--import', 'tsx', asker, daemon.socket, String(uid), how], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
  const quiet = async (): Promise<number[]> => {
    const child = ask(65533, 'quiet')
    let text = ''
    child.stdout!.setEncoding('utf8').on('data', part => {
      text += part
    })
    await once(child, 'close')
    return JSON.parse(text) as number[]
  }
  await quiet()
  const alone = await quiet()
  const flood = ask(65534, 'flood')
  await once(flood.stdout!, 'data')
  const flooded = await quiet()
  flood.kill('SIGKILL')
  told(`alone: ${quantiles(alone)}`)
  told(`with a flood: ${quantiles(flooded)}; goal of p99: 2x`)
}

async function measureMemory(): Promise<void> {
  console.log('Memory by loans that live')
  await using daemon = await new Daemon().ready()
  const all = await Namespaces.several(2 * NAMESPACES)
  try {
    // What the first ones load and compile is no loan's.
    await lendMany(daemon, 8, placesOf(all, 400))
    await revokeAll(daemon)
    const places = placesOf(all, 2000)
    told(`0 loans: ${daemon.counts().rssMb.toFixed(1)} MB`)
    for (let made = 0; made < 2000; made += 500) {
      await lendMany(daemon, 8, places.slice(made, made + 500))
      await new Promise(resolve => setTimeout(resolve, 1000))
      told(`${made + 500} loans: ${daemon.counts().rssMb.toFixed(1)} MB`)
    }
    await revokeAll(daemon)
    told(`all taken back: ${daemon.counts().rssMb.toFixed(1)} MB`)
  } finally {
    for (const one of all) one[Symbol.dispose]()
  }
}

function measureDecide(): void {
  console.log('decide over 1,000 policies of ordinary users')
  const vocabulary = vocabularies.runningVocabulary()
  const base = policies.parsePolicy(readFileSync(EXAMPLE, 'utf8'), { source: EXAMPLE, vocabulary })
  const all = Array.from({ length: 1000 }, (_, i) => ({
    ...base,
    name: `p${i}`,
    subjects: [{ user: 10_000 + i }, { unit: `job-${i}@*.service`, group: 'staff' }],
  }))
  const subject = {
    user: { is: { id: 10_999, names: ['somebody'] } },
    groups: { is: [{ id: 100, names: ['users'] }] },
    cgroup: { is: '/system.slice/cron.service' },
    unit: { is: 'cron.service' },
    executable: { is: '/usr/bin/cat' },
    label: { unknown: 'no security module' },
  }
  const now = new Date()
  const begun = nowMs()
  const index = new indexes.PolicyIndex(all)
  told(`made ready, once each time that they are read: ${ms(nowMs() - begun)} ms`)
  for (const uid of [10_000, 10_999, 1]) {
    const who = { ...subject, user: { is: { id: uid, names: ['somebody'] } } }
    const times: number[] = []
    for (let i = 0; i < 500; i++) {
      const begun = nowMs()
      decisions.decide(who, { by: 'subject' }, index, now)
      times.push((nowMs() - begun) * 1000)
    }
    const { min, median, p90 } = summarize(times.slice(100))
    told(
      `user ${uid}: min ${min.toFixed(0)}, median ${median.toFixed(0)}, p90 ${p90.toFixed(0)} us; goal 50 us`,
    )
  }
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    options: { count: { type: 'string' }, rounds: { type: 'string', default: '20' } },
    allowPositionals: true,
  })
  const wanted = (section: (typeof SECTIONS)[number]): boolean =>
    positionals.length === 0 || positionals.includes(section)
  if (wanted('start')) await measureStart()
  if (wanted('latency')) await measureLatency(Number(values.rounds))
  if (wanted('throughput')) await measureThroughput(Number(values.count ?? 400))
  if (wanted('many')) await measureMany(Number(values.count ?? 10_000))
  if (wanted('flood')) await measureFlood()
  if (wanted('memory')) await measureMemory()
  if (wanted('decide')) measureDecide()
}

main().catch(error => {
  console.error(`bench: ${(error as Error).stack}`)
  process.exitCode = 1
})
