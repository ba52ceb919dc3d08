/** Since when a container runs, and whether a process can be its first one. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { test } from 'node:test'
import { NotFoundError } from '../../../../src/errors.ts'
import { hadBegun, parseStartTime, processStartTime } from '../../../../src/lending/recipient/start-time.ts'
import { openProcess } from '../../../../src/sys/process.ts'

test('parseStartTime() takes seconds and RFC 3339, and nothing else', () => {
  const time = Date.UTC(2026, 10, 27, 9, 8, 7)
  assert.equal(parseStartTime(time / 1000), time)
  for (const said of [
    '2026-11-27T09:08:07Z',
    '2026-11-27T09:08:07.000123456Z',
    '2026-11-27T10:08:07.000123456+01:00',
  ])
    assert.equal(parseStartTime(said), time, said)
  for (const said of [
    undefined,
    null,
    '',
    'x',
    '1795770595',
    1.5,
    2 ** 60,
    '2026-11-27',
    '2026-13-27T09:08:07Z',
    {},
  ])
    assert.equal(parseStartTime(said), undefined, String(said))
})

test('processStartTime() is between before and after a process was started', async () => {
  const before = Date.now()
  const child = spawn('sleep', ['1000'])
  await once(child, 'spawn')
  using held = openProcess(child.pid!)
  try {
    const began = await processStartTime(held)
    // Hundredths of a second, of two clocks.
    assert.ok(began >= before - 50 && began <= Date.now() + 50, `${before} ${began}`)
    assert.equal(hadBegun(began, Date.now()), true)
    assert.equal(hadBegun(began, before - 3_600_000), false)
  } finally {
    child.kill('SIGKILL')
    await once(child, 'close')
  }
  await assert.rejects(processStartTime(held), NotFoundError)
})

test('hadBegun() forgives an engine that notes the time before it makes the process, and no more', () => {
  assert.equal(hadBegun(19_999, 10_000), true)
  assert.equal(hadBegun(20_001, 10_000), false)
})
