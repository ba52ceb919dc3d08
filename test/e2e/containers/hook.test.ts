/** What bpftoken-hook waits for, and for how long. Each refusal has its twin, which is let through. */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { closeSync, existsSync, mkdirSync, openSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { hookPath } from '../../../src/sys/prebuilt.ts'
import { execute, finish, type Result } from '../../helpers/cli.ts'
import { FakeDaemon, sayJson } from '../../helpers/fake-daemon.ts'
import { Scratch } from '../../helpers/scratch.ts'

const LATE = 'what the runtime says of it, or its bundle, could not be read in time'

describe('the hook', () => {
  const scratch = new Scratch()
  let daemon: FakeDaemon
  before(async () => {
    daemon = await FakeDaemon.http((_, to) => sayJson(to, 200, {}))
  })
  after(async () => {
    await daemon[Symbol.asyncDispose]()
    scratch[Symbol.dispose]()
  })

  const state = (bundle = scratch.path): string => JSON.stringify({ id: 'c1', bundle })
  const call = (...words: string[]): Promise<Result> =>
    execute(hookPath(), ['--socket', daemon.socket, ...words], { input: state() })

  test('takes whole seconds up to an hour as its time-out, and nothing else', async () => {
    for (const odd of ['20abc', '', ' 20', '+20', '-1', '0', '1.5', '0x14', '3601', '4294967316'])
      assert.deepEqual([odd, (await call('--timeout', odd)).status], [odd, 2])
    for (const good of ['20', '0060', '3600']) {
      const { status, stderr } = await call('--timeout', good)
      assert.deepEqual([good, status, stderr], [good, 0, ''])
    }
  })

  test('gives a state up that does not come to its end, and takes one that does', async () => {
    const fifo = join(scratch.path, 'fifo')
    spawnSync('mkfifo', [fifo])
    // Who may write keeps it from its end, before and after the state is there.
    const held = openSync(fifo, 'r+')
    try {
      for (const said of ['', state()]) {
        writeFileSync(held, said)
        const child = spawn(hookPath(), ['--socket', daemon.socket, '--timeout', '1'], {
          stdio: [held, 'pipe', 'pipe'],
        })
        const { status, stderr } = await finish(child)
        assert.deepEqual([status, stderr], [1, `bpftoken-hook: container ? may not start: ${LATE}\n`])
      }
    } finally {
      closeSync(held)
    }
    assert.equal((await call()).status, 0)
  })

  test('where crun says "/" it looks for the bundle where crun was told that it is', async () => {
    const bundle = join(scratch.path, 'told')
    mkdirSync(bundle)
    writeFileSync(join(bundle, 'config.json'), '{"root":{"path":"rootfs"}}')
    /** As a runtime does that was called with these words. */
    const asked = async (said: string, ...words: string[]): Promise<unknown> => {
      const script = '"$0" --socket "$1"; exit $?'
      const called = ['-c', script, hookPath(), daemon.socket, 'create', ...words, 'c1']
      const { status, stderr } = await execute('sh', called, { input: state(said) })
      assert.deepEqual([status, stderr], [0, ''])
      const { state: told, config } = daemon.heard.at(-1)!.body as {
        state: { bundle: string }
        config?: { root: object }
      }
      return [told.bundle, config?.root]
    }
    const root = { path: 'rootfs' }
    assert.deepEqual(await asked('/', '--bundle', bundle), [bundle, root])
    assert.deepEqual(await asked('/', '-b', bundle), [bundle, root])
    // What it says otherwise counts, and a path that is not whole says nothing.
    assert.deepEqual(await asked(bundle, '--bundle', scratch.path), [bundle, root])
    assert.deepEqual(await asked('/', '--bundle', 'told'), ['/', undefined])
    assert.deepEqual(await asked('/'), ['/', undefined])
  })

  test('gives a bundle up whose file system does not answer, by name, and leaves no process', {
    skip:
      process.geteuid?.() !== 0
        ? 'needs root'
        : existsSync('/dev/fuse')
          ? false
          : 'this kernel has no FUSE (/dev/fuse)',
  }, async () => {
    const bundle = join(scratch.path, 'bundle')
    mkdirSync(bundle)
    const script = `exec 3<>/dev/fuse
      mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 silent "$1" || exit 9
      "$0" --socket "$2" --timeout 1 3>&-
      status=$?
      for wait in 1 2 3 4 5 6 7 8 9 10; do pgrep -x bpftoken-hook >/dev/null || break; sleep 0.5; done
      pgrep -x bpftoken-hook
      exit $status`
    const words = ['--mount', '--pid', '--fork', '--mount-proc', 'sh', '-c', script]
    const { status, stdout, stderr } = await execute(
      'unshare',
      [...words, hookPath(), bundle, daemon.socket],
      { input: state(bundle) },
    )
    assert.deepEqual(
      [status, stdout, stderr],
      [1, '', `bpftoken-hook: container c1 may not start: ${LATE}\n`],
    )
    const plain = await execute(hookPath(), ['--socket', daemon.socket], {
      input: state(bundle),
    })
    assert.deepEqual([plain.status, plain.stderr], [0, ''])
    assert.deepEqual((daemon.heard.at(-1)!.body as { state: object }).state, { id: 'c1', bundle })
  })
})
