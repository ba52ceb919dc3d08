/** The registry as whoever uses it sees it. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Change } from '../../../src/registry/change.ts'
import { policyDigest, traceText } from '../../../src/registry/loan-record.ts'
import { Registry, type RegistryOptions, recoverRegistry } from '../../../src/registry/registry.ts'
import { AT, answer, asker, BOOT, DIRECTORY, loan, policyJson, request, shown } from './examples.ts'
import { errnoError, MemoryDisk } from './memory-disk.ts'

const FILE = `${DIRECTORY}/registry.jsonl`

function open(disk: MemoryDisk, options: Partial<RegistryOptions> = {}): Promise<Registry> {
  return Registry.open(DIRECTORY, { boot: BOOT, files: disk, now: () => Date.parse(AT), ...options })
}

/** What is there after a restart. */
async function reopened(disk: MemoryDisk, options: Partial<RegistryOptions> = {}): Promise<Registry> {
  assert.equal(disk.opened.size, 0, 'a file is still open')
  return open(disk, options)
}

test('what was put is there at once, and after a restart', async () => {
  const disk = new MemoryDisk()
  const first = await open(disk)
  const live = loan(1, {
    state: 'live',
    trace: traceText([{ policy: 'dev', subjects: 'unstated', entries: [] }] as never)!,
    approvedBy: 0,
    comment: 'line\nbreak \u202e and \u{1f600} "quotes"',
    recipient: {
      pid: 4712,
      userNamespace: 'user:[1]',
      mountNamespace: 'mnt:[2]',
      ownerUid: 1000,
      rootUid: 1000,
      unit: 'a.service',
    },
    made: {
      at: AT,
      mountId: 77,
      device: '0:55',
      path: '/sys/fs/bpf',
      masks: { cmds: '0x21', maps: '0x6', progs: '0x2', attachs: '0xffffffffffffffff' },
      options: ['delegate_cmds=map_create'],
      delegation: 4_294_967_295,
    },
    expires: { at: AT, bootNs: '18446744073709551615' },
  })
  await first.put({ loan: live, answer: answer(1000, 'k') })
  await first.put({ request: request(1) })
  const derived = loan(2, { kind: 'derive', parent: 1, place: { contextFd: 7 }, cgroup: '/a' })
  await first.put({ loan: derived })
  const before = shown(first, [[1000, 'k']])
  assert.deepEqual(before, { loans: [live, derived], requests: [request(1)], answers: [answer(1000, 'k')] })
  await first.close()
  const second = await reopened(disk)
  assert.deepEqual(shown(second, [[1000, 'k']]), before)
  assert.equal(second.torn, undefined)
  assert.equal(second.nextLoanId(), 3)
  assert.equal(second.nextRequestId(), 2)
  await second.close()
})

test('the file is ASCII, whatever clients wrote, and holds a policy once', async () => {
  const disk = new MemoryDisk()
  const registry = await open(disk)
  for (let id = 1; id <= 3; id++)
    await registry.put({ loan: loan(id, { comment: '\u001b[2J\u202e\u2028ä' }) })
  const text = disk.content(FILE).toString('latin1')
  assert.match(text, /^[\x20-\x7e\n]*$/)
  assert.match(text, /\\u001b\[2J\\u202e\\u2028\\u00e4/)
  assert.equal(text.split('"terms":').length - 1, 1)
  for (const line of text.trimEnd().split('\n')) JSON.parse(line)
  const [one, two] = [registry.loan(1)!, registry.loan(2)!]
  assert.equal(one.policy, two.policy, 'one object')
  await registry.close()
  const again = await reopened(disk)
  assert.equal(again.loan(3)!.comment, '\u001b[2J\u202e\u2028ä')
  assert.equal(again.loan(1)!.policy, again.loan(2)!.policy, 'one object after a restart')
  await again.close()
})

test('all that is put while a batch is written shares the next fdatasync', async () => {
  const disk = new MemoryDisk()
  const registry = await open(disk)
  let syncs = 0
  disk.before = operation => {
    if (operation === 'datasync') syncs++
  }
  await Promise.all(Array.from({ length: 500 }, (_, i) => registry.put({ loan: loan(i + 1) })))
  assert.ok(syncs <= 2, `${syncs} for 500`)
  syncs = 0
  for (let i = 501; i <= 510; i++) await registry.put({ loan: loan(i) })
  assert.equal(syncs, 10, 'one by one, each is on the disk when it returns')
  await registry.close()
})

test('a loan never goes back, also where both are in one batch; a request is decided once', async () => {
  const disk = new MemoryDisk()
  const registry = await open(disk)
  const conflict = { code: 'BPFTOKEN_CONFLICT' }
  await registry.put({ loan: loan(1, { state: 'ended', ended: { at: AT, why: 'revoked', by: 0 } }) })
  await assert.rejects(registry.put({ loan: loan(1, { state: 'live' }) }), conflict)
  await assert.rejects(registry.put({ loan: loan(1, { state: 'ended' }) }), conflict)
  const results = await Promise.allSettled([
    registry.put({ loan: loan(2, { state: 'live' }) }),
    registry.put({ loan: loan(2, { state: 'ending' }) }),
    registry.put({ loan: loan(2, { state: 'live', comment: 'renewed' }) }),
    registry.put({ loan: loan(3) }),
    registry.put({ request: request(1) }),
    registry.put({ request: request(1, { state: 'approved', decided: { at: AT, by: 0 } }) }),
    registry.put({ request: request(1, { state: 'denied', decided: { at: AT, by: 0 } }) }),
    registry.put({ request: request(1, { state: 'approved', decided: { at: AT, by: 0 }, loan: 3 }) }),
  ])
  assert.deepEqual(
    results.map(({ status }) => status),
    ['fulfilled', 'fulfilled', 'rejected', 'fulfilled', 'fulfilled', 'fulfilled', 'rejected', 'fulfilled'],
  )
  // The twin: renewing what lives is fine.
  await registry.put({ loan: loan(3, { state: 'live' }) })
  await registry.put({ loan: loan(3, { state: 'live', expires: { at: AT, bootNs: '5' } }) })
  const before = shown(registry)
  await registry.close()
  const again = await reopened(disk)
  assert.deepEqual(shown(again), before)
  assert.equal(again.loan(2)!.state, 'ending')
  assert.equal(again.request(1)!.loan, 3)
  await again.close()
})

test('a record that could not be read back is not written', async () => {
  const disk = new MemoryDisk()
  const registry = await open(disk)
  const size = disk.content(FILE).length
  const wrong: Change[] = [
    { loan: loan(0) },
    { loan: loan(2 ** 53) },
    { loan: { ...loan(1), more: 1 } as never },
    { loan: loan(1, { comment: 'x'.repeat(2001) }) },
    { loan: loan(1, { policyDigest: 'A'.repeat(64) }) },
    { loan: loan(1, { state: 'gone' as never }) },
    { loan: loan(1, { askedAt: 'yesterday' }) },
    { loan: loan(1, { made: { at: AT, delegation: 2 ** 32 } }) },
    { loan: loan(1, { expires: { at: AT, bootNs: '-1' } }) },
    { request: request(1, { asker: { pid: 1 } as never }) },
    { answer: answer(1000, 'ä') },
    { answer: answer(0xffff_ffff, 'k') },
  ]
  for (const change of wrong) await assert.rejects(registry.put(change), { code: 'BPFTOKEN_FORMAT' })
  const huge = policyJson('x'.repeat(1024 * 1024))
  await assert.rejects(registry.put({ loan: loan(1, { policy: huge, policyDigest: policyDigest(huge) }) }), {
    code: 'BPFTOKEN_INPUT',
  })
  assert.equal(disk.content(FILE).length, size)
  await registry.put({ loan: loan(1) })
  await registry.close()
})

test('compaction keeps all, the numbers too, and goes on by itself', async () => {
  const disk = new MemoryDisk()
  const registry = await open(disk, { garbageLines: 50, bounds: { endedLoans: 5 } })
  const given = registry.nextLoanId()
  assert.equal(given, 1)
  for (let id = 1; id <= 100; id++)
    for (const state of ['making', 'live', 'ended'] as const)
      await registry.put({ loan: loan(id, { state }) })
  await registry.put({ loan: loan(101, { state: 'live' }), answer: answer(5, 'k') })
  const before = shown(registry, [[5, 'k']])
  assert.equal([...registry.loans()].length, 6)
  await registry.close()
  const lines = disk.content(FILE).toString('latin1').split('\n').length
  assert.ok(lines < 130, `${lines} lines for 302 changes`)
  assert.deepEqual(disk.names(), ['registry.jsonl'])
  const again = await reopened(disk, { bounds: { endedLoans: 5 } })
  assert.deepEqual(shown(again, [[5, 'k']]), before)
  assert.deepEqual(
    [...again.loans()].map(({ id }) => id).sort((a, b) => a - b),
    [96, 97, 98, 99, 100, 101],
    'of those that ended, the last ones',
  )
  await again.put({ loan: loan(101, { state: 'ended' }) })
  await again.compact()
  const highest = again.nextLoanId()
  assert.equal(highest, 102)
  await again.close()
  const third = await reopened(disk, { bounds: { endedLoans: 1 } })
  assert.equal(third.nextLoanId(), 102, 'a number that was never put may come again')
  assert.deepEqual(
    [...third.loans()].map(({ id }) => id),
    [101],
  )
  await third.close()
})

test('whoever puts during a compaction waits for no more than its last step', async () => {
  const disk = new MemoryDisk()
  const registry = await open(disk, { garbageLines: 1e9 })
  await Promise.all(Array.from({ length: 1000 }, (_, i) => registry.put({ loan: loan(i + 1) })))
  let put: Promise<void> | undefined
  let copied = 0
  let doneAfter = 0
  disk.before = (operation, path) => {
    if (operation !== 'write' || !path.endsWith('.new')) return
    copied++
    put ??= registry.put({ loan: loan(2000) }).then(() => {
      doneAfter = copied
    })
  }
  await registry.compact()
  await put
  assert.ok(copied >= 8, `${copied} pieces`)
  assert.ok(doneAfter < copied, `it was done when ${doneAfter} of ${copied} pieces were copied`)
  await registry.close()
  const again = await reopened(disk)
  assert.equal([...again.loans()].length, 1001)
  await again.close()
})

test('a compaction that fails, at any step, loses nothing and is no failure of who puts', async () => {
  for (let at = 0; ; at++) {
    const disk = new MemoryDisk()
    const registry = await open(disk, { garbageLines: 1e9 })
    for (let id = 1; id <= 3; id++) await registry.put({ loan: loan(id) })
    let failed = false
    const base = disk.operations
    disk.before = (operation, _, number) => {
      if (number - base === at) {
        failed = true
        throw errnoError('EIO', operation)
      }
    }
    const outcome = await registry.compact().then(
      () => 'done',
      (error: { code: string }) => error.code,
    )
    disk.before = () => {}
    await registry.put({ loan: loan(4) })
    const before = shown(registry)
    await registry.close()
    assert.equal(disk.opened.size, 0)
    for (const names of ['old', 'new'] as const) {
      const again = await open(disk.crashed('none', names))
      assert.deepEqual(shown(again), before, `failed at ${at}, ${names} names`)
      await again.close()
    }
    if (!failed) {
      assert.equal(outcome, 'done')
      assert.ok(at >= 6, `only ${at} steps`)
      break
    }
    assert.ok(outcome === 'BPFTOKEN_SYSCALL' || outcome === 'done', outcome)
  }
})

test('answers live a day, so many for each owner, and a clock that jumps neither loses nor revives', async () => {
  let now = Date.parse(AT)
  const disk = new MemoryDisk()
  const options = { now: () => now, bounds: { answersPerOwner: 3, answers: 5 } }
  const registry = await open(disk, options)
  for (const key of ['a', 'b', 'c', 'd']) await registry.put({ answer: answer(1, key) })
  assert.equal(registry.answer(1, 'a'), undefined, 'the oldest of four')
  assert.equal(registry.answer(1, 'd')?.key, 'd')
  await registry.put({ answer: answer(2, 'a') })
  await registry.put({ answer: answer(3, 'a') })
  await registry.put({ answer: answer(4, 'a') })
  assert.equal(registry.answer(1, 'b'), undefined, 'the oldest of six')
  assert.equal(registry.answer(1, 'c')?.key, 'c')
  now -= 1000 * 86_400_000
  assert.equal(registry.answer(1, 'c')?.key, 'c', 'the clock went back three years')
  now = Date.parse(AT) + 86_400_000 - 1
  assert.equal(registry.answer(1, 'c')?.key, 'c')
  now++
  assert.equal(registry.answer(1, 'c'), undefined, 'a day later')
  await registry.compact()
  now = Date.parse(AT)
  assert.equal(registry.answer(1, 'c'), undefined, 'forgotten for good')
  await registry.close()
})

test("of loans, requests and answers nobody pushes out what is another user's, over restarts too", async () => {
  const disk = new MemoryDisk()
  const bounds = {
    ...{ endedLoans: 12, endedLoansPerOwner: 8 },
    ...{ decidedRequests: 12, decidedRequestsPerOwner: 8 },
    ...{ answers: 12, answersPerOwner: 8 },
  }
  let registry = await open(disk, { bounds })
  const of = (uid: number, owner?: string) => ({ ...asker, uid, ...(owner === undefined ? {} : { owner }) })
  const add = async (id: number, who: ReturnType<typeof of>): Promise<void> => {
    await registry.put({ loan: loan(id, { state: 'ended', asker: who }) })
    await registry.put({ request: request(id, { state: 'denied', asker: who }) })
    const { uid, owner } = who
    await registry.put({ answer: answer(uid, `key-${id}`, owner === undefined ? {} : { owner }) })
  }
  for (let id = 1; id <= 3; id++) await add(id, of(1000))
  // Many numbers, all of one owner; and one more user.
  for (let id = 100; id < 150; id++) await add(id, of(100_000 + id, 'user 1001'))
  for (let id = 200; id < 250; id++) await add(id, of(1002))
  const check = (): void => {
    for (const id of [1, 2, 3]) {
      assert.equal(registry.loan(id)?.state, 'ended')
      assert.equal(registry.request(id)?.state, 'denied')
      assert.equal(registry.answer(1000, `key-${id}`)?.key, `key-${id}`)
    }
    const ids = (first: number) => (one: { id: number }) => one.id >= first && one.id < first + 50
    for (const all of [[...registry.loans()], [...registry.requests()]]) {
      assert.equal(all.length, 12)
      assert.ok(all.filter(ids(100)).length >= 4 && all.filter(ids(200)).length >= 4)
    }
  }
  check()
  await registry.compact()
  await registry.close()
  registry = await reopened(disk, { bounds })
  check()
  await registry.close()
})

/** As version 0.1 wrote it. */
async function oldRegistry(): Promise<MemoryDisk> {
  const { encodeLine } = await import('../../../src/registry/line.ts')
  const { encodeChange } = await import('../../../src/registry/change.ts')
  const disk = new MemoryDisk()
  await disk.makeDirectory(DIRECTORY)
  const known = new Set<string>()
  const bodies = [
    '{"registry":1,"nextLoan":5,"nextRequest":3}',
    encodeChange({ loan: loan(5, { state: 'live' }), answer: answer(1000, 'k') }, known),
    encodeChange({ request: request(3) }, known),
  ]
  const lines = bodies.map((body, i) => encodeLine({ number: i + 1, batch: i + 1, body }))
  disk.setContent(FILE, Buffer.from(lines.join('')))
  return disk
}

test('a registry of schema 1 is read, stays as it is, and is written anew before anything is added', async () => {
  const disk = await oldRegistry()
  const text = disk.content(FILE).toString()
  const first = await open(disk)
  assert.equal(first.schema, 1)
  assert.equal(first.loan(5)?.state, 'live')
  await first.close()
  assert.equal(disk.content(FILE).toString(), text)
  const registry = await open(disk)
  const held = { boot: BOOT, asker: '77', recipient: '78', mountNamespace: 'mnt:[1]', untilBootNs: '9' }
  await Promise.all([
    registry.put({ request: request(registry.nextRequestId(), { held }) }),
    registry.put({ loan: loan(registry.nextLoanId()) }),
  ])
  assert.equal(registry.schema, 2)
  assert.match(disk.content(FILE).toString(), /^\["[0-9a-f]+",1,1,\{"registry":2,/)
  await registry.close()
  const again = await open(disk)
  assert.deepEqual([again.loan(5)?.state, again.loan(6)?.state], ['live', 'making'])
  assert.deepEqual([again.request(3)?.held, again.request(4)?.held], [undefined, held])
  assert.equal(again.answer(1000, 'k')?.loan, 1)
  await again.close()
})

test('a registry of schema 1 that cannot be written anew takes nothing, and stays as it is', async () => {
  const disk = await oldRegistry()
  const text = disk.content(FILE).toString()
  const registry = await open(disk)
  disk.free = 50
  await assert.rejects(registry.put({ loan: loan(6) }), { errnoName: 'ENOSPC' })
  assert.match(registry.fault ?? '', /ENOSPC/)
  assert.deepEqual([registry.schema, registry.loan(6)], [1, undefined])
  assert.equal(disk.content(FILE).toString(), text)
  disk.free = Infinity
  await registry.put({ loan: loan(6) })
  assert.deepEqual([registry.schema, registry.fault, registry.loan(6)?.state], [2, undefined, 'making'])
  await registry.close()
})

test('one registry for a directory', async () => {
  const disk = new MemoryDisk()
  const registry = await open(disk)
  await assert.rejects(open(disk), { code: 'BPFTOKEN_CONFLICT', reason: 'state-in-use' })
  await assert.rejects(recoverRegistry(DIRECTORY, { files: disk }), { code: 'BPFTOKEN_CONFLICT' })
  await registry.close()
  await assert.rejects(registry.put({ loan: loan(1) }), /closed/)
  const next = await open(disk)
  await next.close()
})

test('a directory that others have rights to, or that is of others, is refused', async () => {
  for (const facts of [
    { uid: process.geteuid!(), mode: 0o40750 },
    { uid: process.geteuid!(), mode: 0o40701 },
    { uid: process.geteuid!() + 1, mode: 0o40700 },
  ]) {
    const disk = new MemoryDisk()
    disk.facts = async () => facts
    await assert.rejects(open(disk), { code: 'BPFTOKEN_DENIED', reason: 'state-open-to-others' })
  }
})

test('another schema is refused with both numbers, and the file stays as it is', async () => {
  const { encodeLine } = await import('../../../src/registry/line.ts')
  for (const schema of [0, 3, 99]) {
    const disk = new MemoryDisk()
    await disk.makeDirectory(DIRECTORY)
    const text = `${encodeLine({ number: 1, batch: 1, body: `{"registry":${schema},"unheard":1}` })}what else`
    disk.setContent(FILE, Buffer.from(text))
    await assert.rejects(open(disk), {
      code: 'BPFTOKEN_NOT_SUPPORTED',
      reason: 'state-schema',
      message: `${FILE} is of schema ${schema}, and this version reads schema 1 to 2`,
    })
    assert.equal(disk.content(FILE).toString(), text)
    assert.equal(disk.opened.size, 0)
  }
})

test('recover sets the file aside and gives no number again', async () => {
  const disk = new MemoryDisk()
  const registry = await open(disk)
  await Promise.all([1, 2, 3].map(id => registry.put({ loan: loan(id) })))
  await registry.put({ loan: loan(70), request: request(9) })
  await registry.put({ loan: loan(71) })
  await registry.close()
  const bytes = Buffer.from(disk.content(FILE))
  const flipped = bytes.indexOf('"id":2,')
  bytes[flipped + 5]! ^= 1
  disk.setContent(FILE, bytes)
  disk.setContent(
    `${DIRECTORY}/audit.jsonl`,
    Buffer.from('{"seq":1,"loan":"loan-500","request":"request-3"}\n'),
  )
  await assert.rejects(open(disk), {
    code: 'BPFTOKEN_FORMAT',
    reason: 'state-damaged',
    message: `state file: line 3 of ${FILE} is damaged`,
  })
  assert.deepEqual(disk.content(FILE), bytes)
  const recovered = await recoverRegistry(DIRECTORY, { files: disk, now: () => Date.parse(AT) })
  assert.equal(recovered.aside, `${FILE}.damaged-2026-01-02T03-04-05-678Z`)
  assert.deepEqual(disk.content(recovered.aside!), bytes)
  const again = await reopened(disk)
  assert.deepEqual(shown(again), { loans: [], requests: [], answers: [] })
  assert.ok(again.nextLoanId() > 500)
  assert.ok(again.nextRequestId() > 9)
  await again.close()
})

test('recover can be stopped at each step, and be done again', async () => {
  for (let at = 0; ; at++) {
    const disk = new MemoryDisk()
    const registry = await open(disk)
    await registry.put({ loan: loan(41) })
    await registry.close()
    const base = disk.operations
    let stopped = false
    disk.before = (_, __, number) => {
      if (number - base !== at) return
      stopped = true
      disk.stop()
    }
    await recoverRegistry(DIRECTORY, { files: disk }).catch(() => {})
    for (const names of ['old', 'new'] as const) {
      const next = disk.crashed('none', names)
      const opened = await open(next).catch((error: { reason: string }) => {
        assert.equal(error.reason, 'state-damaged')
        return undefined
      })
      await opened?.close()
      if (opened === undefined) await recoverRegistry(DIRECTORY, { files: next })
      const after = await open(next)
      assert.ok(after.nextLoanId() > 41, `stopped at ${at}, ${names} names`)
      await after.close()
    }
    if (!stopped) break
  }
})

test('where the registry is gone and the audit is not, nothing is begun anew', async () => {
  const disk = new MemoryDisk()
  await disk.makeDirectory(DIRECTORY)
  disk.setContent(`${DIRECTORY}/audit.jsonl`, Buffer.from(''))
  await assert.rejects(open(disk), { code: 'BPFTOKEN_FORMAT', reason: 'state-damaged' })
  assert.deepEqual(disk.names(), ['audit.jsonl'])
})

test('traceText() keeps what matched of a trace that is too long', () => {
  const entry = (i: number, matches: boolean) => ({ path: `spec.subjects[${i}]`, matches, fields: [] })
  const long = [{ policy: 'dev', entries: Array.from({ length: 100 }, (_, i) => entry(i, i === 7)) }]
  assert.equal(
    traceText(long),
    '[{"policy":"dev","entries":[{"path":"spec.subjects[7]","matches":true,"fields":[]}]}]',
  )
  const all = [{ policy: 'dev', entries: Array.from({ length: 100 }, (_, i) => entry(i, true)) }]
  assert.equal(traceText(all), undefined)
})

test('policyDigest() is of what the policy says, in whatever order', () => {
  const policy = policyJson('dev')
  const turned = Object.fromEntries(Object.entries(policy).reverse()) as unknown as typeof policy
  assert.equal(policyDigest(turned), policyDigest(policy))
  assert.notEqual(policyDigest(policyJson('dev2')), policyDigest(policy))
})
