import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { lintPolicy } from '../../../src/policy/lint.ts'
import { policyWithRights, VOCABULARY } from './sample-kernel.ts'

function rulesOf(rights: string, more = ''): string[] {
  return lintPolicy(policyWithRights(rights, more), VOCABULARY).map(({ rule }) => rule)
}

const XDP = 'cmds: [map_create, prog_load, btf_load], maps: [array], capabilities: [bpf, net_admin]'
const LIBBPF_XDP = `${XDP}, progs: [xdp, socket_filter], attachs: [xdp, cgroup_inet_ingress]`
const SUBJECTS = '  subjects: [{ user: alice }]\n'

/** Each rule with rights that it finds fault with, and a twin that it lets pass. */
const TWINS: [rule: string, faulty: string, sound: string][] = [
  ['nothing-lent', '', 'cmds: [map_create]'],
  ['idle-command', 'cmds: [map_create, obj_pin]', 'cmds: [map_create]'],
  ['idle-command', 'cmds: [token_create]', 'cmds: [any]'],
  ['command-without-types', 'cmds: [map_create]', 'cmds: [map_create], maps: [array]'],
  ['command-without-types', 'cmds: [prog_load]', 'cmds: [prog_load], progs: [xdp]'],
  ['types-without-command', 'maps: [array]', 'cmds: [map_create], maps: [array]'],
  ['types-without-command', 'cmds: [map_create], progs: [xdp]', 'cmds: [prog_load], progs: [xdp]'],
  ['nameless-bits', 'progs: [xdp, 0x8000000000000000]', 'progs: [xdp]'],
  ['nameless-bits', 'progs: [0x4000000000000000]', 'progs: [any]'],
  ['attach-zero', 'progs: [socket_filter]', 'progs: [socket_filter], attachs: [cgroup_inet_ingress]'],
  ['attach-zero', 'progs: [tracepoint], attachs: [xdp]', 'progs: [tracepoint], attachs: [0x1]'],
  ['missing-attach', 'progs: [xdp]', 'progs: [xdp], attachs: [xdp]'],
  ['missing-attach', 'progs: [xdp], attachs: [trace_fentry]', 'progs: [xdp], attachs: [cgroup_inet_ingress]'],
  ['missing-attach', 'progs: [any]', 'progs: [any], attachs: [any]'],
  ['idle-attach', 'progs: [xdp], attachs: [xdp, perf_event]', 'progs: [xdp], attachs: [xdp]'],
  ['idle-attach', 'progs: [xdp], attachs: [xdp, trace_fentry]', 'progs: [tracing], attachs: [trace_fentry]'],
  ['missing-capability', 'progs: [xdp], capabilities: [bpf]', 'progs: [xdp], capabilities: [bpf, net_admin]'],
  [
    'missing-capability',
    'progs: [cgroup_skb], capabilities: [bpf]',
    'progs: [cgroup_skb], capabilities: [bpf, net_admin]',
  ],
  ['missing-capability', 'progs: [kprobe]', 'progs: [kprobe], capabilities: [bpf, perfmon]'],
  [
    'missing-capability',
    'progs: [ext], capabilities: [bpf, perfmon]',
    'progs: [ext], capabilities: [bpf, sys_admin]',
  ],
  ['missing-capability', 'maps: [sockmap]', 'maps: [sockmap], capabilities: [bpf, net_admin]'],
  [
    'missing-capability',
    'cmds: [btf_get_fd_by_id]',
    'cmds: [btf_get_fd_by_id], capabilities: [bpf, sys_admin]',
  ],
  ['missing-capability', 'maps: [array], capabilities: [sys_admin]', 'maps: [array], capabilities: [bpf]'],
  [
    'idle-capability',
    'maps: [array], capabilities: [bpf, perfmon]',
    'progs: [tracing], capabilities: [bpf, perfmon]',
  ],
  ['unusable-kprobe', 'progs: [kprobe], attachs: [0x1]', 'progs: [kprobe], attachs: [trace_uprobe_multi]'],
  ['unusable-perf-ring', 'maps: [perf_event_array]', 'maps: [ringbuf]'],
  ['libbpf-trivial-program', `${XDP}, progs: [xdp], attachs: [xdp]`, LIBBPF_XDP],
  ['libbpf-btf', LIBBPF_XDP.replace(', btf_load', ''), LIBBPF_XDP],
  ['libbpf-global-data', LIBBPF_XDP.replace('[array]', '[hash]'), LIBBPF_XDP],
]

/** The same, with terms instead of rights. */
const TRACING = 'progs: [tracing, kprobe, raw_tracepoint]'
const FUNCTIONS = 'targets: { functions: [tcp_connect] }'
const TERM_TWINS: [rule: string, rights: string, faulty: string, sound: string][] = [
  ['unheld-targets', TRACING, FUNCTIONS, 'targets: { functions: [] }'],
  ['irrevocable', LIBBPF_XDP, 'revocable: false', 'revocable: true'],
  ['permissive-without-events', LIBBPF_XDP, 'mode: permissive\n  events: none', 'mode: permissive'],
  ['permissive-without-events', LIBBPF_XDP, 'mode: permissive\n  events: none', 'events: none'],
  ['approval-of-root', LIBBPF_XDP, 'approval: required', 'approval: required\n  subjects: [{ user: alice }]'],
  ['nobody', LIBBPF_XDP, 'subjects: []', 'subjects: [{ user: alice }]'],
  [
    'unsupported-subject',
    LIBBPF_XDP,
    'subjects: [{ kubernetes: { namespace: x, serviceAccount: y } }]',
    'subjects: [{ kubernetes: { namespace: x, labels: { app: y } } }]',
  ],
  ['not-a-unit', LIBBPF_XDP, 'subjects: [{ unit: agent }]', 'subjects: [{ unit: agent* }]'],
  ['not-a-unit', LIBBPF_XDP, 'subjects: [{ unit: agent.slice }]', 'subjects: [{ unit: agent.scope }]'],
  ['shared-user', LIBBPF_XDP, 'subjects: [{ user: nobody }]', 'subjects: [{ user: somebody }]'],
  ['shared-user', LIBBPF_XDP, 'subjects: [{ user: 65534 }]', 'subjects: [{ user: 65533 }]'],
  [
    'nameable-cgroup',
    LIBBPF_XDP,
    'subjects: [{ cgroup: /**/a }]',
    'subjects: [{ cgroup: /system.slice/** }]',
  ],
  [
    'executable-alone',
    LIBBPF_XDP,
    'subjects: [{ executable: /a }]',
    'subjects: [{ executable: /a, user: u }]',
  ],
  [
    'any-namespace',
    LIBBPF_XDP,
    'subjects: [{ container: { name: a } }]',
    'subjects: [{ container: { name: a }, kubernetes: { namespace: n } }]',
  ],
]

describe('lintPolicy()', () => {
  for (const [rule, faulty, sound] of TWINS) {
    test(`lintPolicy() finds ${rule} in "${faulty}" and not in "${sound}"`, () => {
      assert.ok(rulesOf(faulty).includes(rule))
      assert.ok(!rulesOf(sound).includes(rule))
    })
  }

  for (const [rule, rights, faulty, sound] of TERM_TWINS) {
    test(`lintPolicy() finds ${rule} with "${faulty}" and not with "${sound}"`, () => {
      assert.ok(rulesOf(rights, `  ${faulty}\n`).includes(rule))
      assert.ok(!rulesOf(rights, `  ${sound}\n`).includes(rule))
    })
  }

  test('lintPolicy() names the types that a list of functions does not hold, and is silent where it does', () => {
    const unheld = (rights: string) =>
      lintPolicy(policyWithRights(rights, `  ${FUNCTIONS}\n`), VOCABULARY).find(
        ({ rule }) => rule === 'unheld-targets',
      )
    assert.match(unheld(TRACING)!.message, /^kprobe, raw_tracepoint choose/)
    assert.match(unheld('progs: [any]')!.message, /^kprobe, tracepoint, .*perf_event choose/)
    assert.equal(unheld('progs: [tracing, lsm, struct_ops]'), undefined)
  })

  test('lintPolicy() notes a policy that nobody may use, unless it has subjects', () => {
    assert.ok(rulesOf(LIBBPF_XDP).includes('no-subjects'))
    assert.ok(!rulesOf(LIBBPF_XDP, SUBJECTS).includes('no-subjects'))
  })

  test('lintPolicy() notes limits that are not enforced, unless the guard is required', () => {
    const limits = `${SUBJECTS}  limits: { maps: 4 }\n`
    assert.ok(rulesOf(LIBBPF_XDP, `${limits}  guard: optional\n`).includes('unenforced-without-guard'))
    assert.ok(!rulesOf(LIBBPF_XDP, limits).includes('unenforced-without-guard'))
  })

  test('lintPolicy() finds nothing in a sound policy', () => {
    assert.deepEqual(rulesOf(LIBBPF_XDP, SUBJECTS), [])
  })
})
