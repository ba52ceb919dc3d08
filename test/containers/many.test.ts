/**
 * Two hundred containers that start at once, half of which ask, while the daemon is killed and
 * started again.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, before, describe, type TestContext, test } from 'node:test'
import { ASKS, ContainerLab } from '../helpers/container-lab.ts'
import { needsTree } from '../helpers/debian-tree.ts'
import { eventually } from '../helpers/eventually.ts'

const COUNT = 200
/** So many of Podman's processes at one time: each takes memory. */
const AT_ONCE = 40
/** After so many have been started the daemon is killed. */
const KILL_AFTER = 60
const ABLE = ['--userns=auto', '--cap-add=BPF,NET_ADMIN'] as const

interface One {
  readonly name: string
  readonly asks: boolean
}

/** Each of them once, so many at one time. */
async function each<T>(all: readonly T[], atOnce: number, work: (one: T) => Promise<void>): Promise<void> {
  const queue = all.values()
  const worker = async (): Promise<void> => {
    for (const one of queue) await work(one)
  }
  await Promise.all(Array.from({ length: atOnce }, worker))
}

function median(numbers: readonly number[]): string {
  const sorted = [...numbers].sort((a, b) => a - b)
  return sorted.length === 0 ? 'none' : `${sorted[sorted.length >> 1]!.toFixed(0)} ms`
}

describe('Podman of sid with crun, many', needsTree('sid-engines', 'usr/bin/podman'), () => {
  let lab: ContainerLab
  before(async () => {
    lab = await ContainerLab.open('sid')
    await lab.podmanRuntime('crun')
    await lab.installHook()
  })
  after(() => lab?.[Symbol.asyncDispose]())

  const all: readonly One[] = Array.from({ length: COUNT }, (_, i) => ({
    name: `${i % 2 === 0 ? 'asks' : 'plain'}-${i}`,
    asks: i % 2 === 0,
  }))
  const asking = all.filter(({ asks }) => asks)

  /** Process and id of those that run, by name. */
  async function running(): Promise<ReadonlyMap<string, { pid: number; id: string }>> {
    const format = '--format={{.Names}} {{.Pid}} {{.ID}}'
    const lines = await lab.podman.podman('ps', '--no-trunc', format)
    return new Map(
      lines
        .split('\n')
        .map(line => line.split(' ') as [string, string, string])
        .map(([name, pid, id]) => [name, { pid: Number(pid), id }]),
    )
  }
  const isLentTo = (pid: number): boolean =>
    / \/sys\/fs\/bpf .*delegate_cmds/.test(readFileSync(`/proc/${pid}/mountinfo`, 'utf8'))

  /** Who asked and runs has a loan, which the daemon knows as it is; nobody else has one. */
  async function areRight(): Promise<void> {
    const there = await running()
    for (const { name, asks } of all) {
      const one = there.get(name)
      if (one !== undefined) assert.equal(isLentTo(one.pid), asks, name)
    }
    const lent = asking.flatMap(({ name }) => there.get(name)?.id ?? []).sort()
    await eventually(async () => {
      const loans = await lab.loans()
      const known = loans.map(({ record }) => record?.recipient.container ?? '').sort()
      return (
        known.join() === lent.join() &&
        loans.every(({ status }) => status?.mounted === true && status.drift.length === 0)
      )
    }, 'the daemon knows each of them, and no other')
  }

  test('all are right though the daemon is killed in between; removed, nothing is left', async (t: TestContext) => {
    await each(all, AT_ONCE, async ({ name, asks }) => {
      const options = lab.options(`--name=${name}`, ...ABLE, ...(asks ? ASKS : []))
      await lab.podman.podman('create', ...options, 'sleep', '1000')
    })
    const took = { asks: [] as number[], plain: [] as number[] }
    const failed: string[] = []
    let started = 0
    let restarted: Promise<void> | undefined
    const start = async ({ name, asks }: One): Promise<void> => {
      const from = performance.now()
      const { status, stderr } = await lab.podman.execute('podman', 'start', name)
      took[asks ? 'asks' : 'plain'].push(performance.now() - from)
      if (++started === KILL_AFTER) restarted = lab.restart('SIGKILL')
      if (status === 0) return
      assert.ok(asks, `${name} did not ask: ${stderr}`)
      failed.push(name)
    }
    await each(all, AT_ONCE, start)
    await restarted
    // Those that asked of nobody have not started; the others are as they should be.
    const there = await running()
    for (const { name } of all) assert.equal(there.has(name), !failed.includes(name), name)
    await areRight()
    await each(
      all.filter(({ name }) => failed.includes(name)),
      AT_ONCE,
      async ({ name }) => {
        await lab.podman.podman('start', name)
      },
    )
    assert.equal((await running()).size, COUNT)
    await areRight()
    await lab.restart('SIGKILL')
    await areRight()
    for (const { name, asks } of [all[0]!, all[1]!]) {
      const script = 'bpftool prog load /srv/pass.o /sys/fs/bpf/pass'
      const { status } = await lab.podman.execute('podman', 'exec', name, 'sh', '-c', script)
      assert.equal(status === 0, asks, name)
    }
    await lab.podman.podman('rm', '--all', '--force', '--time=0')
    await eventually(async () => (await lab.loans()).length === 0, 'no loan is left')
    t.diagnostic(
      `measured: ${COUNT} containers, ${AT_ONCE} at one time: podman start took ${median(took.asks)} at the median where it asks, ${median(took.plain)} where it does not; ${failed.length} were refused while the daemon was away`,
    )
  })

  test('one that does not ask takes as long as without the hook (printed, not judged)', async (t: TestContext) => {
    const took: Record<'with' | 'without', number[]> = { with: [], without: [] }
    for (let i = 0; i < 15; i++)
      for (const [key, global] of [
        ['with', []],
        ['without', ['--hooks-dir=/run/lock']],
      ] as const) {
        const from = performance.now()
        const { status, stderr } = await lab.podmanRun('true', { global }, ...ABLE)
        assert.equal(status, 0, stderr)
        took[key].push(performance.now() - from)
      }
    t.diagnostic(
      `measured: podman run of one that does not ask: ${median(took.with)} at the median with the hook installed, ${median(took.without)} without (15 pairs)`,
    )
  })
})
