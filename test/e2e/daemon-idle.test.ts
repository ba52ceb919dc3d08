/** A daemon that nobody asks anything does nothing, however many loans live: it is not woken up. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Client } from '../../src/client/client.ts'
import { Bpftokend } from '../helpers/bpftokend.ts'
import { eventually } from '../helpers/eventually.ts'
import { needsTokens } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'
import { inOwnNamespaces } from '../kernel/daemon/service-lab.ts'
import { leavesNothing } from '../kernel/delegation/leaves-nothing.ts'

const machine = needsTokens()
if (machine.skip === undefined) leavesNothing()

/** Longer than every time that the daemon gives itself to do something later, but for its watchdog's. */
const WINDOW_MS = 12_000
/** How often all threads together may be woken up meanwhile. */
const MOST_WAKE_UPS = 2

const POLICY = `apiVersion: bpftoken.dev/v1
kind: DelegationPolicy
metadata: { name: dev }
spec:
  rights: { cmds: [map_create], maps: [hash] }
  limits: { lifetime: 8h }
  guard: optional
`

/** By thread of the process and of its children: how often it has waited, and gone on, until now. */
function waitsOf(pid: number): Map<string, number> {
  const tasks = `/proc/${pid}/task`
  const waits = new Map<string, number>()
  for (const task of namesIn(tasks)) {
    const status = textOf(`${tasks}/${task}/status`)
    const children = textOf(`${tasks}/${task}/children`)
    // It has ended meanwhile.
    if (status === undefined || children === undefined) continue
    waits.set(task, Number(/^voluntary_ctxt_switches:\s+(\d+)/m.exec(status)![1]))
    for (const child of children.trim().split(' ').filter(Boolean))
      for (const [thread, count] of waitsOf(Number(child))) waits.set(thread, count)
  }
  return waits
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory)
  } catch {
    return []
  }
}

function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}

/** How often threads were woken up since; what those had that have ended meanwhile is not counted. */
function wakeUps(pid: number, before: ReadonlyMap<string, number>): number {
  return [...waitsOf(pid)].reduce((sum, [thread, count]) => sum + count - (before.get(thread) ?? 0), 0)
}

test('a daemon with loans that live is not woken up while nobody asks', machine, async () => {
  using scratch = new Scratch()
  await using daemon = new Bpftokend(scratch.path)
  writeFileSync(join(daemon.policies, 'dev.yaml'), POLICY, { mode: 0o644 })
  await daemon.ready()
  using workload = await inOwnNamespaces(0)
  const body = { policy: { name: 'dev' }, recipient: { pid: workload.pid }, place: { path: '/sys/fs/bpf' } }
  // Each time a client of its own: the daemon looks after a connection that is kept, each second.
  const ask = async <T>(what: (client: Client) => Promise<T>): Promise<T> => {
    using client = new Client({ socket: daemon.socket })
    return await what(client)
  }
  const { loan } = (await ask(client => client.lend({ body }))) as { loan: { id: string } }
  const window = async (): Promise<number> => {
    const before = waitsOf(daemon.pid)
    await sleep(WINDOW_MS)
    return wakeUps(daemon.pid, before)
  }
  const seen: number[] = []
  const calm = async (): Promise<boolean> => {
    seen.push(await window())
    return seen.at(-1)! <= MOST_WAKE_UPS
  }
  await eventually(calm, `it is woken up again and again`).catch(error => {
    throw new Error(`${error.message}: ${seen.join(', ')} times in ${WINDOW_MS} ms`)
  })
  // The twin: what it is asked wakes it up, which is counted when it sleeps again.
  const before = waitsOf(daemon.pid)
  await ask(client => client.showLoan({ params: { id: loan.id } }))
  await eventually(() => wakeUps(daemon.pid, before) > 0, 'a question wakes it up')
  await ask(client => client.revoke({ body: { what: { loan: loan.id } } }))
})
