/**
 * explain: situations made for real. A workload makes its calls on the kernel, each refusal is
 * explained, the change that is proposed is applied, and the next run shows the next cause, or
 * success.
 */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { residue, snapshot } from '../../../scripts/residue.ts'
import { ATTACH_TYPES, MAP_TYPES, PROG_TYPES } from '../../../src/ebpf/type-names.ts'
import { needsTokens } from '../../helpers/machine.ts'
import { Scratch } from '../../helpers/scratch.ts'
import { ENOUGH, explained, HASH, NR_BPF, type Rights, under, ZERO } from './explained.ts'

const machine = needsTokens()
const scratch = new Scratch()
const before = snapshot()
after(async () => {
  scratch[Symbol.dispose]()
  assert.deepEqual(await residue(before), [])
})

interface Row {
  readonly call: string
  readonly perl: string
  /** What is explained, run by run, each change applied; then it succeeds. */
  readonly causes: readonly string[]
}

function mapRow(word: string, more: string[] = [], shape = '4, 4, 1, 0'): Row {
  return {
    call: `map_create ${word}`,
    perl: `map_create(${MAP_TYPES.number(word as never)}, ${shape})`,
    causes: [
      `token-command cmds map_create`,
      `token-map-type maps ${word}`,
      ...more.map(name => `capability capabilities ${name}`),
    ],
  }
}

function progRow(word: string, attach: string, more: string[] = [], given = attach, flags = 0): Row {
  const number = given === '0' ? 0 : ATTACH_TYPES.number(given as never)
  return {
    call: `prog_load ${word} ${ATTACH_TYPES.word(number)}`,
    perl: `prog_load(${PROG_TYPES.number(word as never)}, ${number}, ${flags})`,
    causes: [
      `token-command cmds prog_load`,
      `token-prog-type progs ${word}`,
      `token-attach-type attachs ${attach}`,
      ...more.map(name => `capability capabilities ${name}`),
    ],
  }
}

const NET = ['net_admin']
const PERF = ['perfmon']
const MAPS: readonly Row[] = [
  ...['hash', 'array', 'percpu_hash', 'percpu_array', 'lru_hash', 'lru_percpu_hash'].map(word =>
    mapRow(word),
  ),
  ...['prog_array', 'cgroup_array', 'perf_event_array'].map(word => mapRow(word)),
  mapRow('stack_trace', [], '4, 8, 1, 0'),
  ...['queue', 'stack', 'bloom_filter'].map(word => mapRow(word, [], '0, 4, 1, 0')),
  mapRow('ringbuf', [], '0, 0, 4096, 0'),
  mapRow('user_ringbuf', [], '0, 0, 4096, 0'),
  mapRow('lpm_trie', [], '8, 4, 1, 1'),
  ...['devmap', 'devmap_hash', 'xskmap', 'sockmap', 'sockhash'].map(word => mapRow(word, NET)),
]
const PROGRAMS: readonly Row[] = [
  progRow('socket_filter', ZERO),
  progRow('cgroup_skb', 'cgroup_inet_egress'),
  progRow('cgroup_skb', ZERO),
  progRow('sk_reuseport', 'sk_reuseport_select', [], '0'),
  progRow('sk_lookup', 'sk_lookup'),
  progRow('xdp', 'xdp', NET),
  progRow('sched_cls', ZERO, NET),
  progRow('sched_cls', 'tcx_ingress', NET),
  progRow('sched_act', ZERO, NET),
  progRow('sock_ops', 'cgroup_sock_ops', NET),
  progRow('sk_skb', 'sk_skb_verdict', NET),
  progRow('sk_msg', 'sk_msg_verdict', NET),
  progRow('cgroup_device', 'cgroup_device', NET),
  progRow('cgroup_sock', 'cgroup_inet_sock_create', NET, '0'),
  progRow('cgroup_sock_addr', 'cgroup_inet4_bind', NET),
  progRow('cgroup_sysctl', 'cgroup_sysctl', NET),
  progRow('cgroup_sockopt', 'cgroup_getsockopt', NET),
  progRow('flow_dissector', 'flow_dissector', NET),
  progRow('lwt_in', ZERO, NET),
  progRow('lwt_out', ZERO, NET),
  progRow('lwt_xmit', ZERO, NET),
  progRow('kprobe', ZERO, PERF),
  progRow('tracepoint', ZERO, PERF),
  progRow('perf_event', ZERO, PERF),
  progRow('raw_tracepoint', ZERO, PERF),
  { call: 'btf_load', perl: 'btf_load()', causes: ['token-command cmds btf_load'] },
]

let situations = 0

/** Runs the rows, applies each change that is proposed, and again, until none is refused. */
async function untilAllSucceed(rows: readonly Row[]): Promise<void> {
  // Something must be lent, and nothing that a row asks for.
  const rights: Rights = {
    cmds: ['btf_get_fd_by_id'],
    maps: [],
    progs: [],
    attachs: [],
    capabilities: ['bpf'],
  }
  const script = rows.map(({ perl }) => perl).join(';\n')
  const longest = Math.max(...rows.map(({ causes }) => causes.length))
  for (let round = 0; round <= longest; round++) {
    const answers = await explained(scratch, under(scratch, rights), script)
    assert.equal(answers.length, rows.length)
    for (const [i, { seen, explained: of }] of answers.entries()) {
      const { call, causes } = rows[i]!
      const expected = causes[round]
      const { cause, policy } = of
      assert.equal(of.call, call)
      if (expected === undefined) {
        assert.deepEqual([call, seen.errno, cause, of.verdict], [call, undefined, 'none', 'ok'])
        continue
      }
      assert.deepEqual(
        [call, seen.errno, `${cause} ${policy?.list} ${policy?.word}`, of.verdict],
        [call, 'EPERM', expected, 'refused'],
      )
      situations++
      if (!rights[policy!.list].includes(policy!.word)) rights[policy!.list].push(policy!.word)
    }
  }
}

test(
  'each refusal of a map names the right that is missing; with it the next cause comes, or success',
  machine,
  () => untilAllSucceed(MAPS),
)

test('each refusal of a program or of types does, too', machine, () => untilAllSucceed(PROGRAMS))

test('a loader that makes no token is told from a token that does not cover', machine, async () => {
  const [without, withToken] = await explained(
    scratch,
    under(scratch, ENOUGH),
    `my @kept = ($t, $with); ($t, $with) = (0, 0); ${HASH}; ($t, $with) = @kept; ${HASH}`,
  )
  assert.deepEqual([without!.seen.errno, without!.explained.cause], ['EPERM', 'no-token'])
  // The change, which is to name one.
  assert.deepEqual([withToken!.seen.errno, withToken!.explained.cause], [undefined, 'none'])
  situations++
})

test(
  'of a call that names no token, no line of the policy is said before it names one',
  machine,
  async () => {
    const narrow = { ...ENOUGH, maps: ['array'] }
    const [unnamed, named] = await explained(
      scratch,
      under(scratch, narrow),
      `my @kept = ($t, $with); ($t, $with) = (0, 0); ${HASH}; ($t, $with) = @kept; ${HASH}`,
    )
    assert.deepEqual(
      [unnamed!.seen.errno, unnamed!.explained.cause, unnamed!.explained.policy],
      ['EPERM', 'no-token', undefined],
    )
    // The change, which is to name one, brings the next cause; and what that says, success.
    assert.deepEqual([named!.seen.errno, named!.explained.cause], ['EPERM', 'token-map-type'])
    const [lent] = await explained(scratch, under(scratch, ENOUGH), HASH)
    assert.deepEqual([lent!.seen.errno, lent!.explained.cause], [undefined, 'none'])
    situations++
  },
)

test('what the verifier refuses is no matter of rights', machine, async () => {
  const [bad, good] = await explained(
    scratch,
    under(scratch, ENOUGH),
    'prog_load(1, 0, 0, 1); prog_load(1, 0, 0)',
  )
  assert.ok(bad!.seen.errno === 'EACCES' || bad!.seen.errno === 'EINVAL')
  assert.equal(bad!.explained.cause, 'verifier')
  assert.deepEqual([good!.seen.errno, good!.explained.cause], [undefined, 'none'])
  situations++
})

test('a malformed request is no matter of rights', machine, async () => {
  const [bad, good] = await explained(scratch, under(scratch, ENOUGH), `map_create(1, 4, 4, 0, 0); ${HASH}`)
  assert.deepEqual([bad!.seen.errno, bad!.explained.cause], ['EINVAL', 'request'])
  assert.equal(good!.explained.cause, 'none')
  situations++
})

test('a user namespace to which nothing is lent', machine, async () => {
  const [refused] = await explained(scratch, ['unshare', '--user', '--map-root-user', '--mount'], HASH)
  assert.deepEqual([refused!.seen.errno, refused!.explained.cause], ['EPERM', 'no-delegation'])
  // The change, which is to lend.
  const [lent] = await explained(scratch, under(scratch, ENOUGH), HASH)
  assert.deepEqual([lent!.seen.errno, lent!.explained.cause], [undefined, 'none'])
  situations++
})

test('the initial user namespace, where tokens do not serve', machine, async () => {
  const as = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups']
  const [refused] = await explained(scratch, as, HASH)
  assert.deepEqual([refused!.seen.errno, refused!.explained.cause], ['EPERM', 'initial-namespace'])
  assert.deepEqual(refused!.explained.capabilities, ['CAP_BPF'])
  // The change: the capability that it names.
  const [given] = await explained(scratch, [...as, '--inh-caps', '+bpf', '--ambient-caps', '+bpf'], HASH)
  assert.deepEqual([given!.seen.errno, given!.explained.cause], [undefined, 'none'])
  situations++
})

const [NR_PRCTL, NR_SECCOMP, NR_CAPSET] = process.arch === 'arm64' ? [167, 277, 91] : [157, 317, 126]

test('a seccomp filter is told from the kernel', machine, async () => {
  // Load the number; for bpf(2) answer EPERM, else let it through.
  const filter = `my $f = pack("SCCL" x 4, 0x20,0,0,0, 0x15,0,1,${NR_BPF}, 0x06,0,0,0x50001, 0x06,0,0,0x7fff0000);
    syscall ${NR_PRCTL}, 38, 1, 0, 0, 0; syscall ${NR_SECCOMP}, 1, 0, pack("S x6 Q", 4, at($f))`
  const [filtered] = await explained(scratch, under(scratch, ENOUGH), `${filter}; ${HASH}`)
  assert.deepEqual([filtered!.seen.errno, filtered!.explained.cause], ['EPERM', 'seccomp'])
  const [open] = await explained(scratch, under(scratch, ENOUGH), HASH)
  assert.deepEqual([open!.seen.errno, open!.explained.cause], [undefined, 'none'])
  situations++
})

test('CAP_BPF is missing inside, for the token and for its use', machine, async () => {
  const drop = `my ($head, $none) = (pack("LL", 0x20080522, 0), pack("L6", (0) x 6)); syscall ${NR_CAPSET}, $head, $none`
  const answers = await explained(
    scratch,
    under(scratch, ENOUGH),
    `${drop}; ${HASH}; ($t, $with) = (0, 0); ${HASH}`,
  )
  for (const { seen, explained: of } of answers) {
    assert.deepEqual(
      [seen.errno, of.cause, of.policy],
      ['EPERM', 'capability', { list: 'capabilities', word: 'bpf' }],
    )
    situations++
  }
  const [kept] = await explained(scratch, under(scratch, ENOUGH), HASH)
  assert.deepEqual([kept!.seen.errno, kept!.explained.cause], [undefined, 'none'])
})

test('how many situations were made', machine, () => {
  assert.ok(situations >= 60, `${situations}`)
  process.stdout.write(`# explain: ${situations} situations, each refused, changed, and tried again\n`)
})
