/** The records of the daemon on real file systems: full, read-only, and killed while writing. */
import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { Audit } from '../../../src/registry/audit.ts'
import { EventStore } from '../../../src/registry/event-store.ts'
import { Registry } from '../../../src/registry/registry.ts'
import { HANG_MS } from '../../helpers/eventually.ts'
import { Scratch } from '../../helpers/scratch.ts'
import { BOOT, loan } from '../../unit/registry/examples.ts'

function open(directory: string): Promise<Registry> {
  return Registry.open(directory, { boot: BOOT })
}

function ids(registry: Registry): number[] {
  return [...registry.loans()].map(({ id }) => id)
}

/** A tmpfs of its own, gone with the test. */
class SmallDisk implements Disposable {
  readonly #scratch = new Scratch()
  readonly path = this.#scratch.path
  readonly state = join(this.path, 'state')

  constructor(bytes: number) {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${bytes},mode=0700`, 'bpftoken-test', this.path])
  }

  remount(how: 'ro' | 'rw'): void {
    execFileSync('mount', ['-o', `remount,${how}`, this.path])
  }

  [Symbol.dispose](): void {
    execFileSync('umount', [this.path])
    this.#scratch[Symbol.dispose]()
  }
}

function descriptors(): string[] {
  return readdirSync('/proc/self/fd')
}

test('a file system that is full refuses, and memory and file agree; with room it goes on', async () => {
  using disk = new SmallDisk(64 * 1024)
  const before = descriptors().length
  const registry = await open(disk.state)
  assert.equal(statSync(disk.state).mode & 0o7777, 0o700)
  assert.equal(statSync(join(disk.state, 'registry.jsonl')).mode & 0o7777, 0o600)
  const audit = await Audit.open(disk.state)
  const kept: number[] = []
  let refused = 0
  for (let id = 1; refused < 5; id++) {
    assert.ok(id < 1000)
    await registry.put({ loan: loan(id, { comment: 'x'.repeat(1000) }) }).then(
      () => kept.push(id),
      (error: { code: string; errnoName: string }) => {
        assert.deepEqual([error.code, error.errnoName], ['BPFTOKEN_SYSCALL', 'ENOSPC'])
        refused++
      },
    )
  }
  assert.match(registry.fault ?? '', /ENOSPC/)
  await assert.rejects(audit.append({ event: 'x', facts: { text: 'x'.repeat(20_000) } }), {
    errnoName: 'ENOSPC',
  })
  await assert.rejects(registry.compact(), { errnoName: 'ENOSPC' })
  assert.ok(kept.length > 10)
  assert.deepEqual(ids(registry), kept)
  const text = readFileSync(join(disk.state, 'registry.jsonl'), 'utf8')
  assert.ok(text.endsWith(']\n'), 'no part of a line')
  execFileSync('mount', ['-o', 'remount,size=1M', disk.path])
  await registry.put({ loan: loan(5000) })
  await audit.append({ event: 'x', facts: { text: 'x'.repeat(20_000) } })
  assert.equal(registry.fault, undefined)
  await registry.compact()
  await registry.close()
  await audit.close()
  const again = await open(disk.state)
  assert.deepEqual(
    ids(again).sort((a, b) => a - b),
    [...kept, 5000],
  )
  await again.close()
  const verified = await Audit.open(disk.state)
  assert.equal((await verified.verify()).intact, true)
  await verified.close()
  assert.equal(descriptors().length, before)
})

test('a file system that is read-only: all is known, nothing is put; writable again, it is', async () => {
  using disk = new SmallDisk(1024 * 1024)
  const before = descriptors().length
  {
    const registry = await open(disk.state)
    await registry.put({ loan: loan(1) })
    const audit = await Audit.open(disk.state)
    await audit.append({ event: 'lend.did', facts: {} })
    await audit.close()
    const events = await EventStore.open(disk.state)
    await events.close()
    await registry.close()
  }
  disk.remount('ro')
  const registry = await open(disk.state)
  const audit = await Audit.open(disk.state)
  await assert.rejects(registry.put({ loan: loan(2) }), { code: 'BPFTOKEN_SYSCALL', errnoName: 'EROFS' })
  await assert.rejects(audit.append({ event: 'x', facts: {} }), { errnoName: 'EROFS' })
  assert.deepEqual(ids(registry), [1])
  assert.equal((await audit.verify()).intact, true)
  await assert.rejects(open(disk.state), { reason: 'state-in-use' })
  disk.remount('rw')
  await registry.put({ loan: loan(2) })
  await audit.append({ event: 'x', facts: {} })
  await audit.close()
  await registry.close()
  const again = await open(disk.state)
  assert.deepEqual(ids(again), [1, 2])
  await again.close()
  // Nothing there yet, and no way to make it: that is a failure to start.
  disk.remount('ro')
  await assert.rejects(open(join(disk.path, 'other')), { errnoName: 'EROFS' })
  disk.remount('rw')
  assert.equal(descriptors().length, before)
})

test('a directory that others may enter is refused; made its own, it is taken', async () => {
  using scratch = new Scratch()
  const state = join(scratch.path, 'state')
  mkdirSync(state, { mode: 0o755 })
  chmodSync(state, 0o755)
  await assert.rejects(open(state), { code: 'BPFTOKEN_DENIED', reason: 'state-open-to-others' })
  chmodSync(state, 0o700)
  const registry = await open(state)
  await registry.close()
})

function start(directory: string): ChildProcess {
  const script = join(__dirname, 'appender.ts')
  return spawn(process.execPath, ['--import', 'tsx', script, directory], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
}

test('killed at any moment: all that was told is there, the chain is intact, and the lock is free', async t => {
  using scratch = new Scratch()
  const state = join(scratch.path, 'state')
  const states = ['making', 'live', 'ending', 'ended']
  let told = 0
  for (let round = 0; round < 6; round++) {
    const child = start(state)
    const killer = setTimeout(() => child.kill('SIGKILL'), HANG_MS)
    const exited = once(child, 'exit')
    const loans = new Map<number, string>()
    let audited = 0
    let lines = 0
    const enough = 50 + round * 97
    for await (const line of createInterface({ input: child.stdout! })) {
      if (line === 'ready')
        await assert.rejects(open(state), { reason: 'state-in-use' }, 'two daemons for one directory')
      const [what, value] = line.split(' ')
      if (what === 'audit') audited = Math.max(audited, Number(value))
      else if (value !== undefined) loans.set(Number(what), value)
      if (++lines === enough) child.kill('SIGKILL')
    }
    await exited
    clearTimeout(killer)
    assert.ok(lines >= enough, `${lines} lines`)
    told += lines
    const registry = await Registry.open(state, { boot: BOOT, bounds: { endedLoans: 10 } })
    const highest = Math.max(...loans.keys())
    for (const [id, least] of loans) {
      const found = registry.loan(id)?.state
      // Of those that ended only the last ten are kept.
      if (found === undefined) assert.equal(id % 3, 0, `loan-${id} is lost`)
      else
        assert.ok(states.indexOf(found) >= states.indexOf(least), `loan-${id}: ${found}, ${least} was told`)
    }
    assert.ok(registry.nextLoanId() > highest)
    await registry.close()
    const audit = await Audit.open(state)
    assert.ok(audit.head.seq >= audited)
    const verdict = await audit.verify()
    assert.equal(verdict.intact, true, JSON.stringify(verdict))
    await audit.close()
  }
  t.diagnostic(`${told} acknowledged over six kills`)
})
