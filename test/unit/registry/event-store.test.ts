/** The guard's events: folding, bounds, questions, followers, and what faults leave. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { EventStore, type EventStoreOptions } from '../../../src/registry/event-store.ts'
import type { GuardEventFacts, KeptEvent } from '../../../src/registry/guard-event.ts'
import { AT, DIRECTORY } from './examples.ts'
import { errnoError, LEFTOVERS, MemoryDisk } from './memory-disk.ts'

const FILE = `${DIRECTORY}/events.jsonl`
const START = Date.parse(AT)

function open(files: MemoryDisk, options: Partial<EventStoreOptions> = {}): Promise<EventStore> {
  return EventStore.open(DIRECTORY, { files, writeMs: 0, ...options })
}

async function emptyDisk(): Promise<MemoryDisk> {
  const disk = new MemoryDisk()
  await disk.makeDirectory(DIRECTORY)
  return disk
}

function facts(changes: Partial<GuardEventFacts> = {}): GuardEventFacts {
  return {
    verdict: 'refuse',
    point: 'prog_load',
    reason: 'limit',
    delegation: 7,
    uid: 1000,
    pid: 4711,
    task: 'loader',
    cmd: 'prog_load',
    type: 'xdp',
    name: 'count',
    cgroup: '18446744073709551615',
    ...changes,
  }
}

/** Milliseconds after the start, by both clocks. */
function when(ms: number, clockJump = 0) {
  return { at: START + ms + clockJump, sinceBootMs: 1e6 + ms }
}

function seqs(events: readonly KeptEvent[]): number[] {
  return events.map(({ seq }) => seq)
}

test('alike events within a minute of the first are one, however the clock jumps; others are others', async () => {
  const store = await open(await emptyDisk())
  store.add(facts(), when(0))
  store.add(facts({ task: 'other', cmd: 'x', cgroup: '1' }), when(59_999, -1e9))
  assert.deepEqual(store.query().events, [
    { ...facts(), seq: 1, first: AT, last: new Date(START + 59_999 - 1e9).toISOString(), count: 2 },
  ])
  store.add(facts(), when(60_000))
  const differences: Partial<GuardEventFacts>[] = [
    { delegation: 8 },
    { delegation: undefined },
    { point: 'map_create' },
    { verdict: 'allow' },
    { reason: 'type' },
    { uid: 1001 },
    { pid: 1 },
    { type: undefined },
    { name: '' },
  ]
  for (const difference of differences) store.add(facts(difference), when(60_001))
  assert.deepEqual(
    store.query().events.map(({ count }) => count),
    [2, ...Array(differences.length + 1).fill(1)],
  )
  store.add(facts(), when(60_002))
  assert.equal(store.query().events[1]!.count, 2, 'the second minute goes on')
  await store.close()
})

test('questions by each field, by pages, and without consuming', async () => {
  const disk = await emptyDisk()
  const store = await open(disk)
  for (let i = 0; i < 20; i++)
    store.add(
      facts({ delegation: (i % 3) + 1, uid: i % 2, reason: i < 10 ? 'limit' : 'type', name: `${i}` }),
      when(i * 1000),
    )
  const check = (asked: EventStore): void => {
    assert.equal(asked.query().events.length, 20)
    assert.deepEqual(seqs(asked.query({ after: 17 }).events), [18, 19, 20])
    assert.deepEqual(seqs(asked.query({ delegation: 2, uid: 1 }).events), [2, 8, 14, 20])
    assert.deepEqual(seqs(asked.query({ reason: 'type', uid: 0 }).events), [11, 13, 15, 17, 19])
    assert.deepEqual(seqs(asked.query({ since: START + 18_000 }).events), [19, 20])
    let after = 0
    const paged: number[] = []
    for (;;) {
      const page = asked.query({ after, limit: 6, uid: 1 })
      if (page.events.length === 0) break
      paged.push(...seqs(page.events))
      after = page.next
    }
    assert.deepEqual(paged, [2, 4, 6, 8, 10, 12, 14, 16, 18, 20])
  }
  check(store)
  await store.close()
  const again = await open(disk)
  check(again)
  assert.equal(again.add(facts(), when(0)).seq, 21)
  await again.close()
})

test('text of programs is cut, and escaped in the file', async () => {
  const disk = await emptyDisk()
  const store = await open(disk)
  store.add(facts({ name: `\u001b[2J\u202e\n${'x'.repeat(1000)}` }), when(0))
  await store.close()
  assert.match(disk.content(FILE).toString('latin1'), /^[\x20-\x7e\n]*$/)
  const again = await open(disk)
  const [event] = again.query().events
  assert.equal(event!.name.length, 256)
  assert.ok(event!.name.startsWith('\u001b[2J\u202e\n'))
  await again.close()
})

test('files and memory are bounded: the oldest go, and memory has what the files have', async () => {
  const disk = await emptyDisk()
  const store = await open(disk, { maxBytes: 20_000 })
  for (let i = 0; i < 2000; i++) {
    store.add(facts({ name: `${i}` }), when(i))
    if (i % 10 === 9) await store.flush()
  }
  assert.deepEqual(disk.names(), ['events.jsonl', 'events.old.jsonl'])
  for (const name of disk.names()) assert.ok(disk.content(`${DIRECTORY}/${name}`).length < 25_000, `${name}`)
  const { events } = store.query({ limit: 1e6 })
  assert.ok(events.length > 60 && events.length < 300, `${events.length}`)
  assert.equal(events.at(-1)!.seq, 2000)
  assert.deepEqual(
    seqs(events),
    events.map((_, i) => 2000 - events.length + 1 + i),
    'without a gap',
  )
  await store.close()
  const again = await open(disk, { maxBytes: 20_000 })
  assert.deepEqual(again.query({ limit: 1e6 }).events, events)
  await again.close()
  assert.equal(disk.opened.size, 0)

  const few = await open(await emptyDisk(), { maxEvents: 5 })
  for (let i = 0; i < 100; i++) few.add(facts({ name: `${i}` }), when(i))
  assert.deepEqual(seqs(few.query().events), [96, 97, 98, 99, 100])
  await few.close()
})

test('who follows gets what comes, also the counts; who is slow loses the oldest and is told how many', async () => {
  const store = await open(await emptyDisk())
  store.add(facts({ name: 'before' }), when(0))
  const stop = new AbortController()
  const quick: [string, number, number][] = []
  const reading = (async () => {
    for await (const { item, lost } of store.follow({ after: 0, uid: 1000 }, stop.signal))
      quick.push([item.name, item.count, lost])
  })()
  const slow = store.follow({}, stop.signal)
  const first = slow.next()
  await new Promise(resolve => setImmediate(resolve))
  store.add(facts({ name: 'a' }), when(1))
  assert.equal((await first).value?.item.name, 'a')
  store.add(facts({ name: 'a' }), when(2))
  store.add(facts({ name: 'b', uid: 1 }), when(3))
  await new Promise(resolve => setImmediate(resolve))
  assert.deepEqual(quick, [
    ['before', 1, 0],
    ['a', 1, 0],
    ['a', 2, 0],
  ])
  for (let i = 0; i < 1500; i++) store.add(facts({ name: `${i}`, uid: 2 }), when(i))
  const { value } = await slow.next()
  assert.deepEqual([value?.item.name, value?.lost], ['500', 502])
  assert.equal((await slow.next()).value?.lost, 0)
  stop.abort()
  await reading
  let rest = 0
  for await (const _ of slow) rest++
  assert.equal(rest, 998, 'what waited is still given')
  await store.close()
})

test('stopped or failing at each operation: it opens, has no event that there was not, and goes on', async () => {
  const scenario = async (disk: MemoryDisk): Promise<void> => {
    const store = await open(disk, { maxBytes: 1500 }).catch(() => undefined)
    if (store === undefined) return
    for (let i = 1; i <= 24; i++) {
      store.add(facts({ name: `${i}` }), when(i))
      if (i % 3 === 0) await store.flush()
    }
    await store.close().catch(() => {})
  }
  const calm = await emptyDisk()
  await scenario(calm)
  assert.ok(calm.operations > 20)
  for (let at = 1; at < calm.operations; at++)
    for (const fault of ['stop', 'ENOSPC'] as const) {
      const disk = await emptyDisk()
      disk.before = (operation, _, number) => {
        if (number !== at) return
        if (fault === 'stop') disk.stop()
        throw errnoError(fault, operation)
      }
      await scenario(disk)
      for (const left of LEFTOVERS) {
        const next = disk.crashed(left, 'new')
        const store = await open(next)
        const { events } = store.query()
        for (const { name, seq, count } of events) {
          assert.equal(String(seq), name)
          assert.equal(count, 1)
        }
        assert.deepEqual(
          seqs(events),
          seqs(events).toSorted((a, b) => a - b),
        )
        store.add(facts({ name: 'after' }), when(1e9))
        await store.close()
        const again = await open(next)
        assert.equal(again.query().events.length, events.length + 1, `${fault} at ${at}, ${left}`)
        await again.close()
      }
    }
})

test('a full disk is told, loses nothing that memory holds, and is caught up with', async () => {
  const disk = await emptyDisk()
  const store = await open(disk)
  disk.free = 100
  store.add(facts(), when(0))
  await store.flush()
  assert.match(store.fault ?? '', /ENOSPC/)
  assert.equal(store.query().events.length, 1)
  disk.free = Infinity
  await store.flush()
  assert.equal(store.fault, undefined)
  await store.close()
  const again = await open(disk)
  assert.equal(again.query().events.length, 1)
  await again.close()
})

for (const errno of ['ENOSPC', 'EROFS'] as const)
  test(`${errno}: a store without its file opens, keeps what comes, and is begun when it can be`, async () => {
    const disk = await emptyDisk()
    const refuse = (yes: boolean): void => {
      disk.before = yes
        ? operation => {
            throw errnoError(errno, operation)
          }
        : () => {}
    }
    refuse(true)
    const store = await open(disk)
    assert.match(store.fault ?? '', new RegExp(errno))
    store.add(facts({ name: 'first' }), when(0))
    await store.flush()
    assert.match(store.fault ?? '', new RegExp(errno))
    assert.equal(store.query().events.length, 1)
    // Closed and opened without having been begun.
    await store.close()
    const second = await open(disk)
    assert.deepEqual(second.query().events, [])
    second.add(facts({ name: 'second' }), when(1))
    refuse(false)
    await second.flush()
    assert.equal(second.fault, undefined)
    await second.close()
    const third = await open(disk)
    assert.deepEqual(
      third.query().events.map(({ name }) => name),
      ['second'],
    )
    await third.close()
    assert.equal(disk.opened.size, 0)
  })

/** A disk with the events 1 to 10, each of a line of its own. */
async function diskOfTen() {
  const disk = await emptyDisk()
  const store = await open(disk)
  for (let i = 1; i <= 10; i++) {
    store.add(facts({ name: `${i}` }), when(i))
    await store.flush()
  }
  await store.close()
  return disk
}

test('a damaged file that cannot be written anew is read, and loses nothing when it can be', async () => {
  const disk = await diskOfTen()
  const bytes = Buffer.from(disk.content(FILE))
  bytes[Math.floor(bytes.length / 2)]! ^= 1
  disk.setContent(FILE, bytes)
  disk.free = 0
  const damaged = await open(disk)
  const names = damaged.query().events.map(({ name }) => name)
  assert.deepEqual([names.length, damaged.damaged], [9, 1])
  assert.match(damaged.fault ?? '', /ENOSPC/)
  disk.free = Infinity
  await damaged.flush()
  await damaged.close()
  const whole = await open(disk)
  assert.deepEqual(
    [whole.query().events.map(({ name }) => name), whole.damaged, whole.fault],
    [names, 0, undefined],
  )
  await whole.close()
  assert.equal(disk.opened.size, 0)
})

test('a disk that fails otherwise keeps the store from being opened', async () => {
  const disk = await emptyDisk()
  disk.before = operation => {
    throw errnoError('EIO', operation)
  }
  await assert.rejects(open(disk), { errnoName: 'EIO' })
  assert.equal(disk.opened.size, 0)
})

test('a flipped byte loses at most the line it is in, and that is counted', async () => {
  const disk = await diskOfTen()
  const bytes = disk.content(FILE)
  await fc.assert(
    fc.asyncProperty(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 }), async (at, flip) => {
      const next = await emptyDisk()
      const changed = Buffer.from(bytes)
      changed[at]! ^= flip
      next.setContent(FILE, changed)
      const again = await open(next)
      const { events } = again.query()
      assert.ok(again.damaged > 0, `byte ${at} ^ ${flip}`)
      // An end of line that is gone takes two lines along.
      assert.ok(events.length >= 8)
      for (const { name, seq } of events) assert.equal(String(seq), name)
      await again.close()
      assert.equal(next.opened.size, 0)
    }),
    { numRuns: 1000 },
  )
})
