/**
 * Who the program of a sandbox is: ids are bounded here, and the launcher looks at them once more.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { endianness } from 'node:os'
import type { Duplex } from 'node:stream'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { Sandbox, type SandboxSpec } from '../../../src/delegation/sandbox.ts'
import { ConflictError, InputError } from '../../../src/errors.ts'
import { launcherPath } from '../../../src/sys/native.ts'
import { isRoot } from '../../helpers/machine.ts'

const machine = isRoot ? {} : { skip: 'needs root' }

const start = (spec: Partial<SandboxSpec>): Promise<Sandbox> =>
  Sandbox.start({
    ...{
      command: ['true'],
      uid: 65534,
      gid: 65534,
      network: 'own',
      capabilities: [],
      stdio: 'ignore',
      ...spec,
    },
  })

test('Sandbox.start() takes ids that the kernel has, and not those that it would cut', machine, async () => {
  for (const id of [2 ** 32, 2 ** 32 - 1, 2 ** 40, -1, 1.5, Number.NaN, '65534' as unknown as number]) {
    await assert.rejects(start({ uid: id }), InputError, `uid ${id}`)
    await assert.rejects(start({ gid: id }), InputError, `gid ${id}`)
  }
  await assert.rejects(start({ uid: 0 }), ConflictError)
  await assert.rejects(start({ gid: -0 }), ConflictError)
  for (const id of [1, 2 ** 32 - 2]) {
    using sandbox = await start({ uid: id, gid: id })
    await sandbox.release()
    assert.deepEqual(await sandbox.exited, { code: 0, signal: null })
  }
})

test('a sandbox that is given up kills its program, however often it is given up', machine, async () => {
  const sandbox = await start({ command: ['sleep', '1000'] })
  await sandbox.release()
  sandbox[Symbol.dispose]()
  sandbox[Symbol.dispose]()
  assert.deepEqual(await sandbox.exited, { code: null, signal: 'SIGKILL' })
})

test('Sandbox.start() gives three descriptors and no more', machine, async () => {
  await assert.rejects(start({ stdio: ['ignore', 'ignore', 'ignore', 'pipe'] }), InputError)
  using sandbox = await start({ stdio: ['ignore', 'ignore', 'ignore'] })
  await sandbox.release()
  assert.equal((await sandbox.exited).code, 0)
})

/** What the launcher answers when these are its id maps; the program's output when it starts it. */
async function launch(uidMap: string, gidMap: string): Promise<string> {
  const child = spawn(launcherPath(), ['own', '0', '-', '-', 'id', '-u'], {
    stdio: ['ignore', 'pipe', 'inherit', 'pipe', 'pipe'],
    env: {},
  })
  const control = child.stdio[3] as Duplex
  const [ready] = (await once(control, 'data')) as [Buffer]
  const [, pid] = /^[nt](\d+)$/.exec(String(ready)) ?? []
  writeFileSync(`/proc/${pid}/uid_map`, uidMap)
  writeFileSync(`/proc/${pid}/gid_map`, gidMap)
  const environment = Buffer.from('PATH=/usr/bin:/bin\0')
  const length = Buffer.alloc(4)
  new DataView(length.buffer, length.byteOffset).setUint32(0, environment.length, endianness() === 'LE')
  control.write(Buffer.concat([Buffer.from('g'), length, environment]))
  const [answer, output] = await Promise.all([text(control), text(child.stdout!)])
  return `${answer.replace(/^d/, '')}${output.trim()}`
}

test('the launcher starts nothing whose user or group would be host root', machine, async () => {
  const one = '0 65534 1\n'
  assert.equal(await launch(one, one), '0', 'an ordinary user, who is root inside')
  assert.equal(await launch('1000 65534 1\n', one), '1000')
  for (const bad of ['0 0 1\n', '1000 0 1\n']) {
    assert.match(await launch(bad, one), /^euid_map 1$/, bad)
    assert.match(await launch(one, bad), /^egid_map 1$/, bad)
  }
  // More than one id, whoever they are, is not what was agreed on.
  for (const bad of ['0 65534 2\n', '0 65534 1\n1 0 1\n', '0 1 1\n1 2 1\n']) {
    assert.match(await launch(bad, one), /^euid_map 22$/, bad)
    assert.match(await launch(one, bad), /^egid_map 22$/, bad)
  }
})
