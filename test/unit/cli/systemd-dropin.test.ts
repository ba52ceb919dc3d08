import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { commandsOf, nativeDropin, runDropin } from '../../../src/cli/systemd-dropin.ts'
import { parsePolicy } from '../../../src/policy/parse.ts'
import { systemdWord } from '../../../src/policy/systemd-words.ts'
import { ANY_MASK, vocabularyFrom } from '../../../src/policy/vocabulary.ts'

const VOCABULARY = vocabularyFrom({
  bpf_cmd: { BPF_MAP_CREATE: 0, BPF_PROG_LOAD: 5 },
  bpf_map_type: { BPF_MAP_TYPE_ARRAY: 2, BPF_MAP_TYPE_LPM_TRIE: 11 },
  bpf_prog_type: { BPF_PROG_TYPE_XDP: 6, BPF_PROG_TYPE_SYSCALL: 31 },
  bpf_attach_type: { BPF_CGROUP_INET_INGRESS: 0, BPF_XDP: 37 },
})

const policy = (network: string, more = '') =>
  parsePolicy(
    `apiVersion: bpftoken.dev/v1
kind: DelegationPolicy
metadata: { name: agent }
spec:
  rights:
    cmds: [map_create, prog_load]
    maps: [array, lpm_trie]
    progs: [xdp]
    attachs: [xdp, cgroup_inet_ingress]
    capabilities: [bpf, net_admin]
  network: ${network}
${more}`,
    { source: 'agent.yaml', vocabulary: VOCABULARY },
  )

suite('drop-ins of systemd', () => {
  test('systemdWord() is what systemd calls it', () => {
    assert.equal(systemdWord('cmds', 'prog_load'), 'BPFProgLoad')
    assert.equal(systemdWord('maps', 'lpm_trie'), 'BPFMapTypeLpmTrie')
    assert.equal(systemdWord('progs', 'xdp'), 'BPFProgTypeXdp')
    assert.equal(systemdWord('attachs', 'cgroup_inet_ingress'), 'BPFCgroupInetIngress')
  })

  test('systemd that delegates by itself is told all four masks, and to make the mount namespace the second', () => {
    const lines = nativeDropin(policy('own'), VOCABULARY, undefined).split('\n')
    assert.deepEqual(
      lines.filter(line => !line.startsWith('#')),
      [
        '[Service]',
        'PrivateUsers=yes',
        'DelegateNamespaces=mnt',
        'PrivateBPF=yes',
        'BPFDelegateCommands=BPFMapCreate,BPFProgLoad',
        'BPFDelegateMaps=BPFMapTypeArray,BPFMapTypeLpmTrie',
        'BPFDelegatePrograms=BPFProgTypeXdp',
        'BPFDelegateAttachments=BPFCgroupInetIngress,BPFXdp',
        'PrivateNetwork=yes',
        'CapabilityBoundingSet=~CAP_PERFMON CAP_SYS_ADMIN',
        '',
      ],
    )
    const ofUser = nativeDropin(policy('host'), VOCABULARY, 'alice')
    assert.match(ofUser, /^AmbientCapabilities=CAP_BPF CAP_NET_ADMIN$/mu)
    assert.doesNotMatch(ofUser, /PrivateNetwork/)
  })

  test('a type that systemd has no word for is refused, and lent with all others', () => {
    const lends = (progs: bigint) => {
      const { rights, ...rest } = policy('own')
      return { ...rest, rights: { ...rights, masks: { ...rights.masks, progs } } }
    }
    assert.throws(() => nativeDropin(lends(1n << 31n), VOCABULARY, undefined), /no word for syscall of progs/)
    assert.match(nativeDropin(lends(ANY_MASK), VOCABULARY, undefined), /\nBPFDelegatePrograms=any\n/)
  })

  test('an older one (252) starts the program by bpftoken run, with its prefix', () => {
    const lines = runDropin(
      'agent',
      ['/usr/sbin/agent --fast "a b"', '-/bin/true'],
      '/usr/bin/bpftoken',
    ).split('\n')
    assert.deepEqual(
      lines.filter(line => !line.startsWith('#')),
      [
        '[Service]',
        'ExecStart=',
        'ExecStart=/usr/bin/bpftoken run --policy agent -- /usr/sbin/agent --fast "a b"',
        'ExecStart=-/usr/bin/bpftoken run --policy agent -- /bin/true',
        '',
      ],
    )
  })

  test('commandsOf() reads what systemctl cat prints, but not our own file', () => {
    const text = `# /usr/lib/systemd/system/agent.service
[Unit]
ExecStart=/not/this
[Service]
ExecStart=/usr/sbin/agent \\
  --fast
# /etc/systemd/system/agent.service.d/10-more.conf
[Service]
ExecStart=
ExecStart = /usr/sbin/agent --slow
# /etc/systemd/system/agent.service.d/50-bpftoken.conf
[Service]
ExecStart=
ExecStart=/usr/bin/bpftoken run --policy agent -- /usr/sbin/agent --slow
`
    const ours = '/etc/systemd/system/agent.service.d/50-bpftoken.conf'
    assert.deepEqual(commandsOf(text, ours), ['/usr/sbin/agent --slow'])
    assert.deepEqual(commandsOf(text.slice(0, text.indexOf('# /etc')), ours), ['/usr/sbin/agent    --fast'])
    const commented = `# /etc/systemd/system/a.service
[Service]
# a note that ends in a backslash \\
ExecStart=/usr/bin/first --config /etc/a \\
# the sampling rate
  ; and another
  --rate 10 --drop-privileges
ExecStart=/usr/bin/second ends-in \\\\
Environment=A=1
`
    assert.deepEqual(commandsOf(commented, ours), [
      '/usr/bin/first --config /etc/a    --rate 10 --drop-privileges',
      '/usr/bin/second ends-in \\\\',
    ])
    assert.throws(() => commandsOf('[Service]\nType=simple\n', ours), /has no ExecStart=/)
    assert.throws(() => commandsOf('[Service]\nExecStart=+/bin/true\n', ours), /with @, \+, ! or \|/)
  })
})
