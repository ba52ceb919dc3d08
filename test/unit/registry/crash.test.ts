/**
 * The registry on a disk that stops or fails at every single operation. What is read back is what
 * was acknowledged, and perhaps what was under way, in the order in which it was put.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { Change } from '../../../src/registry/change.ts'
import { policyDigest } from '../../../src/registry/loan-record.ts'
import { Registry, type RegistryOptions } from '../../../src/registry/registry.ts'
import { AT, answer, BOOT, DIRECTORY, loan, Model, policyJson, request, shown } from './examples.ts'
import { errnoError, LEFTOVERS, MemoryDisk } from './memory-disk.ts'

const FILE = `${DIRECTORY}/registry.jsonl`
const KEYS = [[1000, 'a']] as const

function open(files: MemoryDisk, options: Partial<RegistryOptions> = {}): Promise<Registry> {
  return Registry.open(DIRECTORY, {
    boot: BOOT,
    files,
    garbageLines: 6,
    now: () => Date.parse(AT),
    ...options,
  })
}

const other = policyJson('other')

/** Batches: what stands together is put at once. Enough to have the file written anew twice. */
const STEPS: readonly (readonly Change[])[] = [
  [{ loan: loan(1) }],
  [
    { loan: loan(1, { state: 'live' }), answer: answer(1000, 'a') },
    { loan: loan(2) },
    { request: request(1) },
  ],
  [{ loan: loan(2, { state: 'live', policy: other, policyDigest: policyDigest(other) }) }],
  [{ loan: loan(1, { state: 'ending' }) }, { loan: loan(1, { state: 'ended' }) }],
  ...Array.from({ length: 9 }, (_, i) => [
    { loan: loan(2, { state: 'live', comment: `${i}`, policy: other, policyDigest: policyDigest(other) }) },
    { loan: loan(3, { comment: `${i}` }) },
  ]),
  [{ request: request(1, { state: 'approved', decided: { at: AT, by: 0 } }) }],
]

interface Run {
  /** In the order in which they were put. */
  readonly put: readonly Change[]
  readonly outcomes: readonly ('acknowledged' | 'refused' | 'under way')[]
  readonly registry: Registry | undefined
}

async function run(disk: MemoryDisk): Promise<Run> {
  const put: Change[] = []
  const outcomes: ('acknowledged' | 'refused' | 'under way')[] = []
  const registry = await open(disk).catch(() => undefined)
  if (registry === undefined) return { put, outcomes, registry }
  for (const changes of STEPS)
    await Promise.all(
      changes.map(change => {
        const at = put.push(change) - 1
        outcomes.push('under way')
        return registry.put(change).then(
          () => {
            outcomes[at] = 'acknowledged'
          },
          () => {
            outcomes[at] = 'refused'
          },
        )
      }),
    )
  return { put, outcomes, registry }
}

/** How many operations a run has that nothing disturbs. */
async function operations(): Promise<{ total: number; names: string[] }> {
  const disk = new MemoryDisk()
  const names: string[] = []
  disk.before = operation => {
    names.push(operation)
  }
  const { registry, outcomes } = await run(disk)
  await registry!.close()
  assert.ok(outcomes.every(outcome => outcome === 'acknowledged'))
  return { total: disk.operations, names }
}

/**
 * Sequences that may be there: all that was acknowledged, in order, and a beginning of the rest.
 */
function mayBeThere({ put, outcomes }: Run): unknown[] {
  const acknowledged = outcomes.lastIndexOf('acknowledged') + 1
  return Array.from({ length: put.length - acknowledged + 1 }, (_, more) =>
    shown(new Model(put.slice(0, acknowledged + more)), KEYS),
  )
}

function assertOneOf(actual: unknown, may: readonly unknown[], message: string): void {
  for (const one of may)
    try {
      assert.deepEqual(actual, one)
      return
    } catch {}
  assert.deepEqual(actual, may[0], message)
}

test('the run has the operations that it is to be disturbed at', async () => {
  const { total, names } = await operations()
  assert.ok(total > 50, `${total}`)
  for (const name of ['mkdir', 'create', 'write', 'datasync', 'rename', 'sync'])
    assert.ok(names.includes(name), name)
  assert.ok(names.filter(name => name === 'rename').length >= 3, 'written anew at least twice')
})

test('stopped at each operation, whatever is left of what was not synced, nothing acknowledged is lost', async () => {
  const { total } = await operations()
  let checked = 0
  for (let at = 0; at < total; at++) {
    const disk = new MemoryDisk()
    disk.before = (_, __, number) => {
      if (number === at) disk.stop()
    }
    const done = await run(disk)
    const may = mayBeThere(done)
    for (const left of LEFTOVERS)
      for (const names of ['old', 'new'] as const) {
        const where = `stopped at ${at}, of the unsynced ${left}, ${names} names`
        const next = disk.crashed(left, names)
        const registry = await open(next).catch(error => assert.fail(`${where}: ${error}`))
        assertOneOf(shown(registry, KEYS), may, where)
        // It goes on, and what was cut off does not come back.
        await registry.put({ loan: loan(900) })
        const before = shown(registry, KEYS)
        await registry.close()
        const again = await open(next.crashed('none', 'old'))
        assert.deepEqual(shown(again, KEYS), before, where)
        await again.close()
        checked++
      }
  }
  assert.equal(checked, total * LEFTOVERS.length * 2)
})

test('stopped again while the first crash is being cleaned up', async () => {
  for (let first = 4; first < 30; first++) {
    const disk = new MemoryDisk()
    disk.before = (_, __, number) => {
      if (number === first) disk.stop()
    }
    const may = mayBeThere(await run(disk))
    for (let second = 0; second < 4; second++) {
      const next = disk.crashed('zeros', 'new')
      next.before = (_, __, number) => {
        if (number === second) next.stop()
      }
      await open(next).then(
        registry => registry.put({ loan: loan(900) }).catch(() => {}),
        () => {},
      )
      const third = await open(next.crashed('half', 'new'))
      const found = shown(
        { ...view(third), loans: () => [...third.loans()].filter(({ id }) => id !== 900) },
        KEYS,
      )
      assertOneOf(found, may, `stopped at ${first}, then at ${second}`)
      await third.close()
    }
  }
})

function view(registry: Registry) {
  return {
    requests: () => registry.requests(),
    answer: (uid: number, key: string) => registry.answer(uid, key),
  }
}

test('each operation fails once: what was refused is not there, in memory and in the file, and it goes on', async () => {
  const { total } = await operations()
  let refusals = 0
  for (const code of ['ENOSPC', 'EIO'])
    for (let at = 0; at < total; at++) {
      const disk = new MemoryDisk()
      disk.before = (operation, _, number) => {
        if (number === at) throw errnoError(code, operation)
      }
      const done = await run(disk)
      disk.before = () => {}
      const where = `${code} at ${at}`
      if (done.registry === undefined) {
        // The first start failed, and says so; the next one is fine.
        assert.ok(at < 10, where)
        const registry = await open(disk)
        assert.deepEqual(shown(registry), { loans: [], requests: [], answers: [] })
        await registry.close()
        continue
      }
      refusals += done.outcomes.filter(outcome => outcome === 'refused').length
      const kept = done.put.filter((_, i) => done.outcomes[i] === 'acknowledged')
      const expected = shown(new Model(kept), KEYS)
      assert.deepEqual(shown(done.registry, KEYS), expected, where)
      await done.registry.close()
      assert.equal(disk.opened.size, 0, where)
      for (const left of ['none', 'all'] as const) {
        const again = await open(disk.crashed(left, 'new'))
        assert.deepEqual(shown(again, KEYS), expected, `${where}, ${left}`)
        await again.close()
      }
    }
  assert.ok(refusals > 20, `only ${refusals} writes were refused`)
})

test('a full disk refuses what does not fit, and takes it when there is room', async () => {
  for (let room = 0; room < 3000; room += 61) {
    const disk = new MemoryDisk()
    disk.maxWrite = 100
    const registry = await open(disk)
    disk.free = room
    const kept: Change[] = []
    let refused = 0
    for (let id = 1; id <= 8; id++) {
      const change = { loan: loan(id) }
      await registry.put(change).then(
        () => kept.push(change),
        (error: { code: string; errnoName: string; hint: string }) => {
          assert.equal(error.code, 'BPFTOKEN_SYSCALL')
          assert.equal(error.errnoName, 'ENOSPC')
          assert.match(error.hint, /Free space/)
          refused++
          assert.match(registry.fault ?? '', /ENOSPC/)
        },
      )
    }
    assert.ok(refused > 0)
    disk.free = Infinity
    await registry.put({ loan: loan(9) })
    assert.equal(registry.fault, undefined)
    kept.push({ loan: loan(9) })
    assert.deepEqual(shown(registry), shown(new Model(kept)))
    await registry.close()
    const again = await open(disk.crashed('none', 'old'))
    assert.deepEqual(shown(again), shown(new Model(kept)))
    await again.close()
  }
})

test('read-only from the start: what is there is known, nothing can be put; writable again, it can', async () => {
  const disk = new MemoryDisk()
  const first = await open(disk)
  await first.put({ loan: loan(1) })
  await first.close()
  // With an unfinished line, which cannot be cut off now.
  disk.setContent(FILE, Buffer.concat([disk.content(FILE), Buffer.from('["01234567",3,3,{"lo')]))
  disk.readOnly = true
  const registry = await open(disk)
  assert.deepEqual(registry.torn?.bytes, 20)
  assert.equal(registry.loan(1)?.state, 'making')
  await assert.rejects(registry.put({ loan: loan(2) }), { code: 'BPFTOKEN_SYSCALL', errnoName: 'EROFS' })
  assert.equal(registry.loan(2), undefined)
  disk.readOnly = false
  await registry.put({ loan: loan(2) })
  await registry.close()
  const again = await open(disk)
  assert.equal(again.torn, undefined)
  assert.deepEqual(
    [...again.loans()].map(({ id }) => id),
    [1, 2],
  )
  await again.close()
})

test('read-only meanwhile: the same', async () => {
  const disk = new MemoryDisk()
  const registry = await open(disk)
  await registry.put({ loan: loan(1) })
  disk.readOnly = true
  await assert.rejects(registry.put({ loan: loan(2) }), { errnoName: 'EROFS' })
  disk.readOnly = false
  await registry.put({ loan: loan(3) })
  assert.deepEqual(
    [...registry.loans()].map(({ id }) => id),
    [1, 3],
  )
  await registry.close()
  const again = await open(disk)
  assert.deepEqual(
    [...again.loans()].map(({ id }) => id),
    [1, 3],
  )
  await again.close()
})

/** A file of several batches of one to four lines, and the states after each of its lines. */
async function sample(): Promise<{ bytes: Buffer; states: unknown[]; ends: number[] }> {
  const disk = new MemoryDisk()
  const registry = await open(disk, { garbageLines: 1e9 })
  const changes: Change[] = []
  for (const step of STEPS.slice(0, 6)) {
    await Promise.all(step.map(change => registry.put(change)))
    changes.push(...step)
  }
  await registry.close()
  const bytes = disk.content(FILE)
  const ends = [...bytes.entries()].filter(([, byte]) => byte === 0x0a).map(([at]) => at + 1)
  assert.equal(ends.length, changes.length + 1)
  const states = [0, ...changes.keys()].map((_, i) => shown(new Model(changes.slice(0, i)), KEYS))
  return { bytes, states: [...states.slice(0, changes.length), shown(new Model(changes), KEYS)], ends }
}

async function read(bytes: Uint8Array): Promise<{ state: unknown; torn: unknown } | string> {
  const disk = new MemoryDisk()
  await disk.makeDirectory(DIRECTORY)
  disk.setContent(FILE, bytes)
  try {
    const registry = await open(disk)
    const found = { state: shown(registry, KEYS), torn: registry.torn }
    await registry.close()
    return found
  } catch (error) {
    const { code, reason, context } = error as { code: string; reason: string; context: { line: number } }
    assert.equal(code, 'BPFTOKEN_FORMAT')
    assert.equal(reason, 'state-damaged')
    assert.ok(context.line >= 1)
    assert.deepEqual(disk.content(FILE), bytes, 'what is damaged stays as it is')
    return 'refused'
  }
}

test('truncated at every length: all whole lines are there, and the rest is cut off and told', async () => {
  const { bytes, states, ends } = await sample()
  for (let length = 0; length <= bytes.length; length++) {
    const found = await read(bytes.subarray(0, length))
    const whole = ends.filter(end => end <= length).length
    if (whole === 0) {
      assert.equal(found, 'refused', `${length} bytes`)
      continue
    }
    const rest = length - ends[whole - 1]!
    assert.deepEqual(
      found,
      {
        state: states[whole - 1],
        torn: rest === 0 ? undefined : { offset: ends[whole - 1], bytes: rest },
      },
      `${length} bytes`,
    )
  }
})

test('a flipped byte anywhere is refused, unless the last batch has it: then that is cut off and told', async () => {
  const { bytes, states, ends } = await sample()
  /** The last batch has one line more than one end. */
  const lastBatch = ends.at(-3)!
  let refused = 0
  let cut = 0
  await fc.assert(
    fc.asyncProperty(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 }), async (at, flip) => {
      const changed = Buffer.from(bytes)
      changed[at]! ^= flip
      const found = await read(changed)
      if (at < lastBatch) {
        assert.equal(found, 'refused', `byte ${at} ^ ${flip}`)
        refused++
        return
      }
      assert.ok(typeof found === 'object' && found.torn !== undefined, `byte ${at} ^ ${flip} was not noticed`)
      const line = ends.findIndex(end => at < end)
      assert.deepEqual(found.state, states[line - 1])
      cut++
    }),
    {
      numRuns: 3000,
      examples: [
        [0, 1],
        [bytes.length - 1, 1],
        [lastBatch - 1, 1],
        [lastBatch, 1],
      ],
    },
  )
  assert.ok(refused > 100 && cut > 100, `${refused} refused, ${cut} cut`)
})

test('lines that are missing, doubled or in another order are refused', async () => {
  const { bytes, ends } = await sample()
  const lines = ends.map((end, i) => bytes.subarray(ends[i - 1] ?? 0, end))
  for (let i = 0; i < lines.length - 2; i++) {
    assert.equal(await read(Buffer.concat(lines.toSpliced(i, 1))), 'refused', `without line ${i + 1}`)
    assert.equal(
      await read(Buffer.concat(lines.toSpliced(i, 0, lines[i]!))),
      'refused',
      `line ${i + 1} twice`,
    )
  }
  assert.equal(typeof (await read(bytes)), 'object')
})

test('any sequence of puts, failures, compactions and restarts agrees with a map', async () => {
  const states = ['making', 'live', 'ending', 'ended'] as const
  const put = fc.record({
    do: fc.constant('put' as const),
    id: fc.integer({ min: 1, max: 6 }),
    state: fc.constantFrom(...states),
    comment: fc.string({ maxLength: 20, unit: 'binary' }),
    policy: fc.constantFrom('a', 'b', 'c'),
  })
  const command = fc.oneof(
    { weight: 10, arbitrary: put },
    {
      weight: 2,
      arbitrary: fc.record({ do: fc.constant('puts' as const), all: fc.array(put, { maxLength: 8 }) }),
    },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('compact' as const) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('fail' as const), at: fc.nat(6) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('restart' as const) }) },
    {
      weight: 1,
      arbitrary: fc.record({ do: fc.constant('crash' as const), left: fc.constantFrom(...LEFTOVERS) }),
    },
  )
  type Put = { id: number; state: (typeof states)[number]; comment: string; policy: string }
  await fc.assert(
    fc.asyncProperty(fc.array(command, { maxLength: 40 }), async commands => {
      let disk = new MemoryDisk()
      let registry = await open(disk)
      // What fails as a batch may have been refused after another that failed then.
      let failing = false
      let model = new Map<number, ReturnType<typeof loan>>()
      const change = ({ id, state, comment, policy }: Put) => {
        const terms = policyJson(policy)
        return loan(id, { state, comment, policy: terms, policyDigest: policyDigest(terms) })
      }
      const mayBe = (next: ReturnType<typeof loan>): boolean => {
        const before = model.get(next.id)?.state
        return (
          before === undefined || (before !== 'ended' && states.indexOf(next.state) >= states.indexOf(before))
        )
      }
      const outcome = (one: Put): Promise<string> =>
        registry.put({ loan: change(one) }).then(
          () => 'put',
          (error: { code: string }) => error.code,
        )
      /** In the order in which they were put. */
      const apply = (one: Put, came: string): void => {
        const next = change(one)
        if (came === 'put') {
          assert.ok(mayBe(next))
          model.set(next.id, next)
        } else if (came === 'BPFTOKEN_CONFLICT') assert.ok(!mayBe(next) || failing)
        else assert.equal(came, 'BPFTOKEN_SYSCALL')
      }
      for (const one of commands)
        switch (one.do) {
          case 'put':
            apply(one, await outcome(one))
            break
          case 'puts':
            for (const [i, came] of (await Promise.all(one.all.map(outcome))).entries())
              apply(one.all[i]!, came)
            break
          case 'compact':
            await registry.compact().catch(() => {})
            break
          case 'fail': {
            const at = disk.operations + one.at
            failing = true
            disk.before = (operation, _, number) => {
              if (number === at) throw errnoError('ENOSPC', operation)
            }
            break
          }
          case 'restart':
            disk.before = () => {}
            failing = false
            await registry.close()
            assert.equal(disk.opened.size, 0)
            registry = await open(disk)
            break
          case 'crash':
            // Nothing is under way, so nothing may be lost or come back.
            disk = disk.crashed(one.left, 'new')
            registry = await open(disk)
            break
        }
      model = new Map([...model].sort(([a], [b]) => a - b))
      assert.deepEqual(
        [...registry.loans()].sort((a, b) => a.id - b.id),
        [...model.values()],
      )
      disk.before = () => {}
      await registry.close()
    }),
    { numRuns: 300 },
  )
})
