/**
 * The guard while several tasks use it at once, or while one of them is killed half-way.
 *
 *   node --import tsx scripts/vm/vm.ts --kernel 6.12 --tests test/vm/guard-races.test.ts
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { undelegate } from '../../src/delegation/delegate.ts'
import { bpffsMounts } from '../../src/ebpf/bpffs.ts'
import { BpfMap } from '../../src/ebpf/map.ts'
import { GUARD_DIRECTORY } from '../../src/guard/directory.ts'
import type { DelegationId, Lender } from '../../src/guard/guard.ts'
import { guardStatus, installGuard } from '../../src/guard/install.ts'
import type { Fd } from '../../src/sys/fd.ts'
import { fsconfigCreate, fsconfigFlag, fsconfigString } from '../../src/sys/mount.ts'
import { readProc } from '../../src/sys/process.ts'
import { FSCONFIG_CMD_CREATE } from '../../src/uapi/constants.ts'
import { outcome, vocabulary } from '../kernel/delegation/lab.ts'
import { fsopenWithin } from '../kernel/delegation/within.ts'
import { Borrower, type Changes, policyOf } from './borrower.ts'
import { deriving, killedBefore, steps } from './delegator.ts'
import { errnoOf, eventually, skip } from './guarded.ts'
import { Hammer, type Hammered } from './hammer.ts'
import { borrower, guard, underGuard } from './under-guard.ts'

underGuard()

function keysOf(name: string): Uint8Array[] {
  using map = BpfMap.open(`${GUARD_DIRECTORY}/maps/${name}`)
  return [...map.keys()]
}

// ---- a superblock that is not created ----

describe('a superblock that is not created leaves nothing', { skip }, () => {
  /** A marked context of the borrower, and what a lender may set on it. */
  function creating(options: [string, string][], create: (context: Fd) => string, lender: Lender): string {
    using context = fsopenWithin(borrower.target.process.pidfd, 'bpf')
    fsconfigFlag(context, 'delegate')
    fsconfigString(context, 'abilities', lender.ability)
    assert.equal(keysOf('pending').length, 1)
    for (const [key, value] of options) {
      const set = errnoOf(() => fsconfigString(context, key, value))
      if (set !== 'ok') return set
    }
    return create(context)
  }

  const byHost = (context: Fd): string => errnoOf(() => fsconfigCreate(context))
  const byWorkload = (context: Fd): string =>
    outcome(borrower.call('fsconfig', context.number, FSCONFIG_CMD_CREATE, null, null, 0))

  const CASES: [string, [string, string][], (context: Fd) => string, string, number][] = [
    ['a task without the capability creates it', [['delegate_cmds', '1']], byWorkload, 'EPERM', 0],
    ['an option is wrong', [['delegate_cmds', 'no_such_command']], byHost, 'EINVAL', 0],
    ['the masks are beyond the ability', [['delegate_cmds', '33']], byHost, 'EACCES', 0],
    ['nothing is wrong', [['delegate_cmds', '1']], byHost, 'ok', 1],
  ]
  for (const [title, options, create, expected, delegations] of CASES)
    test(title, async () => {
      const policy = policyOf({ masks: { cmds: 1n } })
      {
        using lender = guard.lend(policy)
        assert.equal(creating(options, create, lender), expected)
        assert.equal(lender.delegation() === undefined, delegations === 0)
      }
      assert.deepEqual([keysOf('pending'), keysOf('contexts')], [[], []])
      // The superblock of the last case was mounted nowhere, and its descriptor is closed.
      await eventually(() => guard.delegations().length === 0, 'a delegation is left')
      await borrower.lending(guard, {}, ({ token }) => assert.equal(token(), 'ok'))
    })

  test('it is derived, and beyond its origin: the origin has all that it had', async () => {
    const limits = { maps: 4, tokens: 4 }
    await borrower.lending(guard, { limits, derive: { allowed: true, maxDepth: 1 } }, async ({ id }) => {
      using heir = await Borrower.start()
      const before = guard.delegation(id).live
      const asked = (maps: number) => policyOf({ limits: { ...limits, maps, tokens: 2 } })
      await assert.rejects(heir.borrow(guard, asked(5), { parent: id }), /EACCES/)
      assert.deepEqual(guard.delegation(id).live, before)
      assert.deepEqual([keysOf('pending'), keysOf('contexts')], [[], []])
      await heir.borrow(guard, asked(3), { parent: id })
      const { maps, tokens, children } = guard.delegation(id).live
      assert.deepEqual([maps, tokens, children], [3, 2, 1])
      heir[Symbol.dispose]()
      await heir.workload.exited
      await eventually(() => guard.delegation(id).live.children === 0, 'the heir has gone')
      assert.deepEqual(guard.delegation(id).live, before)
    })
  })
})

// ---- a delegator that is killed ----

describe('a delegator that is killed leaves nothing, or the whole delegation', { skip }, () => {
  const mounts = (): number =>
    bpffsMounts(readProc(borrower.target.process, 'mountinfo')).filter(({ delegated }) => delegated).length

  test('before each of its steps, and after the last', async t => {
    const plan = [...steps(borrower.target), 'after the last']
    for (const [step, name] of plan.entries())
      await t.test(`${step}: ${name}`, async () => {
        assert.equal(killedBefore(step, borrower.workload.pid), 'SIGKILL')
        const whole = step === plan.length - 1
        // Its executor notices, and undoes what nobody said to keep.
        await eventually(() => mounts() === (whole ? 1 : 0), `${mounts()} mounts are left`)
        if (whole) {
          assert.equal(guard.delegations().length, 1)
          assert.equal(await borrower.triesToken(), 'ok')
          await undelegate(borrower.target, vocabulary)
        }
        // Its descriptors were closed when it ended, and then its executor closes its own.
        const known = (): number => keysOf('pending').length + keysOf('contexts').length
        await eventually(() => known() === 0, `${known()} contexts are left`)
        await eventually(() => guard.delegations().length === 0, 'a delegation is left')
        {
          using lender = guard.lend(policyOf())
          assert.equal(keysOf('processes').length, 2, 'the dead delegator is forgotten; we have an executor')
          assert.deepEqual(guard.policies(), [lender.ability])
        }
        await borrower.lending(guard, {}, ({ token }) => assert.equal(token(), 'ok'))
      })
  })
})

// ---- a delegation that is derived while its origin is revoked ----

test('what is derived while its origin is revoked is revoked, or refused', { skip }, async t => {
  const derivable: Changes = { derive: { allowed: true, maxDepth: 1 } }
  for (let round = 0; round < 3; round++)
    await t.test(`round ${round}`, () =>
      borrower.lending(guard, derivable, async ({ id }) => {
        using heir = await Borrower.start()
        const delegator = deriving(id, heir.workload.pid)
        const lines = createInterface({ input: delegator.stdout! })
        assert.deepEqual(await once(lines, 'line'), ['go'])
        const last = once(lines, 'line')
        const exit = once(delegator, 'exit')
        await sleep(100 + 37 * round)
        const ids = guard.revoke(id)
        const live = (): DelegationId[] =>
          guard
            .delegations()
            .filter(one => !one.revoked && (one.id === id || one.parent === id))
            .map(one => one.id)
        assert.deepEqual(live(), [])
        assert.equal(ids[0], id)
        assert.deepEqual(await last, ['EACCES'])
        await exit
        assert.deepEqual(live(), [])
      }),
    )
})

// ---- tasks that use tokens meanwhile ----

const TASKS = 4

/** Runs `body` while tasks use the tokens, each its share of them. */
async function hammering(
  who: Borrower,
  tokens: readonly Fd[],
  body: (hammers: readonly Hammer[]) => Promise<void>,
): Promise<void> {
  const hammers: Hammer[] = []
  try {
    for (let i = 0; i < TASKS; i++) {
      const share = tokens.filter((_, n) => n % TASKS === i)
      hammers.push(await Hammer.start(who.workload.pid, share))
    }
    await body(hammers)
  } finally {
    for (const hammer of hammers) hammer[Symbol.dispose]()
  }
}

/** Waits until all tokens were used again. */
async function again(hammers: readonly Hammer[]): Promise<void> {
  await Promise.all(hammers.map(hammer => hammer.again()))
}

/** The errnos that ended the hammers, of those that have ended. */
async function refusals(hammers: readonly Hammer[]): Promise<string[]> {
  const results = await Promise.all(hammers.filter(({ ended }) => ended).map(({ result }) => result))
  return results.map(({ errno }) => errno)
}

/** Revokes, and proves that no use began after that and succeeded. */
async function revoking(id: DelegationId, hammers: readonly Hammer[]): Promise<Hammered[]> {
  assert.deepEqual(await refusals(hammers), [])
  guard.revoke(id)
  const revokedNs = process.hrtime.bigint()
  const results = await Promise.all(hammers.map(({ result }) => result))
  for (const { made, lastNs, errno } of results) {
    assert.ok(made > 0)
    // EACCES: revoked between the token's check and the map's.
    assert.ok(['EPERM', 'EACCES'].includes(errno), errno)
    assert.ok(lastNs < revokedNs, `a use succeeded ${lastNs - revokedNs} ns after`)
  }
  return results
}

async function withTokens(
  count: number,
  make: () => Fd,
  body: (tokens: readonly Fd[]) => Promise<void>,
): Promise<void> {
  const tokens: Fd[] = []
  try {
    while (tokens.length < count) tokens.push(make())
    await body(tokens)
  } finally {
    for (const token of tokens) token.close()
  }
}

/** Makes the guard that is installed look like one of another build. */
function disguise(): void {
  guard.tables.config.change({ build: 1 })
}

describe('while tasks use tokens', { skip }, () => {
  test('the guard is replaced under 100 tokens: none is refused, and the counts are exact', async t => {
    const changes: Changes = { limits: { tokens: 100 } }
    await borrower.lending(guard, changes, ({ id, token, mustToken }) =>
      withTokens(100, mustToken, async tokens => {
        assert.equal(token(), 'EDQUOT')
        await hammering(borrower, tokens, async hammers => {
          for (let round = 0; round < 2; round++) {
            disguise()
            assert.equal(guardStatus().current, false)
            assert.equal(await installGuard(), 'replaced')
            await again(hammers)
            assert.deepEqual(await refusals(hammers), [])
          }
          assert.equal(guard.delegation(id).live.tokens, 100)
          assert.equal(token(), 'EDQUOT')
          const results = await revoking(id, hammers)
          t.diagnostic(`${results.reduce((sum, { made }) => sum + made, 0)} maps by ${TASKS} tasks`)
        })
        await eventually(() => guard.delegation(id).live.maps === 0, 'maps are left over in the count')
        const { mapBytes, tokens: counted } = guard.delegation(id).live
        assert.deepEqual([mapBytes, counted], [0n, 100])
        for (const one of tokens) one.close()
        await eventually(() => guard.delegation(id).live.tokens === 0, 'tokens are left over in the count')
      }),
    )
  })

  test('it is revoked: after that no use succeeds', () =>
    borrower.lending(guard, {}, ({ id, mustToken }) =>
      withTokens(TASKS, mustToken, tokens =>
        hammering(borrower, tokens, async hammers => {
          await again(hammers)
          await revoking(id, hammers)
        }),
      ),
    ))

  test('its origin is revoked: after that no use succeeds either', async () => {
    const derivable = (maxDepth: number): Changes => ({ derive: { allowed: true, maxDepth } })
    await borrower.lending(guard, derivable(2), async ({ id }) => {
      using heir = await Borrower.start()
      using second = await Borrower.start()
      const child = await heir.borrow(guard, policyOf(derivable(1)), { parent: id })
      await second.lending(
        guard,
        {},
        ({ id: grandchild, mustToken }) =>
          withTokens(TASKS, mustToken, tokens =>
            hammering(second, tokens, async hammers => {
              await again(hammers)
              await revoking(id, hammers)
              assert.ok([id, child, grandchild].every(one => guard.delegation(one).revoked))
            }),
          ),
        { parent: child },
      )
    })
  })
})
