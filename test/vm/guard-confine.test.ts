/**
 * Confined cgroups: the same rights and limits for root of the host, who needs no token. The calls
 * are this process's own, which goes into the cgroup for them.
 *
 *   node --import tsx scripts/vm/vm.ts --kernel 6.12 --tests test/vm/guard-confine.test.ts
 */
import assert from 'node:assert/strict'
import { mkdirSync, rmdirSync, writeFileSync } from 'node:fs'
import { after, before, beforeEach, describe, test } from 'node:test'
import { BpfMap } from '../../src/ebpf/map.ts'
import type { DelegationId } from '../../src/guard/guard.ts'
import { Fd } from '../../src/sys/fd.ts'
import { native } from '../../src/sys/native.ts'
import { bpf_attach_type, bpf_attr_link_create, bpf_attr_prog_attach, bpf_cmd } from '../../src/uapi/bpf.ts'
import { XDP_FLAGS_SKB_MODE } from '../../src/uapi/constants.ts'
import { asHostRoot, mapAttr, progCommand } from '../kernel/delegation/attributes.ts'
import { outcome } from '../kernel/delegation/lab.ts'
import { type Changes, made, policyOf } from './borrower.ts'
import { eventually, skip, untilExpired } from './guarded.ts'
import { guard, withGuard } from './under-guard.ts'

const ROOT = '/sys/fs/cgroup'
const SERVICE = `${ROOT}/service`
const WORKER = `${SERVICE}/worker`
const LOOPBACK = 1

before(() => {
  if (skip === false) mkdirSync(WORKER, { recursive: true })
})
withGuard()
after(() => {
  if (skip !== false) return
  rmdirSync(WORKER)
  rmdirSync(SERVICE)
})
beforeEach(() => {
  if (skip === false) guard.pastEvents()
})

/**
 * Goes into the cgroup and gives the results of `calls` there. The guard's keeper may open the
 * guard's own maps there, too.
 */
function inside<T>(cgroup: string, calls: () => T): T {
  writeFileSync(`${cgroup}/cgroup.procs`, String(process.pid))
  try {
    return calls()
  } finally {
    writeFileSync(`${ROOT}/cgroup.procs`, String(process.pid))
  }
}

async function confined(
  changes: Changes,
  body: (id: DelegationId) => void | Promise<void>,
  cgroup: string = SERVICE,
): Promise<void> {
  const id = guard.confine(cgroup, policyOf(changes))
  try {
    await body(id)
  } finally {
    if (guard.delegations().some(one => one.id === id)) guard.unconfine(id)
  }
}

const map = (type = 'hash'): string => asHostRoot({ cmd: 0, attr: mapAttr(type), refs: [] })
const xdp = (): string => asHostRoot(progCommand('xdp', 'xdp'))
const keptMap = (): Fd => made('BPF_MAP_CREATE', native().bpf(0, mapAttr('hash')))

function reasons(): string[] {
  return guard.pastEvents().map(({ reason }) => reason)
}

describe('a confined cgroup', { skip }, () => {
  test('makes maps and programs of the types that are lent', () =>
    confined({ masks: { cmds: 33n, maps: 4n, progs: 64n, attachs: 1n << 37n } }, id => {
      assert.deepEqual(
        inside(SERVICE, () => [
          map('array'),
          map('hash'),
          xdp(),
          asHostRoot(progCommand('kprobe', 'cgroup_inet_ingress')),
        ]),
        ['ok', 'EPERM', 'ok', 'EPERM'],
      )
      const [first, second] = guard.pastEvents()
      assert.deepEqual([first!.point, first!.reason, first!.delegation], ['map_create', 'rights', id])
      assert.deepEqual([second!.point, second!.reason, second!.type], ['prog_load', 'rights', 'kprobe'])
      assert.deepEqual(
        [map('hash'), asHostRoot(progCommand('kprobe', 'cgroup_inet_ingress'))],
        ['ok', 'ok'],
        'outside',
      )
    }))

  test('is confined however its path is written', async () => {
    for (const path of [`${SERVICE}/.`, `${WORKER}/..`, `${SERVICE}//`, `${WORKER}/../../service`])
      await confined(
        { masks: { cmds: 33n, maps: 4n, progs: 64n, attachs: 1n << 37n } },
        () =>
          assert.deepEqual(
            inside(SERVICE, () => [map('array'), map('hash')]),
            ['ok', 'EPERM'],
            path,
          ),
        path,
      )
    assert.deepEqual(
      inside(SERVICE, () => [map('array'), map('hash')]),
      ['ok', 'ok'],
    )
  })

  test('calls what takes a capability only if it is lent; what a descriptor is enough for, always', async () => {
    const next = { cmd: bpf_cmd.BPF_MAP_GET_NEXT_ID, attr: new Uint8Array(12), refs: [] }
    const calls = (): string[] => {
      using kept = keptMap()
      using same = BpfMap.fromFd(kept)
      same.update(new Uint8Array(4), new Uint8Array(4))
      return [outcome(native().bpf(next.cmd, next.attr)), String(same.lookup(new Uint8Array(4))?.length)]
    }
    await confined({ masks: { cmds: 1n, maps: 2n } }, () => {
      assert.deepEqual(inside(SERVICE, calls), ['EPERM', '4'])
      assert.deepEqual(reasons(), ['rights'])
    })
    await confined({ masks: { cmds: 1n | (1n << 12n), maps: 2n } }, () => {
      assert.deepEqual(inside(SERVICE, calls), ['ok', '4'])
    })
  })

  test('has the limits of its policy, and its objects are counted down', () =>
    confined({ limits: { maps: 1, mapBytes: 64n, instructions: 2, programs: 1 } }, async id => {
      {
        using _one = inside(SERVICE, keptMap)
        assert.equal(
          inside(SERVICE, () => map()),
          'EDQUOT',
        )
        assert.deepEqual(guard.delegation(id).live.maps, 1)
      }
      await eventually(() => guard.delegation(id).live.maps === 0, 'the map is not counted down')
      assert.deepEqual(
        inside(SERVICE, () => [
          asHostRoot({ cmd: 0, attr: mapAttr('hash', undefined, { max_entries: 9 }), refs: [] }),
          xdp(),
        ]),
        ['EDQUOT', 'ok'],
      )
      assert.deepEqual(reasons(), ['maps', 'map-bytes'])
    }))

  test('has them below it, too; and what is confined there by itself has its own', () =>
    confined({ masks: { cmds: 1n, maps: 2n } }, async () => {
      assert.deepEqual(
        inside(WORKER, () => [map('array'), map('hash')]),
        ['EPERM', 'ok'],
      )
      await confined(
        { masks: { cmds: 1n, maps: 4n } },
        () =>
          assert.deepEqual(
            inside(WORKER, () => [map('array'), map('hash')]),
            ['ok', 'EPERM'],
          ),
        WORKER,
      )
      assert.deepEqual(
        inside(WORKER, () => [map('array'), map('hash')]),
        ['EPERM', 'ok'],
      )
    }))

  test("does not attach to the host's network, nor what outlives it, unless that is lent", async () => {
    const attach = (): string[] => {
      const { cmd, attr, refs } = progCommand('xdp', 'xdp')
      using program = made('BPF_PROG_LOAD', native().bpf(cmd, attr, ...refs))
      const link = bpf_attr_link_create.encode({
        prog_fd: program.number,
        target_ifindex: LOOPBACK,
        attach_type: bpf_attach_type.BPF_XDP,
        flags: XDP_FLAGS_SKB_MODE,
      })
      const skb = progCommand('cgroup_skb', 'cgroup_inet_egress')
      using filter = made('BPF_PROG_LOAD', native().bpf(skb.cmd, skb.attr, ...skb.refs))
      using cgroup = new Fd(native().openat2(-100, WORKER, new Uint8Array(24)))
      const where = {
        target_fd: cgroup.number,
        attach_bpf_fd: filter.number,
        attach_type: bpf_attach_type.BPF_CGROUP_INET_EGRESS,
      }
      const attached = outcome(native().bpf(bpf_cmd.BPF_PROG_ATTACH, bpf_attr_prog_attach.encode(where)))
      if (attached === 'ok') native().bpf(bpf_cmd.BPF_PROG_DETACH, bpf_attr_prog_attach.encode(where))
      return [outcome(native().bpf(bpf_cmd.BPF_LINK_CREATE, link)), attached]
    }
    await confined({}, () => {
      assert.deepEqual(inside(SERVICE, attach), ['EACCES', 'EACCES'])
      assert.deepEqual(reasons().sort(), ['network', 'outlives'])
    })
    await confined({ network: 'host', revocable: false }, () => {
      assert.deepEqual(inside(SERVICE, attach), ['ok', 'ok'])
    })
    await confined({ mode: 'permissive' }, () => {
      assert.deepEqual(inside(SERVICE, attach), ['ok', 'ok'])
      assert.deepEqual(
        guard.pastEvents().map(({ verdict }) => verdict),
        ['would-refuse', 'would-refuse'],
      )
    })
  })

  test('has nothing after it is revoked or has expired, and everything again when it is free', async () => {
    await confined({}, id => {
      guard.revoke(id)
      assert.deepEqual(
        inside(SERVICE, () => [map(), xdp()]),
        ['EPERM', 'EPERM'],
      )
      assert.deepEqual(reasons(), ['revoked', 'revoked'])
      assert.equal(map(), 'ok', 'outside')
      guard.unconfine(id)
      assert.deepEqual(
        inside(SERVICE, () => [map(), xdp()]),
        ['ok', 'ok'],
      )
    })
    await confined({ limits: { lifetimeSec: 3 } }, async id => {
      assert.equal(
        inside(SERVICE, () => map()),
        'ok',
      )
      await untilExpired(guard, id)
      assert.equal(
        inside(SERVICE, () => map()),
        'EPERM',
      )
      assert.deepEqual(reasons(), ['expired'])
    })
  })

  test('that is confined again has the new policy only; one that is gone is forgotten', async () => {
    const first = guard.confine(SERVICE, policyOf({ masks: { cmds: 1n, maps: 2n } }))
    await confined({ masks: { cmds: 1n, maps: 4n } }, id => {
      assert.deepEqual(
        inside(SERVICE, () => [map('array'), map('hash')]),
        ['ok', 'EPERM'],
      )
      assert.deepEqual(
        guard.delegations().map(one => one.id),
        [id],
      )
      assert.notEqual(id, first)
    })
    const gone = `${ROOT}/gone`
    mkdirSync(gone)
    guard.confine(gone, policyOf())
    rmdirSync(gone)
    await confined({}, id =>
      assert.deepEqual(
        guard.delegations().map(one => one.id),
        [id],
      ),
    )
    assert.deepEqual(guard.delegations(), [])
  })
})
