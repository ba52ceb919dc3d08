import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { assessRisk, compareRisk, type RiskItem, type RiskLevel } from '../../../src/policy/risk.ts'
import { ANY_MASK } from '../../../src/policy/vocabulary.ts'
import { policyWithRights, VOCABULARY } from './sample-kernel.ts'

function levelOf(rights: string, domain: RiskItem['domain'], word: string, more = ''): RiskLevel | undefined {
  const { items } = assessRisk(policyWithRights(rights, more), VOCABULARY)
  return items.find(item => item.domain === domain && item.word === word)?.level
}

const HOST = '  network: host\n'

describe('assessRisk()', () => {
  for (const type of [
    ...['kprobe', 'tracing', 'raw_tracepoint', 'raw_tracepoint_writable', 'tracepoint'],
    ...['perf_event', 'lsm', 'struct_ops', 'ext'],
  ]) {
    test(`assessRisk() is critical when the program type is ${type}`, () => {
      assert.equal(levelOf(`progs: [${type}]`, 'progs', type), 'critical')
    })
  }

  for (const type of ['xdp', 'sched_cls', 'netfilter', 'sk_lookup', 'flow_dissector']) {
    test(`assessRisk() of ${type} is medium in an own network, low where a guard holds it, high in the host's`, () => {
      assert.equal(levelOf(`progs: [${type}]`, 'progs', type), 'medium')
      assert.equal(levelOf(`progs: [${type}]`, 'progs', type, '  limits: { maps: 8 }\n'), 'low')
      const without = '  limits: { maps: 8 }\n  guard: optional\n'
      assert.equal(levelOf(`progs: [${type}]`, 'progs', type, without), 'medium')
      assert.equal(levelOf(`progs: [${type}]`, 'progs', type, HOST), 'high')
    })
  }

  test('assessRisk() is critical when a domain is any', () => {
    for (const domain of ['cmds', 'maps', 'progs', 'attachs'] as const) {
      assert.equal(levelOf(`${domain}: [any]`, domain, 'any'), 'critical')
    }
  })

  test('assessRisk() is high for cgroup programs in either network', () => {
    assert.equal(levelOf('progs: [cgroup_skb]', 'progs', 'cgroup_skb'), 'high')
    assert.equal(levelOf('progs: [cgroup_skb]', 'progs', 'cgroup_skb', HOST), 'high')
  })

  test('assessRisk() is high for bits that this kernel has no name for', () => {
    assert.equal(levelOf('progs: [0x8000000000000000]', 'progs', '0x8000000000000000'), 'high')
  })

  test('assessRisk() rates an attach bit by the program types that are lent with it', () => {
    assert.equal(levelOf('attachs: [trace_fentry]', 'attachs', 'trace_fentry'), 'low')
    assert.equal(levelOf('progs: [tracing], attachs: [trace_fentry]', 'attachs', 'trace_fentry'), 'critical')
  })

  test('assessRisk() rates btf_get_fd_by_id by whether sys_admin is lent', () => {
    const rights = 'cmds: [btf_get_fd_by_id], capabilities:'
    assert.equal(levelOf(`${rights} [bpf]`, 'cmds', 'btf_get_fd_by_id'), 'low')
    assert.equal(levelOf(`${rights} [bpf, sys_admin]`, 'cmds', 'btf_get_fd_by_id'), 'medium')
  })

  test('assessRisk() rates sys_admin critical only together with tracing', () => {
    assert.equal(
      levelOf('progs: [tracing], capabilities: [sys_admin]', 'capabilities', 'sys_admin'),
      'critical',
    )
    assert.equal(levelOf('progs: [xdp], capabilities: [sys_admin]', 'capabilities', 'sys_admin'), 'medium')
  })

  test("assessRisk() rates the host's network by whether network programs are lent", () => {
    assert.equal(levelOf('progs: [xdp]', 'network', 'host', HOST), 'high')
    assert.equal(levelOf('progs: [socket_filter]', 'network', 'host', HOST), 'medium')
    assert.equal(levelOf('progs: [xdp]', 'network', 'host'), undefined)
  })

  test('assessRisk() has the level of its worst item, which comes first', () => {
    const { level, items } = assessRisk(policyWithRights('maps: [array], progs: [xdp, kprobe]'), VOCABULARY)
    assert.equal(level, 'critical')
    assert.equal(items[0]!.word, 'kprobe')
  })

  test('assessRisk() never falls when a bit is added', () => {
    const mask = fc.bigInt(0n, ANY_MASK)
    fc.assert(
      fc.property(mask, mask, mask, fc.nat(63), fc.boolean(), (progs, attachs, maps, bit, host) => {
        const base = policyWithRights('cmds: [prog_load]', host ? HOST : '')
        const level = (added: bigint) => {
          const masks = { cmds: 1n, maps: maps | added, progs: progs | added, attachs: attachs | added }
          return assessRisk({ ...base, rights: { masks, capabilities: ['bpf'] } }, VOCABULARY).level
        }
        assert.ok(compareRisk(level(1n << BigInt(bit)), level(0n)) >= 0)
      }),
    )
  })
})
