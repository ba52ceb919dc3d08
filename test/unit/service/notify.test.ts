import assert from 'node:assert/strict'
import { test } from 'node:test'
import { statusLine, watchdogMs } from '../../../src/service/notify.ts'

test('watchdogMs() gives half of the period, of a watchdog that is ours', () => {
  assert.equal(watchdogMs({ WATCHDOG_USEC: '30000000' }, 7), 15_000)
  assert.equal(watchdogMs({ WATCHDOG_USEC: '30000000', WATCHDOG_PID: '7' }, 7), 15_000)
  assert.equal(watchdogMs({ WATCHDOG_USEC: '30000000', WATCHDOG_PID: '8' }, 7), undefined)
  assert.equal(watchdogMs({}, 7), undefined)
  for (const usec of ['', '0', '-1', '1e9', '0x10', '3600000001', '9'.repeat(30), '30000000 '])
    assert.equal(watchdogMs({ WATCHDOG_USEC: usec }, 7), undefined, usec)
})

test('statusLine() is one line, whatever the text', () => {
  assert.equal(statusLine('12 loans'), 'STATUS=12 loans')
  for (const text of ['a\nREADY=1', 'a\rb', 'a\u2028b', '\u001b[2J', 'x'.repeat(10_000)]) {
    const line = statusLine(text)
    assert.match(line, /^STATUS=[\x20-\x7e]*$/)
    assert.ok(line.length < 300)
  }
})
