/**
 * explain, where there are security modules: what the guard refuses is told apart, by its records
 * before a call and by its events after one, and from another BPF LSM. Each refusal is made for
 * real, changed as the explanation says, and tried again.
 *
 *   node --import tsx scripts/vm/vm.ts --kernel 6.12 --tests test/vm/explain.test.ts
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeEach, describe, test } from 'node:test'
import { attachProgram } from '../../src/ebpf/attach/section.ts'
import { loadObject } from '../../src/ebpf/load/object.ts'
import { parseObject } from '../../src/ebpf/object/spec.ts'
import type { Need } from '../../src/ebpf/rights.ts'
import { type Explanation, explainCall, type Observed } from '../../src/lending/explain.ts'
import { runningKernel } from '../../src/lending/kernel-model.ts'
import { situationOfPid } from '../../src/lending/situation.ts'
import type { KernelFacts } from '../../src/model/kernel.ts'
import { ROOT } from '../helpers/machine.ts'
import { mapAttr, progCommand } from '../kernel/delegation/attributes.ts'
import { type Changes, type Loan, PATH } from './borrower.ts'
import { skip, untilExpired } from './guarded.ts'
import { borrower, guard, underGuard } from './under-guard.ts'

underGuard()
beforeEach(() => {
  if (skip === false) guard.pastEvents()
})

const HASH: Need = { cmd: 'map_create', mapType: 'hash' }
const XDP: Need = { cmd: 'prog_load', progType: 'xdp', attachType: 'xdp' }

let kernel: KernelFacts | undefined

/** Why the call is refused, or would be: by what there is now. */
async function why(need: Need, errno?: string): Promise<Explanation> {
  const situation = await situationOfPid(borrower.workload.pid, guard)
  const event = errno === undefined ? undefined : lastRefusal()
  const observed: Observed | undefined =
    errno === undefined ? undefined : { errno, reached: true, withToken: true, event }
  kernel ??= runningKernel()
  return explainCall(kernel, situation, need, observed)
}

const lastRefusal = () => guard.pastEvents().findLast(({ verdict }) => verdict === 'refused')

/** What is told of it, in short. */
const told = ({ cause, edit, policy }: Explanation): string =>
  [
    cause,
    ...(edit === undefined ? [] : [`${edit.path}=${edit.value}`]),
    ...(policy === undefined ? [] : [`${policy.list}:${policy.word}`]),
  ].join(' ')

const lending = (changes: Changes, body: (loan: Loan) => Promise<void>) =>
  borrower.lending(guard, changes, body)

describe('explain under the guard', { skip }, () => {
  test('how many maps, programs and tokens: foretold, with the next larger number', async () => {
    await lending({ limits: { maps: 1, programs: 1, tokens: 1 } }, async ({ mustToken, token }) => {
      assert.equal(told(await why(HASH)), 'none')
      assert.equal(told(await why(XDP)), 'none')
      using held = mustToken()
      // A token more is what the next call would have to make.
      assert.equal(token(), 'EDQUOT')
      assert.equal(told(await why(HASH)), 'guard-tokens spec.limits.tokens=2')
      assert.equal(told(await why(HASH, 'EDQUOT')), 'guard-tokens spec.limits.tokens=2')
      assert.ok(held.number > 0)
    })
    await lending({ limits: { maps: 1, programs: 1 } }, async ({ mustToken }) => {
      using held = mustToken()
      using _map = borrower.must(mapCommand(held.number))
      assert.equal(borrower.map(held), 'EDQUOT')
      assert.equal(told(await why(HASH)), 'guard-maps spec.limits.maps=2')
      assert.equal(told(await why(HASH, 'EDQUOT')), 'guard-maps spec.limits.maps=2')
      using _prog = borrower.must(progCommand('xdp', 'xdp', held.number))
      assert.equal(borrower.run(progCommand('xdp', 'xdp', held.number)), 'EDQUOT')
      assert.equal(told(await why(XDP)), 'guard-programs spec.limits.programs=2')
    })
    // The change.
    await lending({ limits: { maps: 2, programs: 2, tokens: 2 } }, async ({ mustToken, token }) => {
      using held = mustToken()
      assert.equal(token(), 'ok')
      using _map = borrower.must(mapCommand(held.number))
      assert.equal(borrower.map(held), 'ok')
      using _prog = borrower.must(progCommand('xdp', 'xdp', held.number))
      assert.equal(borrower.run(progCommand('xdp', 'xdp', held.number)), 'ok')
      assert.equal(told(await why(HASH)), 'none')
    })
  })

  test('how large a map, and how long a program', async () => {
    await lending({ limits: { mapBytes: 100n, instructions: 1 } }, async ({ mustToken }) => {
      using held = mustToken()
      assert.equal(borrower.map(held, { max_entries: 1000 }), 'EDQUOT')
      assert.equal(told(await why(HASH, 'EDQUOT')), 'guard-map-bytes')
      assert.equal(borrower.run(progCommand('xdp', 'xdp', held.number)), 'EDQUOT')
      assert.equal(told(await why(XDP, 'EDQUOT')), 'guard-instructions')
    })
    await lending({ limits: { mapBytes: 100_000n, instructions: 2 } }, async ({ mustToken }) => {
      using held = mustToken()
      assert.equal(borrower.map(held, { max_entries: 1000 }), 'ok')
      assert.equal(borrower.run(progCommand('xdp', 'xdp', held.number)), 'ok')
    })
  })

  test('a delegation that is revoked', async () => {
    await lending({}, async ({ id, token, mustToken }) => {
      using held = mustToken()
      guard.revoke(id)
      assert.deepEqual([token(), borrower.map(held)], ['EACCES', 'EPERM'])
      assert.equal(told(await why(HASH)), 'guard-revoked')
    })
    await lending({}, async ({ token }) => {
      assert.equal(token(), 'ok')
      assert.equal(told(await why(HASH)), 'none')
    })
  })

  test('a delegation whose time is over', async () => {
    await lending({ limits: { lifetimeSec: 1 } }, async ({ id, token }) => {
      await untilExpired(guard, id)
      assert.equal(token(), 'EACCES')
      assert.equal(told(await why(HASH)), 'guard-expired')
    })
    await lending({ limits: { lifetimeSec: 3600 } }, async ({ token }) => {
      assert.equal(token(), 'ok')
      assert.equal(told(await why(HASH)), 'none')
    })
  })

  test('a bind mount of the bpffs', async () => {
    const bind = async (body: () => Promise<void>): Promise<void> => {
      const MS_BIND = 4096
      await borrower.workload.must('mount', PATH, '/mnt', 0, MS_BIND, 0)
      try {
        await body()
      } finally {
        await borrower.workload.must('umount2', '/mnt', 0)
      }
    }
    await lending({}, async ({ token }) => {
      assert.equal(token(), 'ok')
      await bind(async () => {
        assert.equal(await borrower.triesToken('/mnt'), 'EACCES')
        assert.equal(told(await why(HASH)), 'guard-elsewhere spec.sharing.bindMount=true')
      })
      assert.equal(told(await why(HASH)), 'none')
    })
    await lending({ sharing: { bindMount: true, passToken: false } }, async ({ token }) => {
      assert.equal(token(), 'ok')
      await bind(async () => {
        assert.equal(await borrower.triesToken('/mnt'), 'ok')
        assert.equal(told(await why(HASH)), 'none')
      })
    })
  })

  test('a capability that the process has, and that is not lent', async () => {
    await lending({ capabilities: ['bpf'] }, async ({ mustToken }) => {
      using held = mustToken()
      assert.equal(borrower.run(progCommand('xdp', 'xdp', held.number)), 'EPERM')
      assert.equal(told(await why(XDP)), 'guard-capability capabilities:net_admin')
      assert.equal(told(await why(HASH)), 'none')
    })
    await lending({ capabilities: ['bpf', 'net_admin'] }, async ({ mustToken }) => {
      using held = mustToken()
      assert.equal(borrower.run(progCommand('xdp', 'xdp', held.number)), 'ok')
      assert.equal(told(await why(XDP)), 'none')
    })
  })

  test('a program that is on no list', async () => {
    await lending({ programs: { digests: ['tag:0123456789abcdef'] } }, async ({ mustToken }) => {
      using held = mustToken()
      assert.equal(borrower.run(progCommand('xdp', 'xdp', held.number)), 'EACCES')
      assert.equal(told(await why(XDP, 'EACCES')), 'guard-digest')
    })
    await lending({}, async ({ mustToken }) => {
      using held = mustToken()
      assert.equal(borrower.run(progCommand('xdp', 'xdp', held.number)), 'ok')
    })
  })

  test('a permissive policy refuses nothing, and nothing is foretold', () =>
    lending({ limits: { maps: 1 }, mode: 'permissive' }, async ({ mustToken }) => {
      using held = mustToken()
      using _map = borrower.must(mapCommand(held.number))
      assert.equal(borrower.map(held), 'ok')
      assert.equal(told(await why(HASH)), 'none')
    }))

  test('another BPF LSM is told from the guard, by its name and hook', async () => {
    const spec = parseObject(readFileSync(join(ROOT, 'test/fixtures/refuses.bpf.o')), { name: 'refuses' })
    using object = await loadObject(spec, { token: null })
    const QUEUE: Need = { cmd: 'map_create', mapType: 'queue' }
    await lending({}, async ({ mustToken }) => {
      using held = mustToken()
      {
        using _link = attachProgram(object, 'refuses_queues')
        assert.equal(borrower.map(held, {}, 'queue'), 'EPERM')
        const of = await why(QUEUE, 'EPERM')
        assert.equal(told(of), 'security-module')
        assert.match(of.found, /refuses_queues \(\d+\) at bpf_map_create/)
        assert.match(of.found, /security modules: .*bpf/)
      }
      // The change: without it.
      assert.equal(borrower.map(held, {}, 'queue'), 'ok')
    })
  })
})

function mapCommand(token: number) {
  return { cmd: 0, attr: mapAttr('hash', token), refs: [] }
}
