/**
 * What lies where the guard is pinned, and who has put it there: only maps of the guard that runs
 * become those of the next.
 *
 *   node --import tsx scripts/vm/vm.ts --kernel 6.12 --tests test/vm/guard-pins.test.ts
 */
import assert from 'node:assert/strict'
import { existsSync, lstatSync, mkdirSync, readdirSync, unlinkSync } from 'node:fs'
import { afterEach, describe, test } from 'node:test'
import { BpfMap, MAP_FLAGS } from '../../src/ebpf/map.ts'
import { Program } from '../../src/ebpf/prog.ts'
import { NotFoundError } from '../../src/errors.ts'
import { GUARD_DIRECTORY } from '../../src/guard/directory.ts'
import { Guard } from '../../src/guard/guard.ts'
import { guardStatus, installGuard, probeGuard, removeGuard } from '../../src/guard/install.ts'
import { native } from '../../src/sys/native.ts'
import { progCommand } from '../kernel/delegation/attributes.ts'
import { made } from './borrower.ts'
import { inContainer } from './container.ts'
import { skip } from './guarded.ts'

const RENEWALS = `${GUARD_DIRECTORY}/maps/renewals`
const STRAYS = ['maps/another', 'links/another', 'another'].map(name => `${GUARD_DIRECTORY}/${name}`)

afterEach(async () => {
  if (skip === false && existsSync(GUARD_DIRECTORY)) await removeGuard()
})

function idOf(pin: string): number {
  using map = BpfMap.open(pin)
  return map.info().id
}

/** A map like the guard's renewals, made by somebody else, in its place. */
function plantRenewals(): number {
  unlinkSync(RENEWALS)
  using map = BpfMap.create({
    ...{ type: 'hash', name: 'renewals', keyBytes: 8, valueBytes: 8, maxEntries: 8192, token: null },
    flags: MAP_FLAGS.BPF_F_NO_PREALLOC,
  } as const)
  map.pin(RENEWALS)
  return map.info().id
}

/** As a keeper: what a guard without these hooks let anybody do. */
function plantStrays(): void {
  const { cmd, attr, refs } = progCommand('xdp', 'xdp')
  using program = Program.fromFd(made('BPF_PROG_LOAD', native().bpf(cmd, attr, ...refs)))
  program.pin(STRAYS[0]!)
  for (const directory of STRAYS.slice(1)) mkdirSync(directory)
}

/** It is whole, has its own maps, and nothing else lies there. */
function isWhole(): void {
  const { proven, missing, current } = guardStatus()
  assert.deepEqual([proven, missing, current], [true, [], true])
  assert.deepEqual(readdirSync(GUARD_DIRECTORY).sort(), ['links', 'maps'])
  using guard = Guard.open()
  const pinned = readdirSync(`${GUARD_DIRECTORY}/maps`).map(name => idOf(`${GUARD_DIRECTORY}/maps/${name}`))
  assert.deepEqual([...guard.tables.own_maps.keys()].sort(), pinned.sort())
  for (const one of ['', '/maps', '/links']) {
    const { uid, mode } = lstatSync(`${GUARD_DIRECTORY}${one}`)
    assert.deepEqual([uid, mode & 0o777], [0, 0o700], one)
  }
}

describe('where no guard enforces', { skip }, () => {
  test('what was put there is removed, and told of, and no map of it becomes the guard’s', async () => {
    for (const directory of [GUARD_DIRECTORY, `${GUARD_DIRECTORY}/maps`, `${GUARD_DIRECTORY}/links`])
      assert.equal(inContainer('mkdir', directory), 'ok')
    assert.equal(inContainer('plant', RENEWALS), 'ok')
    assert.equal(inContainer('chmod', GUARD_DIRECTORY), 'ok')
    const planted = idOf(RENEWALS)
    assert.throws(() => Guard.open(), NotFoundError, 'pins alone are no guard')
    const removed: string[] = []
    assert.equal(await installGuard({ removing: path => removed.push(path) }), 'installed')
    assert.deepEqual(removed, [GUARD_DIRECTORY])
    assert.notEqual(idOf(RENEWALS), planted)
    isWhole()
  })

  test('a symbolic link in its place is removed, and not followed', async () => {
    assert.equal(inContainer('symlink', GUARD_DIRECTORY), 'ok')
    assert.equal(await installGuard(), 'installed')
    assert.equal(existsSync('/tmp/maps'), false)
    isWhole()
  })
})

describe('while a guard enforces', { skip }, () => {
  test('it is adopted with its maps, and what lies beside them is removed, and told of', async () => {
    await installGuard()
    const own = idOf(RENEWALS)
    plantStrays()
    const removed: string[] = []
    assert.equal(await installGuard({ removing: path => removed.push(path) }), 'adopted')
    assert.deepEqual(removed.sort(), [...STRAYS].sort())
    assert.equal(idOf(RENEWALS), own)
    isWhole()
  })

  test('the next takes over its maps, and none that somebody else has put in the place of one', async () => {
    await installGuard()
    using guard = Guard.open()
    const revocations = `${GUARD_DIRECTORY}/maps/revocations`
    const own = idOf(revocations)
    const planted = plantRenewals()
    plantStrays()
    guard.tables.config.change({ build: 1 })
    const removed: string[] = []
    assert.equal(await installGuard({ removing: path => removed.push(path) }), 'replaced')
    assert.deepEqual(removed.sort(), [RENEWALS, ...STRAYS].sort())
    assert.equal(idOf(revocations), own)
    assert.notEqual(idOf(RENEWALS), planted)
    isWhole()
  })

  test('it is removed with all that lies there', async () => {
    await installGuard()
    plantStrays()
    await removeGuard()
    assert.deepEqual([existsSync(GUARD_DIRECTORY), probeGuard()], [false, false])
  })
})
