/** What top shows of loans and events, in 80 columns, and what its keys do. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { keysIn } from '../../../src/cli/commands/top.ts'
import type { Line } from '../../../src/cli/output.ts'
import { bar, limitsOf, rateText, TopView } from '../../../src/cli/top-view.ts'
import type { Loan } from '../../../src/client/client.ts'

const NOW = Date.parse('2026-01-02T03:04:05.000Z')
const SIZE = { width: 80, height: 24 }
const AT = new Date(NOW).toISOString()

interface Facts {
  id: number
  policy?: string
  container?: string
  parent?: string
  live?: [tokens: number, programs: number, maps: number, bytes: number]
  limits?: Record<string, number>
}

function loan({ id, policy = 'dev', container, parent, live = [0, 0, 0, 0], limits = {} }: Facts): Loan {
  const [tokens, programs, maps, mapBytes] = live
  return {
    ...{ id: `loan-${id}`, kind: 'delegate', state: 'live', policy, policyDigest: 'ab' },
    spec: {
      ...{ askedAt: AT, place: { path: '/sys/fs/bpf' }, because: 'subject' },
      asker: { pid: 1, uid: 1000, gid: 1000, userNamespace: 'user:[1]' },
      ...(parent === undefined ? {} : { parent }),
    },
    record: {
      ...{ madeAt: AT, boot: 'b', capabilities: ['bpf'], expiresAt: new Date(NOW + 7_140_000).toISOString() },
      recipient: {
        ...{ pid: 100 + id, userNamespace: 'user:[2]', mountNamespace: 'mnt:[3]', ownerUid: 1000 },
        ...(container === undefined ? {} : { container }),
      },
    },
    status: { mounted: true, processes: 1, drift: [], live: { tokens, programs, maps, mapBytes }, limits },
  }
}

const text = (line: Line): string =>
  typeof line === 'string' ? line : line.map(part => (typeof part === 'string' ? part : part.text)).join('')

function shown(view: TopView, size = SIZE, now = NOW): string[] {
  return view.lines(size, now).map(text)
}

function viewOf(loans: readonly Loan[], sort: 'name' | 'refusals' | 'limits' | 'uses' = 'name'): TopView {
  const view = new TopView(sort)
  view.update(loans, { more: false, waiting: 0 })
  return view
}

const rows = (lines: readonly string[]): string[] => lines.filter(line => /^[> ] *\+?loan-/.test(line))

test('a row has the loan, for whom, the fullest limit as a bar, and the rates', () => {
  const view = viewOf([
    loan({ id: 7, container: 'web', live: [1, 2, 9, 512], limits: { tokens: 4, maps: 10, mapBytes: 4096 } }),
    loan({ id: 8, policy: 'other' }),
  ])
  for (let seq = 1; seq <= 5; seq++) view.count({ seq, count: 2, verdict: 'allowed', loan: 'loan-7' }, NOW)
  view.count({ seq: 9, count: 5, verdict: 'refused', loan: 'loan-7' }, NOW)
  const lines = shown(view)
  assert.equal(lines.length, 24)
  assert.match(lines[0]!, /^2 loans, by name {2,}used 2\.0\/s, refused 1\.0\/s$/)
  assert.match(rows(lines)[0]!, /^> loan-7 .*container web .*dev .*maps .*#####-.* 90% .*2\.0 +1\.0 +1h59m/)
  assert.match(rows(lines)[1]!, /^ {2}loan-8 .*process 108 .*other .*- +0 +0 +1h59m/)
})

test('a frame is not higher than the terminal, and in ASCII whatever is in it; a row has 80 columns', () => {
  const odd = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 60 }),
    fc.constantFrom('\u001b[2J', '漢字', '\u202e', 'a\nb'),
  )
  fc.assert(
    fc.property(
      fc.array(fc.record({ id: fc.integer({ min: 1, max: 99 }), policy: odd, container: odd }), {
        maxLength: 40,
      }),
      fc.integer({ min: 20, max: 200 }),
      fc.integer({ min: 3, max: 60 }),
      fc.array(fc.constantFrom('j', 'k', '\r', 's', 'G', 'r', 'n', '\x1b[6~'), { maxLength: 12 }),
      (facts, width, height, keys) => {
        const unique = [...new Map(facts.map(one => [one.id, one])).values()]
        const view = viewOf(unique.map(loan))
        for (const key of keys) view.press(key, NOW)
        const lines = view.lines({ width, height }, NOW)
        assert.ok(lines.length <= height)
        for (const line of lines) assert.match(text(line), /^[\x20-\x7e]*$/)
      },
    ),
  )
  for (const line of shown(
    viewOf([loan({ id: 4_294_967_295, container: 'x'.repeat(64), limits: { maps: 1 } })]),
  ))
    assert.ok(line.length <= 80, `${line.length}: ${line}`)
})

test('rates forget after five seconds, and count of a folded event what was added', () => {
  const view = viewOf([loan({ id: 7 })])
  const refused = (now: number): string => shown(view, SIZE, now)[0]!.replace(/.*refused /, '')
  view.count({ seq: 1, count: 10, verdict: 'refused', loan: 'loan-7' }, NOW)
  assert.equal(refused(NOW), '2.0/s')
  view.count({ seq: 1, count: 15, verdict: 'refused', loan: 'loan-7' }, NOW)
  assert.equal(refused(NOW), '3.0/s')
  view.count({ seq: 1, count: 15, verdict: 'refused', loan: 'loan-7' }, NOW)
  assert.equal(refused(NOW + 4000), '3.0/s')
  assert.equal(refused(NOW + 5000), '0/s')
  view.count({ seq: 2, count: 1, verdict: 'refused' }, NOW)
  assert.equal(refused(NOW + 5000), '0/s')
})

test('what is derived stands below its origin, and each order is one', () => {
  const loans = [
    loan({ id: 1, container: 'b', live: [1, 0, 0, 0], limits: { tokens: 10 } }),
    loan({ id: 2, container: 'a', live: [9, 0, 0, 0], limits: { tokens: 10 } }),
    loan({ id: 3, container: 'z', parent: 'loan-1' }),
  ]
  const ids = (view: TopView): (string | undefined)[] =>
    rows(shown(view)).map(line => /\+?loan-\d+/.exec(line)?.[0])
  assert.deepEqual(ids(viewOf(loans, 'name')), ['loan-2', 'loan-1', '+loan-3'])
  assert.deepEqual(ids(viewOf(loans, 'limits')), ['loan-2', 'loan-1', '+loan-3'])
  const view = viewOf(loans, 'refusals')
  view.count({ seq: 1, count: 1, verdict: 'refused', loan: 'loan-1' }, NOW)
  view.count({ seq: 2, count: 9, verdict: 'allowed', loan: 'loan-2' }, NOW)
  assert.deepEqual(ids(view), ['loan-1', '+loan-3', 'loan-2'])
  view.press('s', NOW)
  assert.deepEqual(ids(view), ['loan-2', 'loan-1', '+loan-3'])
  // An origin that is not ours to see is no reason to hide what is.
  assert.deepEqual(ids(viewOf([loan({ id: 5, parent: 'loan-4' })])), ['loan-5'])
})

test('keys choose, open and close; the chosen row stays in sight and chosen', () => {
  const loans = Array.from({ length: 50 }, (_, i) =>
    loan({ id: i + 1, container: `c${100 + i}`, limits: { maps: 4 } }),
  )
  const view = viewOf(loans)
  const chosen = (): string | undefined =>
    shown(view)
      .find(line => line.startsWith('>'))
      ?.slice(2, 14)
      .trim()
  assert.equal(chosen(), 'loan-1')
  for (const [key, id] of [
    ['j', 2],
    ['\x1b[B', 3],
    ['k', 2],
    ['\x1b[6~', 12],
    ['G', 50],
    ['j', 50],
    ['\x1b[5~', 40],
    ['g', 1],
    ['\x1b[A', 1],
  ] as const) {
    view.press(key, NOW)
    assert.equal(chosen(), `loan-${id}`, key)
  }
  view.press('j', NOW)
  view.press('\r', NOW)
  assert.ok(shown(view).some(line => /^ +maps +-{30} 0 of 4/.test(line)))
  assert.ok(shown(view).some(line => /^ +asked .* by uid 1000/.test(line)))
  // Another list: the same loan is chosen and open, until it is gone.
  view.update(loans.slice(1), { more: true, waiting: 2 })
  assert.equal(chosen(), 'loan-2')
  assert.match(shown(view)[0]!, /^more than 49 loans, 2 to approve/)
  assert.ok(shown(view).some(line => /0 of 4/.test(line)))
  view.update(loans.slice(2), { more: false, waiting: 0 })
  assert.equal(chosen(), 'loan-3')
  assert.ok(!shown(view).some(line => /0 of 4/.test(line)))
})

test('r asks, and revokes on y alone', () => {
  const view = viewOf([loan({ id: 1 }), loan({ id: 2 })])
  view.press('j', NOW)
  assert.equal(view.press('r', NOW), undefined)
  assert.match(shown(view).at(-1)!, /^Revoke loan-2, and what is derived from it\? y or n/)
  assert.deepEqual(view.press('y', NOW), { do: 'revoke', id: 'loan-2' })
  assert.match(shown(view).at(-1)!, /q quit/)
  for (const key of ['n', '\r', 'q', ' ', '\x1b[A']) {
    view.press('r', NOW)
    assert.equal(view.press(key, NOW), undefined)
    assert.match(shown(view).at(-1)!, /loan-2 was not revoked/)
  }
  // It ended by itself: nobody is asked about another.
  view.press('r', NOW)
  view.update([loan({ id: 1 })], { more: false, waiting: 0 })
  assert.equal(view.press('y', NOW), undefined)
  assert.deepEqual([view.press('q', NOW), view.press('\x1a', NOW)], [{ do: 'quit' }, { do: 'suspend' }])
  view.press('r', NOW)
  assert.deepEqual(view.press('\x03', NOW), { do: 'quit' })
})

test('nothing lent: nothing is chosen, and no key breaks it', () => {
  const view = viewOf([])
  for (const key of ['j', 'k', '\r', 'r', 'y', 's', 'G', 'g'])
    assert.equal(view.press(key, NOW), undefined, key)
  assert.ok(shown(view).includes('nothing is lent'))
})

test('bars and rates', () => {
  assert.deepEqual(
    [bar(0, 4), bar(0.01, 4), bar(0.5, 4), bar(1, 4), bar(7, 4)],
    ['----', '#---', '##--', '####', '####'],
  )
  assert.deepEqual([0, 0.2, 9.96, 120.4, 45_000].map(rateText), ['0', '0.2', '10.0', '120', '45k'])
  assert.deepEqual(limitsOf(loan({ id: 1, live: [1, 1, 1, 1], limits: { tokens: 0 } }))[0]!.share, 1)
})

test('keysIn() parts what a terminal sends at once', () => {
  assert.deepEqual(keysIn('jk\x1b[A\x1b[6~q\x1bOA\x1b'), [
    'j',
    'k',
    '\x1b[A',
    '\x1b[6~',
    'q',
    '\x1bOA',
    '\x1b',
  ])
})
