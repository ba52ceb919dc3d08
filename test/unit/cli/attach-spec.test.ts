import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseAttachSpec } from '../../../src/cli/attach-spec.ts'
import { UsageError } from '../../../src/errors.ts'

test('parseAttachSpec() reads each form, and refuses what is none', () => {
  for (const [text, spec] of [
    ['xdp:eth0', { kind: 'xdp', device: 'eth0' }],
    ['xdp:eth0/skb', { kind: 'xdp', device: 'eth0', mode: 'skb' }],
    ['tcx:eth0/egress', { kind: 'tcx', device: 'eth0', direction: 'egress' }],
    ['netkit:nk0/peer', { kind: 'netkit', device: 'nk0', end: 'peer' }],
    ['cgroup:/sys/fs/cgroup/a:b', { kind: 'cgroup', path: '/sys/fs/cgroup/a:b' }],
    ['netns:/run/netns/x', { kind: 'netns', path: '/run/netns/x' }],
  ] as const)
    assert.deepEqual(parseAttachSpec(text), spec, text)
  for (const text of [
    ...[
      '',
      'xdp',
      'xdp:',
      'xdp:eth0/fast',
      'tcx:eth0',
      'tcx:eth0/up',
      'netkit:nk0',
      'netkit:nk0/ingress',
      'kprobe:x',
      ' xdp:eth0',
    ],
    ...['xdp:/skb', 'tcx:/ingress', 'xdp:eth0/skb/', 'tcx:lo/ingress/', 'tcx:lo/ingress/=xdp:lo'],
  ])
    assert.throws(() => parseAttachSpec(text), UsageError, text)
})
