/** The examples of docs/client.md run as they stand, by the package as it is installed. */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { PACKAGE } from '../../scripts/installed.ts'
import type { Service } from '../../src/daemon/service.ts'
import { DeniedError } from '../../src/errors.ts'
import { execute, type Result } from '../helpers/cli.ts'
import { ROOT } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'
import { EVENT, fakeService } from '../unit/daemon/http/fake-service.ts'
import { lab } from '../unit/daemon/http/lab.ts'

const [LENDS, FOLLOWS] = [
  ...readFileSync(join(ROOT, 'docs/client.md'), 'utf8').matchAll(/^```js\n([\s\S]*?)^```/gm),
].map(([, code]) => code!)

/** Runs the example with that daemon, in a directory that has the package installed. */
async function run(
  example: string | undefined,
  instead: Partial<Service['handlers']> = {},
  streams: Partial<Service['streams']> = {},
): Promise<Result> {
  assert.ok(example !== undefined)
  using scratch = new Scratch()
  mkdirSync(join(scratch.path, 'node_modules'))
  symlinkSync(PACKAGE, join(scratch.path, 'node_modules/bpftoken'))
  const file = scratch.write('example.mjs', example)
  await using daemon = await lab({ service: fakeService(instead, streams) })
  const env = { ...process.env, BPFTOKEN_SOCKET: daemon.path }
  return await execute(process.execPath, [file], { env, cwd: scratch.path })
}

test('the one that lends', async () => {
  const { status, stdout, stderr } = await run(LENDS)
  assert.deepEqual([status, stdout, stderr], [0, 'lent: loan-1 at /sys/fs/bpf\n', ''])
})

test('the same, refused', async () => {
  const lend = () => Promise.reject(new DeniedError('Not you'))
  const { status, stdout, stderr } = await run(LENDS, { lend })
  assert.deepEqual([status, stdout, stderr], [0, '', 'refused: Not you undefined\n'])
})

test('the one that follows, and ends', async () => {
  const events = async function* (): AsyncGenerator<typeof EVENT> {
    yield { ...EVENT, seq: 1 }
    yield { ...EVENT, seq: 2, point: 'never shown' }
  }
  const { status, stdout, stderr } = await run(FOLLOWS, {}, { events: events as never })
  assert.deepEqual([status, stdout, stderr], [0, 'undefined refused token_create 2\n', ''])
})
