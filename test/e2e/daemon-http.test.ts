/** The program bpftokend: how it starts, answers, reads anew and stops. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { BPFTOKEND, Bpftokend } from '../helpers/bpftokend.ts'
import { eventually } from '../helpers/eventually.ts'
import { Scratch } from '../helpers/scratch.ts'

const POLICY = `apiVersion: bpftoken.dev/v1
kind: DelegationPolicy
metadata: { name: dev }
spec:
  rights: { cmds: [prog_load] }
`

test('it answers everybody, reads its policies again, and stops when it is told to', async () => {
  using scratch = new Scratch()
  const daemon = await new Bpftokend(scratch.path).ready()
  await using _ = daemon
  assert.equal(statSync(daemon.socket).mode & 0o777, 0o666)
  assert.equal(statSync(dirname(daemon.socket)).mode & 0o777, 0o755)
  assert.equal(statSync(join(scratch.path, 'state')).mode & 0o777, 0o700)
  const open = readdirSync(`/proc/${daemon.pid}/fd`).map(fd => readlinkSync(`/proc/${daemon.pid}/fd/${fd}`))
  assert.equal(open.includes(__filename), false, 'what it was left is closed')
  assert.deepEqual(JSON.parse((await daemon.get('/v1/policies')).text), { policies: [] })
  writeFileSync(join(daemon.policies, 'dev.yaml'), POLICY, { mode: 0o644 })
  await eventually(async () => (await daemon.get('/v1/policies')).text.includes('"dev"'), 'it sees a policy')
  writeFileSync(join(daemon.policies, 'dev.yaml'), 'nonsense')
  daemon.kill('SIGHUP')
  const faulty = async () => JSON.parse((await daemon.get('/v1/status')).text).policies
  await eventually(async () => (await faulty()).faults.length === 1, 'a bad file is told of')
  assert.equal((await faulty()).loaded, 1, 'and the old policy holds')
  daemon.kill('SIGTERM')
  assert.equal(await daemon.ended, 0, daemon.log)
  assert.equal(existsSync(daemon.socket), false)
})

test('a daemon that answers keeps its socket; one that died leaves it to the next', async () => {
  using scratch = new Scratch()
  const first = await new Bpftokend(scratch.path).ready()
  await using _ = first
  await using second = new Bpftokend(scratch.path, '--state', join(scratch.path, 'other'))
  assert.equal(await second.ended, 1)
  assert.match(second.log, /A daemon answers at .* already/)
  assert.equal((await first.get('/v1/status')).status, 200)
  first.kill('SIGKILL')
  await first.ended
  assert.equal(existsSync(first.socket), true)
  await using third = await new Bpftokend(scratch.path).ready()
  assert.equal((await third.get('/v1/status')).status, 200)
})

test('two daemons with one state directory: the second does not start', async () => {
  using scratch = new Scratch()
  await using _ = await new Bpftokend(scratch.path).ready()
  await using second = new Bpftokend(scratch.path, '--socket', join(scratch.path, 'run/other.sock'))
  assert.equal(await second.ended, 1, second.log)
  assert.match(second.log, /next: Stop the other daemon/)
})

test('it does not start over what is no socket, nor where others could put one', async () => {
  using scratch = new Scratch()
  mkdirSync(join(scratch.path, 'run'))
  writeFileSync(join(scratch.path, 'run/s.sock'), 'mine')
  await using refused = new Bpftokend(scratch.path)
  assert.equal(await refused.ended, 1)
  assert.match(refused.log, /is there, and is no socket/)
  assert.equal(readFileSync(refused.socket, 'utf8'), 'mine')
  chmodSync(join(scratch.path, 'run'), 0o777)
  await using open = new Bpftokend(scratch.path)
  assert.equal(await open.ended, 2)
  assert.match(open.log, /The socket cannot be in \/.*: others than its owner may write to it/)
})

test('the configuration: unknown words, other owners and bad numbers are refused; a good one holds', async () => {
  using scratch = new Scratch()
  const file = join(scratch.path, 'bpftokend.yaml')
  const start = async (text: string, mode = 0o644): Promise<string> => {
    writeFileSync(file, text)
    chmodSync(file, mode)
    await using daemon = new Bpftokend(scratch.path)
    assert.notEqual(await daemon.ended, 0)
    return daemon.log
  }
  assert.match(await start('limit: {}'), /[Uu]nrecognized key/)
  assert.match(await start('limits: { openLoans: 0 }'), /limits\.openLoans/)
  assert.match(await start('limits: ['), /bpftokend\.yaml/)
  assert.match(await start('limits: {}', 0o666), /others than its owner may write to it/)
  writeFileSync(file, 'limits: { connections: 7 }\nmetrics: { readers: [65534] }\n')
  chmodSync(file, 0o644)
  await using daemon = await new Bpftokend(scratch.path).ready()
  assert.equal((await daemon.get('/metrics')).status, 200)
})

test('words that are wrong are told, with the status for that; the version needs no root', async () => {
  for (const [words, status] of [
    [['--version'], 0],
    [['--help'], 0],
    [['--sockets', '/x'], 2],
    [['--socket', 'x'], 2],
    [['--log-level', 'loud'], 2],
  ] as const) {
    const program = spawn(process.execPath, [BPFTOKEND, ...words], { stdio: 'ignore' })
    assert.deepEqual((await once(program, 'exit'))[0], status, words.join(' '))
  }
})

test('a socket that is handed over is answered at, and is not removed at the end', async () => {
  using scratch = new Scratch()
  const path = join(scratch.path, 'given.sock')
  const server = createServer().listen(path)
  await once(server, 'listening')
  const { fd } = (server as unknown as { _handle: { fd: number } })._handle
  const words = [
    '--state',
    join(scratch.path, 'state'),
    '--policies',
    '/nonexistent',
    '--config',
    '/nonexistent',
  ]
  const handed = 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@"'
  const program = spawn('/bin/sh', ['-c', handed, process.execPath, BPFTOKEND, ...words], {
    stdio: ['ignore', 'ignore', 'pipe', fd],
  })
  let log = ''
  program.stderr!.setEncoding('utf8').on('data', text => {
    log += text
  })
  const ended = once(program, 'exit')
  await eventually(() => log.includes('is ready') || program.exitCode !== null, 'it is ready')
  server.close() // Only ours; its file goes with it.
  program.kill('SIGTERM')
  assert.deepEqual((await ended)[0], 0, log)
})
