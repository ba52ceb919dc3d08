/**
 * Programs that are asked and do not behave: which of their processes are ended, and which never.
 */
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, beforeEach, describe, mock, test } from 'node:test'
import { setTimeout as wait } from 'node:timers/promises'
import { FormatError, NotSupportedError } from '../../../../src/errors.ts'
import { ask } from '../../../../src/lending/recipient/system-program.ts'
import { Scratch } from '../../../helpers/scratch.ts'

const scratch = new Scratch()
after(() => scratch[Symbol.dispose]())

/** More than is taken. */
const FLOOD = 'head -c 20000000 /dev/zero'

describe('ask()', () => {
  const signalled: number[] = []
  const kill = process.kill.bind(process)
  mock.method(process, 'kill', (pid: number, signal: NodeJS.Signals) => {
    signalled.push(pid)
    return kill(pid, signal)
  })
  after(() => mock.restoreAll())
  beforeEach(() => {
    signalled.length = 0
  })

  const program = (...lines: string[]) => scratch.write('program', `#!/bin/sh\n${lines.join('\n')}\n`, 0o755)
  const numbers = () => readFileSync(join(scratch.path, 'numbers'), 'utf8').trim().split(/\s+/).map(Number)

  test('gives what a program says', async () => {
    assert.equal(await ask(program('echo "$1"'), ['said']), 'said\n')
    assert.deepEqual(signalled, [])
  })

  test('tells the last complaint of one that fails', async () => {
    await assert.rejects(ask(program('echo one >&2', 'echo two >&2', 'exit 3'), []), (error: Error) => {
      assert.ok(error instanceof NotSupportedError)
      assert.match(error.message, /does not answer: two$/)
      return true
    })
  })

  test('ends one that says too much with its whole group', async () => {
    const asked = ask(
      program('sleep 1000 &', `echo $$ $! >${scratch.path}/numbers`, `while :; do ${FLOOD}; done`),
      [],
    )
    await assert.rejects(asked, FormatError)
    const [leader, child] = numbers()
    assert.deepEqual(signalled, [-leader!])
    // Until whoever waits for them has done so.
    const lives = (pid: number) =>
      existsSync(`/proc/${pid}`) && !/^State:\tZ/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
    while (lives(leader!) || lives(child!)) await wait(10)
  })

  test('signals no number of one that has ended, whatever it has left behind', async () => {
    const rest = `while [ -e /proc/$1 ]; do sleep 0.02; done; ${FLOOD}`
    await assert.rejects(ask(program(`setsid sh -c '${rest}' sh $$ &`), []), FormatError)
    assert.deepEqual(signalled, [])
  })

  test('gives it the usual umask, and has its own again', async () => {
    const ours = process.umask(0o077)
    try {
      assert.equal(await ask(program('umask'), []), '0022\n')
      assert.equal(process.umask(), 0o077)
    } finally {
      process.umask(ours)
    }
  })
})
