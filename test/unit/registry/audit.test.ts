/** The audit: its chain, what breaks it, and what a stop leaves. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import fc from 'fast-check'
import { Audit, type AuditOptions } from '../../../src/registry/audit.ts'
import { verifyAudit } from '../../../src/registry/audit-chain.ts'
import type { AuditHead, AuditRecord } from '../../../src/registry/audit-record.ts'
import { AT, DIRECTORY } from './examples.ts'
import { errnoError, LEFTOVERS, MemoryDisk } from './memory-disk.ts'

const FILE = `${DIRECTORY}/audit.jsonl`

function open(files: MemoryDisk, options: Partial<AuditOptions> = {}): Promise<Audit> {
  return Audit.open(DIRECTORY, { files, now: () => Date.parse(AT), ...options })
}

async function emptyDisk(): Promise<MemoryDisk> {
  const disk = new MemoryDisk()
  await disk.makeDirectory(DIRECTORY)
  return disk
}

function entry(i: number, facts: Record<string, unknown> = {}) {
  return { event: 'lend.did', loan: i, facts: { i, ...facts } }
}

async function all(audit: Audit): Promise<readonly AuditRecord[]> {
  return (await audit.query({ limit: 1e6 })).records
}

/** Which of the entries of a test are there, in order. */
function numbers(records: readonly AuditRecord[]): unknown[] {
  return records.filter(({ event }) => event === 'lend.did').map(({ facts }) => facts['i'])
}

test('each record holds the hash of the one before, and anybody can check it with the file alone', async () => {
  const disk = await emptyDisk()
  const audit = await open(disk)
  const begun = audit.head
  assert.equal(begun.seq, 1)
  const made = [await audit.append(entry(1)), await audit.append({ event: 'asked', request: 7, facts: {} })]
  assert.deepEqual(
    [made[0]!.seq, made[0]!.previous, made[0]!.loan, made[0]!.at],
    [2, begun.hash, 'loan-1', AT],
  )
  assert.deepEqual([made[1]!.seq, made[1]!.previous, made[1]!.request], [3, made[0]!.hash, 'request-7'])
  let previous = '0'.repeat(64)
  for (const line of disk.content(FILE).toString().trimEnd().split('\n')) {
    const body = line.replace(/,"hash":"[0-9a-f]{64}"\}$/, '}')
    assert.equal(JSON.parse(line).previous, previous)
    previous = createHash('sha256').update(body).digest('hex')
    assert.equal(JSON.parse(line).hash, previous)
  }
  assert.equal(audit.head.hash, previous)
  assert.deepEqual(await audit.verify(), { intact: true, records: 3, from: 1, head: previous })
  await audit.close()
  const again = await open(disk)
  assert.deepEqual(again.head, { seq: 3, hash: previous })
  assert.equal((await again.append(entry(3))).previous, previous)
  assert.deepEqual((await all(again)).slice(1, 3), made)
  await again.close()
})

test('nothing that a client wrote ends a line, moves a cursor or turns the text around', async () => {
  const disk = await emptyDisk()
  const audit = await open(disk)
  const hostile =
    'a\n{"seq":2,"event":"forged"}\r\u001b[2J\u009b\u202e\u2066\u2028\u0000\ud800 "\\ ä \u{1f600}'
  const made = await audit.append({ event: 'asked', facts: { [hostile]: hostile } })
  assert.deepEqual(made.facts, { [hostile]: hostile })
  const text = disk.content(FILE).toString('latin1')
  assert.match(text, /^[\x20-\x7e]+\n[\x20-\x7e]+\n$/)
  assert.deepEqual((await all(audit))[1], made)
  assert.equal((await audit.verify()).intact, true)
  await audit.close()
})

test('a record that is too long is refused alone', async () => {
  const disk = await emptyDisk()
  const audit = await open(disk)
  const results = await Promise.allSettled([
    audit.append(entry(1)),
    audit.append(entry(2, { text: 'x'.repeat(70_000) })),
    audit.append(entry(3)),
  ])
  assert.deepEqual(
    results.map(({ status }) => status),
    ['fulfilled', 'rejected', 'fulfilled'],
  )
  assert.equal((results[1] as PromiseRejectedResult).reason.code, 'BPFTOKEN_INPUT')
  assert.deepEqual(numbers(await all(audit)), [1, 3])
  assert.equal((await audit.verify()).intact, true)
  await audit.close()
})

test('rotation keeps the chain, over restarts too, and queries go through all files', async () => {
  const disk = await emptyDisk()
  const heads: AuditHead[] = []
  for (let round = 0; round < 4; round++) {
    const audit = await open(disk, { maxBytes: 2000 })
    for (let i = 1; i <= 20; i++) await audit.append(entry(round * 20 + i))
    heads.push(audit.head)
    await audit.close()
  }
  assert.ok(disk.names().length >= 8, `${disk.names()}`)
  assert.match(disk.names()[0]!, /^audit-000000000001\.jsonl$/)
  const audit = await open(disk, { maxBytes: 2000 })
  const records = await all(audit)
  assert.deepEqual(
    numbers(records),
    Array.from({ length: 80 }, (_, i) => i + 1),
  )
  assert.deepEqual(
    records.map(({ seq }) => seq),
    records.map((_, i) => i + 1),
  )
  assert.deepEqual(await audit.verify(), {
    intact: true,
    records: records.length,
    from: 1,
    head: heads[3]!.hash,
  })
  for (const known of heads) assert.equal((await audit.verify(known)).intact, true)
  const forged = await audit.verify({ ...heads[1]!, hash: 'f'.repeat(64) })
  assert.deepEqual(
    [forged.intact, forged.fault?.message],
    [false, `number ${heads[1]!.seq} is not the one that is known`],
  )
  const beyond = await audit.verify({ seq: 1000, hash: 'f'.repeat(64) })
  assert.match(beyond.fault!.message, /number 1000, which is known, is not there/)
  // Pages.
  let after = 0
  const paged: AuditRecord[] = []
  for (let more = true; more; ) {
    const page = await audit.query({ after, limit: 7 })
    paged.push(...page.records)
    more = page.records.length > 0
    after = page.next
  }
  assert.deepEqual(paged, records)
  assert.deepEqual(
    (await audit.query({ loan: 33 })).records.map(({ facts }) => facts['i']),
    [33],
  )
  assert.equal((await audit.query({ after: records.length })).records.length, 0)
  const exported: string[] = []
  for await (const line of audit.export({ after: 10 })) exported.push(line)
  assert.deepEqual(
    exported.map(line => JSON.parse(line)),
    records.slice(10),
  )
  await audit.close()
  // The oldest taken away: what is left is a chain, and says where it begins.
  await disk.remove(`${DIRECTORY}/${disk.names()[0]}`)
  const rest = await verifyAudit(DIRECTORY, { files: disk })
  assert.ok(rest.intact && rest.from > 1)
  // One in the middle: it is not.
  await disk.remove(`${DIRECTORY}/${disk.names()[2]}`)
  const gap = await verifyAudit(DIRECTORY, { files: disk })
  assert.match(gap.fault!.message, /number \d+ follows number \d+/)
})

test('reading and verifying go on while it is written and rotated', async () => {
  const disk = await emptyDisk()
  const audit = await open(disk, { maxBytes: 1500 })
  let stop = false
  let written = 0
  const writer = (async () => {
    while (!stop) {
      await audit.append(entry(++written))
      await new Promise(resolve => setImmediate(resolve))
    }
  })()
  for (let i = 0; i < 60 || disk.names().length < 8; i++) {
    await new Promise(resolve => setImmediate(resolve))
    const before = audit.head.seq
    const found = await all(audit)
    assert.deepEqual(
      found.map(({ seq }) => seq),
      found.map((_, at) => at + 1),
    )
    assert.ok(found.length >= before)
    const verdict = await audit.verify()
    assert.equal(verdict.intact, true, JSON.stringify(verdict))
  }
  stop = true
  await writer
  await audit.close()
  assert.equal(disk.opened.size, 0)
})

test('times go back and forth with the clock; the order is that of the chain', async () => {
  const disk = await emptyDisk()
  let now = Date.parse(AT)
  const audit = await open(disk, { now: () => now })
  for (const jump of [0, -1e10, 2e10, -1e10]) {
    now += jump
    await audit.append(entry(now))
  }
  const from = Date.parse(AT)
  assert.deepEqual(
    (await audit.query({ since: from })).records.map(({ seq }) => seq),
    [1, 2, 4, 5],
  )
  assert.deepEqual(
    (await all(audit)).map(({ seq }) => seq),
    [1, 2, 3, 4, 5],
  )
  assert.equal((await audit.verify()).intact, true)
  await audit.close()
})

test('stopped at each operation: what was acknowledged is in an intact chain, and what was cut off is told', async () => {
  const scenario = async (disk: MemoryDisk): Promise<{ asked: number; acknowledged: number }> => {
    let asked = 0
    let acknowledged = 0
    try {
      const audit = await open(disk, { maxBytes: 900 })
      for (let step = 0; step < 8; step++)
        await Promise.all(
          Array.from({ length: (step % 3) + 1 }, async () => {
            const i = ++asked
            await audit.append(entry(i))
            acknowledged = Math.max(acknowledged, i)
          }),
        )
      await audit.close()
    } catch {}
    return { asked, acknowledged }
  }
  const calm = await emptyDisk()
  await scenario(calm)
  let cuts = 0
  for (let at = 1; at < calm.operations; at++) {
    const disk = await emptyDisk()
    disk.before = (_, __, number) => {
      if (number === at) disk.stop()
    }
    const { asked, acknowledged } = await scenario(disk)
    for (const left of LEFTOVERS)
      for (const names of ['old', 'new'] as const) {
        const where = `stopped at ${at}, ${left}, ${names} names`
        const next = disk.crashed(left, names)
        const audit = await open(next, { maxBytes: 900 })
        const found = numbers(await all(audit))
        assert.deepEqual(
          found,
          found.map((_, i) => i + 1),
          where,
        )
        assert.ok(found.length >= acknowledged && found.length <= asked, `${where}: ${found.length}`)
        cuts += (await all(audit)).filter(({ event }) => event === 'audit.cut').length
        await audit.append(entry(found.length + 1))
        const verdict = await audit.verify()
        assert.equal(verdict.intact, true, `${where}: ${JSON.stringify(verdict)}`)
        await audit.close()
        assert.equal((await verifyAudit(DIRECTORY, { files: next })).intact, true, where)
      }
  }
  assert.ok(cuts > 20, `${cuts} cuts were told`)
})

test('each operation fails once: what was refused is not there, and the chain is intact', async () => {
  let refused = 0
  for (const code of ['ENOSPC', 'EIO', 'EROFS'])
    for (let at = 0, done = false; !done; at++) {
      const disk = await emptyDisk()
      const audit = await open(disk, { maxBytes: 700 })
      const base = disk.operations
      done = true
      disk.before = (operation, _, number) => {
        if (number - base !== at) return
        done = false
        throw errnoError(code, operation)
      }
      const kept: number[] = []
      for (let i = 1; i <= 9; i++)
        await audit.append(entry(i)).then(
          () => kept.push(i),
          (error: { code: string; errnoName: string }) => {
            assert.deepEqual([error.code, error.errnoName], ['BPFTOKEN_SYSCALL', code])
            refused++
          },
        )
      disk.before = () => {}
      assert.deepEqual(numbers(await all(audit)), kept, `${code} at ${at}`)
      assert.equal((await audit.verify()).intact, true)
      await audit.close()
      assert.equal(disk.opened.size, 0)
      const again = await open(disk.crashed('none', 'old'), { maxBytes: 700 })
      assert.deepEqual(numbers(await all(again)), kept, `${code} at ${at}, after a restart`)
      assert.equal((await again.verify()).intact, true)
      await again.close()
    }
  assert.ok(refused > 10, `${refused}`)
})

async function written(count: number): Promise<Buffer> {
  const disk = await emptyDisk()
  const audit = await open(disk)
  for (let i = 1; i <= count; i++) await audit.append(entry(i))
  await audit.close()
  return disk.content(FILE)
}

test('a flipped byte anywhere breaks the chain, and the number of the record is told', async () => {
  const bytes = await written(12)
  const ends = [...bytes.entries()].filter(([, byte]) => byte === 0x0a).map(([at]) => at)
  await fc.assert(
    fc.asyncProperty(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 }), async (at, flip) => {
      const disk = await emptyDisk()
      const changed = Buffer.from(bytes)
      changed[at]! ^= flip
      disk.setContent(FILE, changed)
      const verdict = await verifyAudit(DIRECTORY, { files: disk })
      assert.equal(verdict.intact, false, `byte ${at} ^ ${flip}`)
      assert.equal(verdict.fault!.seq, ends.findIndex(end => at <= end) + 1)
    }),
    { numRuns: 2000 },
  )
})

test('truncated at every length: whole records stay, a part of one is cut off and told, the chain goes on', async () => {
  const bytes = await written(4)
  const ends = [...bytes.entries()].filter(([, byte]) => byte === 0x0a).map(([at]) => at + 1)
  for (let length = ends[0]!; length <= bytes.length; length++) {
    const disk = await emptyDisk()
    disk.setContent(FILE, bytes.subarray(0, length))
    const whole = ends.filter(end => end <= length).length
    const rest = length - ends[whole - 1]!
    const audit = await open(disk)
    const records = await all(audit)
    assert.deepEqual(
      numbers(records),
      Array.from({ length: whole - 1 }, (_, i) => i + 1),
    )
    const cut = records.find(({ event }) => event === 'audit.cut')
    assert.equal(cut?.facts['bytes'], rest === 0 ? undefined : rest)
    if (cut !== undefined)
      assert.equal(cut.facts['text'], bytes.subarray(length - rest, length).toString('latin1'))
    assert.equal((await audit.verify()).intact, true)
    await audit.close()
  }
})

test('damage in the middle stays where it is, and is found; what comes after is kept', async () => {
  const bytes = await written(5)
  const disk = await emptyDisk()
  const changed = Buffer.from(bytes)
  const at = changed.indexOf('"i":3')
  changed[at + 4] = 0x38
  disk.setContent(FILE, changed)
  const audit = await open(disk)
  await audit.append(entry(6))
  assert.deepEqual(numbers(await all(audit)), [1, 2, 4, 5, 6])
  assert.deepEqual((await audit.verify()).fault, { seq: 4, message: 'audit.jsonl: is not as it was written' })
  assert.deepEqual(disk.content(FILE).subarray(0, bytes.length), changed)
  await audit.close()
})

test('a record that is rewritten with a hash of its own breaks the chain at the next one', async () => {
  const lines = (await written(5)).toString().trimEnd().split('\n')
  const body = lines[3]!.replace('"i":3', '"i":9').replace(/,"hash":"[0-9a-f]{64}"\}$/, '')
  const hash = createHash('sha256').update(`${body}}`).digest('hex')
  lines[3] = `${body},"hash":"${hash}"}`
  const disk = await emptyDisk()
  disk.setContent(FILE, Buffer.from(`${lines.join('\n')}\n`))
  const verdict = await verifyAudit(DIRECTORY, { files: disk })
  assert.deepEqual(verdict.fault, {
    seq: 5,
    message: 'audit.jsonl: number 5 follows another record than the one before it',
  })
})

test('a file without any record, or with much behind the last, is set aside, told, and not intact', async () => {
  const garbage = Buffer.alloc(1_500_000, 0x78)
  for (const content of [
    Buffer.alloc(0),
    Buffer.alloc(3),
    garbage,
    Buffer.concat([await written(2), garbage]),
  ]) {
    const disk = await emptyDisk()
    disk.setContent(FILE, content)
    const audit = await open(disk)
    await audit.append(entry(1))
    const [first] = await all(audit)
    assert.equal(first!.event, 'audit.damaged')
    const aside = String(first!.facts['file'])
    assert.deepEqual(disk.content(`${DIRECTORY}/${aside}`), content)
    const verdict = await audit.verify()
    assert.equal(verdict.intact, false)
    assert.match(verdict.fault!.message, /audit-damaged-2026/)
    await audit.close()
  }
})

test('read-only: what is there can be asked for, nothing is appended until it is writable', async () => {
  const disk = await emptyDisk()
  disk.setContent(FILE, Buffer.concat([await written(2), Buffer.from('{"seq":4,')]))
  disk.readOnly = true
  const audit = await open(disk)
  await assert.rejects(audit.append(entry(3)), { errnoName: 'EROFS' })
  assert.deepEqual(numbers(await all(audit)), [1, 2])
  disk.readOnly = false
  await audit.append(entry(3))
  assert.deepEqual(numbers(await all(audit)), [1, 2, 3])
  assert.equal((await audit.verify()).intact, true)
  await audit.close()
})

test('where it cannot be begun it is opened all the same, and begun with the first record that can be', async () => {
  for (const fault of ['full', 'read-only'] as const) {
    const disk = new MemoryDisk()
    if (fault === 'full') disk.free = 0
    else disk.readOnly = true
    const audit = await Audit.open(DIRECTORY, { files: disk })
    assert.match(audit.fault!, /ENOSPC|EROFS/)
    await assert.rejects(audit.append({ event: 'one', facts: {} }), /ENOSPC|EROFS/)
    assert.deepEqual((await audit.query()).records, [])
    disk.free = Infinity
    disk.readOnly = false
    await audit.append({ event: 'two', facts: {} })
    assert.equal(audit.fault, undefined)
    const { records } = await audit.query()
    assert.deepEqual(
      records.map(({ event }) => event),
      ['audit.begun', 'two'],
    )
    assert.equal((await audit.verify()).intact, true)
    await audit.close()
    assert.equal(disk.opened.size, 0)
  }
})

test('a disk that fails otherwise keeps the audit from being opened', async () => {
  const disk = new MemoryDisk()
  disk.before = operation => {
    if (operation === 'write') throw errnoError('EIO', 'write')
  }
  await assert.rejects(Audit.open(DIRECTORY, { files: disk }), /EIO/)
})
