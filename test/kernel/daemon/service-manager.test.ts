/** What is said to the service manager and to the journal arrives, and what they give is taken. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { LogSink } from '../../../src/service/journald.ts'
import { Notifier } from '../../../src/service/notify.ts'
import { descriptorOf } from '../../../src/sys/peer.ts'
import { Scratch } from '../../helpers/scratch.ts'
import { leavesNothing } from '../delegation/leaves-nothing.ts'
import { Receiver } from './receiver.ts'

leavesNothing()

test('a manager hears that the daemon is ready, reloads and stops, and never waits for a manager', async () => {
  using scratch = new Scratch()
  const path = join(scratch.path, 'notify')
  for (const NOTIFY_SOCKET of [path, `@bpftoken-test-${process.pid}`, '', undefined]) {
    using notifier = new Notifier({ NOTIFY_SOCKET }, process.pid)
    notifier.ready('nobody hears it')
  }
  await using manager = await Receiver.at(path)
  using notifier = new Notifier({ NOTIFY_SOCKET: path }, process.pid)
  notifier.ready('3 loans\nREADY=0')
  assert.equal(await manager.next(), 'READY=1\nSTATUS=3 loans\\u{a}READY=0')
  notifier.reloading()
  const [, usec] = /^RELOADING=1\nMONOTONIC_USEC=(\d+)$/.exec(await manager.next()) ?? []
  assert.ok(BigInt(usec!) <= process.hrtime.bigint() / 1000n)
  notifier.status('4 loans')
  assert.equal(await manager.next(), 'STATUS=4 loans')
  notifier.stopping()
  assert.equal(await manager.next(), 'STOPPING=1')
})

test('the watchdog is told while all is well, and no longer', async () => {
  using scratch = new Scratch()
  const path = join(scratch.path, 'notify')
  await using manager = await Receiver.at(path)
  using notifier = new Notifier({ NOTIFY_SOCKET: path, WATCHDOG_USEC: '20000' }, process.pid)
  const asked: string[] = []
  let sick: () => void = () => {}
  const wasSick = new Promise<void>(resolve => {
    sick = resolve
  })
  notifier.watch(() => {
    asked.push('asked')
    if (asked.length <= 2) return true
    if (asked.length === 3) throw new Error('the registry does not answer')
    if (asked.length === 5) sick()
    return asked.length > 5
  })
  assert.equal(await manager.next(), 'WATCHDOG=1')
  assert.equal(await manager.next(), 'WATCHDOG=1')
  await wasSick
  // Nothing was told in between, or that would be here.
  notifier.status('sick')
  assert.equal(await manager.next(), 'STATUS=sick')
  assert.equal(await manager.next(), 'WATCHDOG=1')
})

test('the journal gets entries with their fields; while it does not, standard error gets lines', async () => {
  using scratch = new Scratch()
  const socket = join(scratch.path, 'journal')
  const written: string[] = []
  const write = (text: string): void => void written.push(text)
  using sink = new LogSink({ journal: true, write, socket })
  sink.write({ priority: 3, message: 'nobody\nlistens', fields: { LOAN: 'loan-1' } })
  assert.deepEqual(written.splice(0), ['<3>nobody LOAN="loan-1"\n<3>listens\n'])
  {
    await using journal = await Receiver.at(socket)
    sink.write({ priority: 6, message: 'lent', fields: { LOAN: 'loan-1', UID: 7 } })
    assert.equal(await journal.next(), 'MESSAGE=lent\nPRIORITY=6\nLOAN=loan-1\nUID=7\n')
    sink.write({
      priority: 6,
      message: 'x'.repeat(1 << 20),
      fields: Object.fromEntries(Array.from({ length: 60 }, (_, i) => [`F${i}`, 'y'.repeat(1 << 16)])),
    })
    assert.ok((await journal.next()).length > 90_000)
    assert.deepEqual(written, [])
  }
  using plain = new LogSink({ journal: false, write, socket })
  plain.write({ priority: 4, message: 'on a terminal' })
  assert.deepEqual(written, ['on a terminal\n'])
})

/** What a process says that is started with this descriptor as its number 3. */
async function started(descriptor: number, listenPid = '$$'): Promise<Record<string, unknown>> {
  const script = `LISTEN_PID=${listenPid} exec "$0" "$@"`
  const child = spawn(
    'sh',
    ['-c', script, process.execPath, '--import', 'tsx', join(__dirname, 'manager-said.ts')],
    {
      stdio: ['ignore', 'pipe', 'inherit', descriptor],
      env: { ...process.env, LISTEN_FDS: '1', LISTEN_FDNAMES: 'api' },
    },
  )
  let text = ''
  child.stdout!.on('data', bytes => {
    text += bytes
  })
  await once(child, 'close')
  return JSON.parse(text) as Record<string, unknown>
}

test('a socket that the manager opened is taken, and no child gets it; another descriptor is refused', async () => {
  using scratch = new Scratch()
  const server = createServer().listen(join(scratch.path, 'listening'))
  await once(server, 'listening')
  const file = openSync(scratch.write('file', ''), 'r')
  try {
    const listening = descriptorOf(server)
    assert.deepEqual(await started(listening), {
      sockets: [{ descriptor: 3, name: 'api' }],
      closesOnExec: [true],
      left: [],
    })
    assert.deepEqual(await started(listening, '1'), { sockets: [], closesOnExec: [], left: [] })
    const { refused, left } = await started(file)
    assert.match(String(refused), /Descriptor 3 is no Unix stream socket that listens/)
    assert.deepEqual(left, [])
  } finally {
    closeSync(file)
    server.close()
    await once(server, 'close')
  }
})
