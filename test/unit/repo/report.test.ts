/**
 * The result of a run of tests: no failure, in a VM or out of it, gets lost on the way to the
 * closing line.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Report } from '../../../scripts/report.ts'
import { vmReport } from '../../../scripts/vm/matrix.ts'

function report(passed: number, failures: string[], skips: string[], times: [string, number][] = []): Report {
  return Report.parse(JSON.stringify({ passed, failures, skips, times }))
}

test('Report adds up, says where, and closes with one line', () => {
  const total = report(2, ['a'], [])
  total.add(report(3, ['b'], ['c: no network']), 'Linux 7: ')
  assert.equal(
    String(total),
    '\nskipped:\n  Linux 7: c: no network\n\nfailed:\n  a\n  Linux 7: b\n\n5 passed, 2 failed, 1 skipped',
  )
  assert.equal(String(report(1, [], [])), '\n1 passed, 0 failed, 0 skipped')
})

test('Report lists the files that took ten seconds or longer, the longest first', () => {
  const total = report(1, [], [], [['short', 9999]])
  total.add(report(0, [], [], [['long', 10_400]]), 'Linux 7: ')
  total.add(report(0, [], [], [['longer', 60_000]]))
  assert.equal(
    String(total),
    '\nlongest:\n  60 s longer\n  10 s Linux 7: long\n\n1 passed, 0 failed, 0 skipped',
  )
})

test('Report comes back from JSON as it was', () => {
  const before = report(1, ['b'], ['c'], [['a', 1.5]])
  assert.deepEqual(Report.parse(JSON.stringify(before)), before)
})

test('vmReport() takes what the tests in the VM wrote', () => {
  assert.deepEqual(vmReport(0, JSON.stringify(report(4, [], ['s'])), 'ended'), report(4, [], ['s']))
  assert.deepEqual(vmReport(1, JSON.stringify(report(4, ['f'], [])), 'ended'), report(4, ['f'], []))
})

test('vmReport() counts a VM that broke, hung or said nothing as failed', () => {
  assert.deepEqual(vmReport(125, undefined, 'vm: broke'), report(0, ['status 125: vm: broke'], []))
  // The tests were done, and then the kernel broke.
  const written = JSON.stringify(report(4, [], []))
  assert.deepEqual(vmReport(125, written, 'vm: broke'), report(4, ['status 125: vm: broke'], []))
  assert.deepEqual(vmReport(null, undefined, 'killed'), report(0, ['status null: killed'], []))
})
