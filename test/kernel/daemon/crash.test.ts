/**
 * SIGKILL at each step of each operation, then a start: no loan is lost, no mount is unaccounted
 * for, and the chain of the audit is whole. The points are those that the operation goes through.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readlinkSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import type { Peer } from '../../../src/daemon/peer.ts'
import { listInstances } from '../../../src/delegation/instances.ts'
import type { LoanRecord } from '../../../src/registry/loan-record.ts'
import { eventually } from '../../helpers/eventually.ts'
import { vocabulary } from '../delegation/lab.ts'
import { leavesNothing } from '../delegation/leaves-nothing.ts'
import { Workload } from '../delegation/workload.ts'
import { PretendedGuard } from './pretended-guard.ts'
import { inOwnNamespaces, ServiceLab } from './service-lab.ts'

const ALICE = 61021
const PATH = '/sys/fs/bpf'
const RIGHTS = '  rights: { cmds: [map_create], maps: [hash] }'
const DERIVABLE = `${RIGHTS}\n  guard: optional\n  derive: { allowed: true, maxDepth: 2 }`

let lab: ServiceLab
/** In namespaces that Alice made. */
let workload: Workload
/** Alice, who asks for what must be approved. She outlives each daemon. */
let alice: Workload
let namespace: string
let guarded: PretendedGuard

before(async () => {
  lab = await ServiceLab.open()
  lab.write('roots', DERIVABLE)
  lab.write('approved', `  subjects: [{ user: ${ALICE} }]\n  approval: required\n${RIGHTS}`)
  workload = await inOwnNamespaces(ALICE)
  alice = await Workload.onHost(ALICE)
  namespace = readlinkSync(`/proc/${workload.pid}/ns/user`)
  guarded = new PretendedGuard(join(lab.directory, 'guard.json'))
})
after(async () => {
  for (const one of [workload, alice]) {
    one[Symbol.dispose]()
    await one.exited
  }
  await lab[Symbol.asyncDispose]()
})
leavesNothing()

const mounts = () => listInstances(vocabulary).filter(({ pids }) => pids.includes(workload.pid))

/** Others may lend on this machine at the same time: that is adopted. */
const openLoans = () =>
  [...lab.registry.loans()].filter(
    ({ state, recipient }) => state !== 'ended' && recipient?.userNamespace === namespace,
  )

/** What the worker said before it ended, or was killed. */
async function crash(operation: string, at: number): Promise<{ said: string; signal: string | null }> {
  const child = spawn(
    process.execPath,
    [
      '--import',
      'tsx',
      join(__dirname, 'crash-worker.ts'),
      lab.directory,
      String(workload.pid),
      operation,
      String(at),
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  let said = ''
  child.stdout.on('data', text => {
    said += text
  })
  const [, signal] = (await once(child, 'close')) as [number | null, string | null]
  return { said, signal }
}

interface Killed {
  /** Where the daemon was killed. */
  readonly point: string
  /** What it had said, on its standard output. */
  readonly said: string
  readonly root: Peer
  readonly open: readonly LoanRecord[]
  /** All that there was, in words, for a failure. */
  readonly told: string
}

interface Operation {
  readonly atLeast: number
  /** Of each pair of points the first comes before the second. */
  readonly ordered?: readonly (readonly [string, string])[]
  /** Before the daemon that dies is started, with one that is stopped then. */
  readonly first?: () => Promise<void>
  readonly check: (killed: Killed) => Promise<void>
}

const lendAgain = (root: Peer) =>
  lab.ask(
    'lend',
    root,
    { body: { policy: { name: 'roots' }, recipient: { pid: workload.pid }, place: { path: PATH } } },
    { key: 'crash' },
  )

/** Before anything is made, before it can be reached, and before it is kept. */
const DURABLE: Operation['ordered'] = [
  ['after put making', 'executor: openDirectory'],
  ['after put making', 'before audit lend.will'],
  ['after audit lend.will', 'executor: attachMount'],
]

const OPERATIONS: Readonly<Record<string, Operation>> = {
  lend: {
    atLeast: 20,
    ordered: DURABLE,
    async check({ said, root, open, told }) {
      // Whoever was told of a loan has it, until it is taken back.
      if (said.includes('lent')) assert.equal(open.length, 1, told)
      // Asked again with the same key, it is the same loan, or a new one where there was none.
      assert.equal((await lendAgain(root)).status, 201)
      assert.equal(mounts().length, 1)
    },
  },
  revoke: {
    atLeast: 6,
    async check({ point, open, told }) {
      if (point.startsWith('before audit revoke.asked')) assert.equal(open.length, 1, told)
    },
  },
  expire: {
    atLeast: 6,
    async check({ point }) {
      await eventually(() => openLoans().length === 0, `${point}: it stays`)
      assert.deepEqual(mounts(), [])
    },
  },
  renew: {
    atLeast: 4,
    async check({ point, said, open, told }) {
      assert.equal(open.length, 1, told)
      const lived = (Date.parse(open[0]!.expires!.at) - Date.parse(open[0]!.made!.at)) / 1000
      const isRenewed = lived > 7000
      // It ends when it was to end before, or when whoever renewed it was told.
      assert.ok(isRenewed || (lived > 3500 && lived < 3700), told)
      assert.equal(isRenewed, point !== 'before put live', told)
      if (said.includes('done')) assert.ok(isRenewed, told)
    },
  },
  derive: {
    atLeast: 20,
    ordered: DURABLE,
    async check({ said, root, open, told }) {
      // The origin is untouched, and what is derived is there as a whole, or not at all.
      assert.equal(open[0]?.kind, 'delegate', told)
      assert.ok(open.length === 1 || (open.length === 2 && open[1]!.parent === open[0]!.id), told)
      if (said.includes('done')) assert.equal(open.length, 2, told)
      const live = guarded.delegations().filter(({ revoked }) => !revoked)
      assert.deepEqual(
        live.map(({ id }) => Number(id)),
        open.map(({ made }) => made?.delegation),
        told,
      )
      if (open.length === 1) return
      // Asked again with the same key, it is the same loan.
      const again = await lab.ask(
        'derive',
        root,
        {
          params: { id: `loan-${open[0]!.id}` },
          body: { policy: { name: 'roots' }, recipient: { pid: workload.pid }, place: { path: '/mnt' } },
        },
        { key: 'crash derive' },
      )
      assert.deepEqual([again.status, again.body.loan.id], [201, `loan-${open[1]!.id}`], told)
      assert.deepEqual(mounts().length, open.length)
    },
  },
  approve: {
    atLeast: 20,
    async first() {
      const asker = await lab.askerOf(alice)
      const { status } = await lab.ask('lend', asker, {
        body: { policy: { name: 'approved' }, recipient: { pid: workload.pid }, place: { path: PATH } },
      })
      assert.equal(status, 202)
    },
    async check({ said, root, open, told }) {
      const request = [...lab.registry.requests()].at(-1)!
      const state = `${request.state}: ${request.why}; ${told}`
      if (said.includes('done')) assert.equal(open.length, 1, state)
      if (request.state === 'approved') {
        // It was approved and lent; or the loan was written down, and then not kept: so it is told.
        const loan = lab.registry.loan(request.loan!)!
        assert.ok(open[0]?.id === loan.id || (open.length === 0 && loan.ended?.why === 'lost'), state)
        return
      }
      // Or it waits on, and nothing is lent.
      assert.deepEqual([request.state, open], ['waiting', []], state)
      const which = { params: { id: `request-${request.id}` }, body: {} }
      const approved = await lab.ask('approve', root, which)
      assert.equal(approved.body.state, 'approved', state)
      assert.equal(mounts().length, 1)
    },
  },
}

for (const [operation, { atLeast, ordered = [], first, check }] of Object.entries(OPERATIONS))
  test(`killed at each point of ${operation}, the next start accounts for all`, async t => {
    const start = () => lab.start(operation === 'derive' ? { guard: guarded.guard } : {})
    const forget = () => {
      rmSync(lab.stateDirectory, { recursive: true, force: true })
      rmSync(join(lab.directory, 'guard.json'), { force: true })
    }
    await lab.stop()
    let isRunning = false
    const prepare = async (): Promise<void> => {
      forget()
      if (first === undefined) return
      await start()
      isRunning = true
      await first()
      await lab.stop()
      isRunning = false
    }
    try {
      await prepare()
      const counted = await crash(operation, 0)
      assert.equal(counted.signal, null, counted.said)
      const names = JSON.parse(/^points (.*)$/m.exec(counted.said)![1]!) as string[]
      assert.ok(names.length >= atLeast, names.join(', '))
      for (const [earlier, later] of ordered) {
        const [before, after] = [names.indexOf(earlier), names.indexOf(later)]
        assert.ok(before >= 0 && before < after, `${earlier}, then ${later}: ${names.join(', ')}`)
      }
      t.diagnostic(`${names.length} points: ${names.join(', ')}`)
      for (const [i, point] of names.entries()) {
        // The key belongs to one round.
        await prepare()
        const { said, signal } = await crash(operation, i + 1)
        assert.equal(signal, 'SIGKILL', `${point}: it did not die: ${said}`)
        await start()
        isRunning = true
        await lab.service.settle()
        const root = await lab.root()
        if (operation === 'expire') await eventually(() => openLoans().length === 0, `${point}: it stays`)
        const open = openLoans()
        const there = mounts()
        const told = `${point}: ${JSON.stringify(open)}, ${JSON.stringify(there.map(({ path }) => path))}`
        // What is mounted is exactly what the registry says.
        assert.ok(
          open.every(({ kind, state }) => kind !== 'adopted' && state === 'live'),
          told,
        )
        assert.deepEqual(
          open.map(({ made }) => made?.device).sort(),
          there.map(({ device }) => device).sort(),
          told,
        )
        await check({ point, said, root, open, told })
        const { body } = await lab.ask('verifyAudit', root, {})
        assert.equal(body.intact, true, `${point}: ${JSON.stringify(body)}`)
        await lab.ask('revoke', root, { body: { what: { all: true } } })
        assert.deepEqual(mounts(), [])
        await lab.stop()
        isRunning = false
      }
    } finally {
      forget()
      if (!isRunning) await lab.start()
    }
  })
