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
import { listInstances } from '../../../src/delegation/instances.ts'
import { eventually } from '../../helpers/eventually.ts'
import { vocabulary } from '../delegation/lab.ts'
import { leavesNothing } from '../delegation/leaves-nothing.ts'
import { Workload } from '../delegation/workload.ts'
import { ServiceLab } from './service-lab.ts'

const PATH = '/sys/fs/bpf'

let lab: ServiceLab
let workload: Workload
let namespace: string

before(async () => {
  lab = await ServiceLab.open()
  lab.write('roots', '  rights: { cmds: [map_create], maps: [hash] }')
  workload = await Workload.sandboxed()
  namespace = readlinkSync(`/proc/${workload.pid}/ns/user`)
})
after(async () => {
  workload[Symbol.dispose]()
  await workload.exited
  await lab[Symbol.asyncDispose]()
})
leavesNothing()

const mounts = () =>
  listInstances(vocabulary).filter(({ pids, path }) => pids.includes(workload.pid) && path === PATH)

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

async function points(operation: string): Promise<string[]> {
  const { said, signal } = await crash(operation, 0)
  assert.equal(signal, null, said)
  return JSON.parse(/^points (.*)$/m.exec(said)![1]!) as string[]
}

for (const [operation, atLeast] of [
  ['lend', 20],
  ['revoke', 6],
  ['expire', 6],
] as const)
  test(`killed at each point of ${operation}, the next start accounts for all`, async t => {
    await lab.stop()
    let isRunning = false
    try {
      const forget = () => rmSync(lab.stateDirectory, { recursive: true, force: true })
      forget()
      const names = await points(operation)
      forget()
      assert.ok(names.length >= atLeast, names.join(', '))
      t.diagnostic(`${names.length} points: ${names.join(', ')}`)
      for (const [i, name] of names.entries()) {
        const { said, signal } = await crash(operation, i + 1)
        assert.equal(signal, 'SIGKILL', `${name}: it did not die`)
        await lab.start()
        isRunning = true
        await lab.service.settle()
        const root = await lab.root()
        if (operation === 'expire') await eventually(() => openLoans().length === 0, `${name}: it stays`)
        const open = openLoans()
        const there = mounts()
        const told = `${name}: ${JSON.stringify(open)}, ${JSON.stringify(there.map(({ path }) => path))}`
        // What is mounted is exactly what the registry says.
        assert.ok(
          open.every(({ kind, state }) => kind === 'delegate' && state === 'live'),
          told,
        )
        assert.deepEqual(
          open.map(({ made }) => made?.device),
          there.map(({ device }) => device),
          told,
        )
        // Whoever was told of a loan has it, until it is taken back.
        if (operation === 'lend' && said.includes('lent')) assert.equal(open.length, 1, told)
        if (operation === 'revoke' && name.startsWith('before audit revoke.asked'))
          assert.equal(open.length, 1, told)
        const { body } = await lab.ask('verifyAudit', root, {})
        assert.equal(body.intact, true, `${name}: ${JSON.stringify(body)}`)
        // Asked again with the same key, it is the same loan, or a new one where there was none.
        if (operation === 'lend') {
          const request = {
            policy: { name: 'roots' },
            recipient: { pid: workload.pid },
            place: { path: PATH },
          }
          const again = await lab.ask('lend', root, { body: request }, { key: 'crash' })
          assert.equal(again.status, 201)
          assert.equal(mounts().length, 1)
        }
        await lab.ask('revoke', root, { body: { what: { all: true } } })
        assert.deepEqual(mounts(), [])
        await lab.stop()
        isRunning = false
        // The key belongs to this round.
        forget()
      }
    } finally {
      if (!isRunning) await lab.start()
    }
  })
