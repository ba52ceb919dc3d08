/**
 * explain, where there are security modules: what the guard refuses is told apart, by its records
 * before a call and by its events after one, and from another BPF LSM. Each refusal is made for
 * real, changed as the explanation says, and tried again.
 *
 *   node --import tsx scripts/vm/vm.ts --kernel 6.12 --tests test/vm/explain.test.ts
 */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeEach, describe, test } from 'node:test'
import { undelegate } from '../../src/delegation/delegate.ts'
import { attachProgram } from '../../src/ebpf/attach/section.ts'
import { loadObject } from '../../src/ebpf/load/object.ts'
import { parseObject } from '../../src/ebpf/object/spec.ts'
import type { Need } from '../../src/ebpf/rights.ts'
import { type Explanation, explainCall, type Observed } from '../../src/lending/explain.ts'
import { runningKernel } from '../../src/lending/kernel-model.ts'
import { explainOther, type OtherCall } from '../../src/lending/other-call.ts'
import { situationOfPid } from '../../src/lending/situation.ts'
import type { KernelFacts } from '../../src/model/kernel.ts'
import type { Fd } from '../../src/sys/fd.ts'
import { open } from '../../src/sys/open.ts'
import { bpf_attach_type, bpf_attr_link_create, bpf_attr_prog_attach, bpf_cmd } from '../../src/uapi/bpf.ts'
import { O_CLOEXEC, O_DIRECTORY, O_RDONLY, XDP_FLAGS_SKB_MODE } from '../../src/uapi/constants.ts'
import { ROOT } from '../helpers/machine.ts'
import { type Command, mapAttr, progCommand, Targets } from '../kernel/delegation/attributes.ts'
import { vocabulary } from '../kernel/delegation/lab.ts'
import { Borrower, type Changes, type Loan, PATH, policyOf } from './borrower.ts'
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

const lending = (changes: Changes, body: (loan: Loan) => void | Promise<void>) =>
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
    // Where loaders look is the bind mount.
    const options = { path: '/mnt' }
    const bind = async (body: () => Promise<void>): Promise<void> => {
      const MS_BIND = 4096
      await borrower.workload.must('mount', '/mnt', PATH, 0, MS_BIND, 0)
      try {
        await body()
      } finally {
        await borrower.workload.must('umount2', PATH, 0)
      }
    }
    const shared = async (changes: Changes, body: Parameters<typeof lending>[1]): Promise<void> =>
      borrower.lending(guard, changes, body, options)
    await shared({}, async ({ token }) => {
      assert.equal(token(), 'ok')
      await bind(async () => {
        assert.equal(await borrower.triesToken(PATH), 'EACCES')
        assert.equal(told(await why(HASH)), 'guard-elsewhere spec.sharing.bindMount=true')
      })
      assert.equal(told(await why(HASH)), 'none')
    })
    await shared({ sharing: { bindMount: true, passToken: false } }, async ({ token }) => {
      assert.equal(token(), 'ok')
      await bind(async () => {
        assert.equal(await borrower.triesToken(PATH), 'ok')
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

  test("attaching to the host's network", async () => {
    const attached = ({ mustToken }: Loan): string => {
      using token = mustToken()
      using program = borrower.must(progCommand('xdp', 'xdp', token.number))
      return borrower.run(linkOf(program, XDP_LINK))
    }
    await lending({}, async loan => {
      assert.equal(attached(loan), 'EACCES')
      assert.equal(told(await whyOther(LINK_XDP, 'EACCES')), 'guard-network spec.network=host')
      // The workload itself is in a network of its own.
      assert.equal(told(await whyOther(LINK_XDP)), 'none')
    })
    await lending({ network: 'host' }, async loan => assert.equal(attached(loan), 'ok'))
    // One that shares the host's is told before.
    using guest = await Borrower.start({ network: 'host' })
    await guest.borrow(guard, policyOf())
    assert.equal(told(await whyOther(LINK_XDP, undefined, guest)), 'guard-network spec.network=host')
    await undelegate(guest.target, vocabulary)
    await guest.borrow(guard, policyOf({ network: 'host' }))
    assert.equal(told(await whyOther(LINK_XDP, undefined, guest)), 'none')
  })

  test('attaching to a cgroup what outlives the workload, and to one that is not its own', async () => {
    mkdirSync(CGROUP)
    try {
      using cgroup = open(CGROUP, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
      const attach_type = bpf_attach_type.BPF_CGROUP_INET_EGRESS
      const of = { target_fd: cgroup.number, attach_type }
      const attached = ({ mustToken }: Loan): string[] => {
        using token = mustToken()
        using program = borrower.must(progCommand('cgroup_skb', 'cgroup_inet_egress', token.number))
        const attr = bpf_attr_prog_attach.encode({ ...of, attach_bpf_fd: program.number })
        const plain = borrower.run({ cmd: bpf_cmd.BPF_PROG_ATTACH, attr, refs: [] })
        const linked = plain === 'ok' ? 'ok' : borrower.run(linkOf(program, of))
        return [plain, linked]
      }
      await lending({ cgroups: 'any' }, async loan => {
        assert.deepEqual(attached(loan), ['EACCES', 'ok'])
        assert.equal(told(await whyOther(ATTACH_EGRESS, 'EACCES')), 'guard-outlives spec.revocable=false')
        assert.equal(told(await whyOther(ATTACH_EGRESS)), 'guard-outlives spec.revocable=false')
      })
      // The change; then the next cause, and with that change success.
      await lending({ revocable: false }, async loan => {
        assert.deepEqual(attached(loan), ['EACCES', 'EACCES'])
        assert.equal(told(await whyOther(LINK_EGRESS, 'EACCES')), 'guard-cgroup spec.cgroups=any')
        assert.equal(told(await whyOther(ATTACH_EGRESS)), 'none')
      })
      await lending({ revocable: false, cgroups: 'any' }, loan => {
        assert.deepEqual(attached(loan), ['ok', 'ok'])
        // What outlives the workload ends with the cgroup, and the delegation with it.
        rmdirSync(CGROUP)
      })
    } finally {
      if (existsSync(CGROUP)) rmdirSync(CGROUP)
    }
  })

  test('making a token outside of the cgroup that the delegation is bound to', async () => {
    mkdirSync(CGROUP)
    const { workload, target } = borrower
    await borrower.borrow(guard, policyOf(), { cgroup: CGROUP })
    try {
      assert.equal(await borrower.triesToken(), 'EACCES')
      assert.equal(told(await why(HASH)), 'guard-cgroup')
      // The change.
      writeFileSync(`${CGROUP}/cgroup.procs`, String(workload.pid))
      assert.equal(await borrower.triesToken(), 'ok')
      assert.equal(told(await why(HASH)), 'none')
    } finally {
      writeFileSync('/sys/fs/cgroup/cgroup.procs', String(workload.pid))
      await undelegate(target, vocabulary)
      rmdirSync(CGROUP)
    }
  })

  test('a program of a delegation that was lent to another user namespace', async () => {
    using stranger = await Borrower.start({ network: 'host' })
    const attached = ({ mustToken }: Loan): string => {
      using token = mustToken()
      using program = borrower.must(progCommand('xdp', 'xdp', token.number))
      return stranger.run(linkOf(program, XDP_LINK))
    }
    await lending({ network: 'host' }, async loan => {
      assert.equal(attached(loan), 'EACCES')
      const of = await whyOther(LINK_XDP, 'EACCES', stranger)
      assert.equal(told(of), 'guard-stranger spec.sharing.passToken=true')
    })
    const sharing = { bindMount: false, passToken: true }
    await lending({ network: 'host', sharing }, loan => assert.equal(attached(loan), 'ok'))
  })

  test('a function that is on no list', async () => {
    const targets = new Targets()
    const FENTRY: Need = { cmd: 'prog_load', progType: 'tracing', attachType: 'trace_fentry' }
    const loaded = ({ mustToken }: Loan): string => {
      using token = mustToken()
      return borrower.run(progCommand('tracing', 'trace_fentry', token.number, targets))
    }
    await lending({ targets: { functions: ['bpf_fentry_test2'] } }, async loan => {
      assert.equal(loaded(loan), 'EACCES')
      assert.equal(told(await why(FENTRY, 'EACCES')), 'guard-function')
    })
    await lending({ targets: { functions: ['bpf_fentry_test1'] } }, loan => assert.equal(loaded(loan), 'ok'))
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

const CGROUP = '/sys/fs/cgroup/explained'
const LOOPBACK = 1
const LINK_XDP: OtherCall = { cmd: 'link_create', attachType: 'xdp' }
const LINK_EGRESS: OtherCall = { cmd: 'link_create', attachType: 'cgroup_inet_egress' }
const ATTACH_EGRESS: OtherCall = { cmd: 'prog_attach', attachType: 'cgroup_inet_egress' }

type LinkFields = Parameters<typeof bpf_attr_link_create.encode>[0]
const XDP_LINK: LinkFields = {
  target_ifindex: LOOPBACK,
  attach_type: bpf_attach_type.BPF_XDP,
  flags: XDP_FLAGS_SKB_MODE,
}

function linkOf(program: Fd, fields: LinkFields): Command {
  const attr = bpf_attr_link_create.encode({ prog_fd: program.number, ...fields })
  return { cmd: bpf_cmd.BPF_LINK_CREATE, attr, refs: [] }
}

/** The same of a call for which no token is asked. */
async function whyOther(call: OtherCall, errno?: string, who: Borrower = borrower): Promise<Explanation> {
  const situation = await situationOfPid(who.workload.pid, guard)
  kernel ??= runningKernel()
  const event = errno === undefined ? undefined : lastRefusal()
  const observed = errno === undefined ? undefined : { errno, reached: true, withToken: false, event }
  return explainOther(kernel, situation, call, observed)
}

function mapCommand(token: number) {
  return { cmd: 0, attr: mapAttr('hash', token), refs: [] }
}
