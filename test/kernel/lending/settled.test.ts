/**
 * bubblewrap tells its child's number before the child has its mounts. Who lends by that number at
 * once lends to what lasts all the same: as often as one looks.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { holdRecipient } from '../../../src/lending/recipient/recipient.ts'
import { CACHE, needsProgram } from '../../helpers/machine.ts'

const BWRAP = join(CACHE, 'host/usr/bin/bwrap')
const TIMES = Number(process.env['BPFTOKEN_TEST_SETTLED'] ?? 40)
/** Whether bubblewrap's own steps are over: it has left the tree in which it built the new one. */
const isBuilt = (pid: number): boolean => {
  const mounts = readFileSync(`/proc/${pid}/mountinfo`, 'utf8')
  return !mounts.includes(' /oldroot ') && !mounts.includes(' /newroot ') && mounts.includes(' /srv ')
}

function sandbox(): ChildProcess {
  const plain = ['--unshare-user', '--unshare-net', '--ro-bind', '/', '/', '--tmpfs', '/srv', '--dev', '/dev']
  return spawn(BWRAP, [...plain, '--info-fd', '3', '--block-fd', '4', 'true'], {
    stdio: ['ignore', 'ignore', 'inherit', 'pipe', 'pipe'],
  })
}

test(
  `${TIMES} of ${TIMES} sandboxes of bubblewrap are built when we go on`,
  needsProgram('host/usr/bin/bwrap'),
  async () => {
    let early = 0
    for (let i = 0; i < TIMES; i++) {
      const bwrap = sandbox()
      const pid = JSON.parse(await text(bwrap.stdio[3] as Readable))['child-pid'] as number
      if (!isBuilt(pid)) early++
      const held = await holdRecipient({ pid })
      assert.ok(isBuilt(pid), `sandbox ${i}: ${readFileSync(`/proc/${pid}/mountinfo`, 'utf8')}`)
      held[Symbol.dispose]()
      const exited = once(bwrap, 'exit')
      ;(bwrap.stdio[4] as Writable).end('x')
      await exited
    }
    // Where this is 0 the test proves nothing: the sandboxes were built before anybody looked.
    console.log(`${early} of ${TIMES} sandboxes were not built when their number was known`)
  },
)

test(
  'a process that enters its namespaces late is waited for',
  needsProgram('host/usr/bin/bwrap'),
  async () => {
    const late = spawn('sh', ['-c', 'sleep 0.3; exec unshare --user --map-root-user --mount sleep 1000'])
    const exited = once(late, 'exit')
    try {
      using held = await holdRecipient({ pid: late.pid! })
      assert.notEqual(held.userNamespace(), readlinkSync('/proc/self/ns/user'))
    } finally {
      late.kill('SIGKILL')
      await exited
    }
  },
)
