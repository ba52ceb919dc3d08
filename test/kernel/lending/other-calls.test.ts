/**
 * explain: calls for which the kernel asks no token. Each is refused for real, changed as the
 * explanation says, and tried again.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, chownSync } from 'node:fs'
import { after, test } from 'node:test'
import { residue, snapshot } from '../../../scripts/residue.ts'
import { ATTACH_TYPES, CMDS, PROG_TYPES } from '../../../src/ebpf/type-names.ts'
import { cli } from '../../helpers/cli.ts'
import { needsTokens } from '../../helpers/machine.ts'
import { Scratch } from '../../helpers/scratch.ts'
import { type Answer, ENOUGH, explained, NR_BPF, policyText, type Rights, under, ZERO } from './explained.ts'

const machine = needsTokens()
const scratch = new Scratch()
const before = snapshot()
after(async () => {
  scratch[Symbol.dispose]()
  assert.deepEqual(await residue(before), [])
})

const told = ({ seen, explained: { call, cause } }: Answer) => [call, seen.errno, cause]
const NR_PERF = process.arch === 'arm64' ? 241 : 298
let variables = 0

/** Perl: a command with its attributes. */
function bpf(cmd: string, attr: string): string {
  const name = `$a${++variables}`
  return `my ${name} = ${attr}; syscall ${NR_BPF}, ${CMDS.number(cmd as never)}, ${name}, length ${name}`
}

/** Of the first object of its kind, if there is one that it may see. */
function byId(kind: string): string {
  const name = `$i${++variables}`
  const next = CMDS.number(`${kind}_get_next_id` as never)
  return `my ${name} = pack("L2", 0, 0); syscall ${NR_BPF}, ${next}, ${name}, 8; ${bpf(`${kind}_get_fd_by_id`, `pack("L3", (unpack "L2", ${name})[1], 0, 0)`)}`
}

const INGRESS = ATTACH_TYPES.number('tcx_ingress')
const HOST: Readonly<Record<string, string>> = {
  prog_get_fd_by_id: byId('prog'),
  map_get_fd_by_id: byId('map'),
  prog_get_next_id: bpf('prog_get_next_id', 'pack("L3", 0, 0, 0)'),
  map_get_next_id: bpf('map_get_next_id', 'pack("L3", 0, 0, 0)'),
  btf_get_next_id: bpf('btf_get_next_id', 'pack("L3", 0, 0, 0)'),
  link_get_next_id: bpf('link_get_next_id', 'pack("L3", 0, 0, 0)'),
  link_get_fd_by_id: bpf('link_get_fd_by_id', 'pack("L", 4294967295)'),
  enable_stats: bpf('enable_stats', 'pack("L", 0)'),
  task_fd_query: bpf('task_fd_query', 'pack("L4 Q L2 Q2", $$, 0, 0, 0, 0, 0, 0, 0, 0)'),
  'prog_query tcx_ingress': bpf('prog_query', `pack("L4 Q L2 x32", 1, ${INGRESS}, 0, 0, 0, 0, 0)`),
  perf_event_open: `syscall ${NR_PERF}, my $p = pack("L2 Q x112", 1, 128, 0), -1, 0, -1, 0`,
}
/** These are answered with another errno where nothing is there. */
const OTHERWISE = ['link_get_fd_by_id', 'task_fd_query', 'link_get_next_id']

test(
  'what is asked of the host alone: no token serves, and outside of user namespaces it is done',
  machine,
  async () => {
    const script = Object.values(HOST).join(';\n')
    const inside = await explained(scratch, under(scratch, ENOUGH), script)
    for (const call of Object.keys(HOST)) {
      const answer = inside.findLast(one => one.explained.call === call)
      assert.ok(answer !== undefined, call)
      assert.deepEqual(told(answer), [call, call === 'perf_event_open' ? 'EACCES' : 'EPERM', 'host-only'])
      assert.equal(answer.foretold.cause, 'host-only', call)
      assert.ok(answer.explained.capabilities.length > 0, call)
    }
    // The change, which is to do it on the host with these capabilities.
    const outside = await explained(scratch, [], script)
    for (const call of Object.keys(HOST)) {
      const { seen, explained: of, foretold } = outside.findLast(one => one.explained.call === call)!
      assert.equal(foretold.cause, 'none', call)
      if (OTHERWISE.includes(call) && seen.errno !== undefined)
        assert.equal(of.cause, 'request', `${call} ${seen.errno}`)
      else assert.deepEqual([call, seen.errno, of.cause], [call, undefined, 'none'])
    }
  },
)

const EGRESS = ATTACH_TYPES.number('cgroup_inet_egress')
const SKB: Rights = { ...ENOUGH, progs: ['cgroup_skb'], attachs: [ZERO, 'cgroup_inet_egress'] }

test(
  'a program of cgroup_skb that was loaded with a token wants CAP_NET_ADMIN inside to be attached',
  machine,
  async () => {
    const load = `my $fd = prog_load(${PROG_TYPES.number('cgroup_skb')}, ${EGRESS}, 0);`
    const link = bpf('link_create', `pack("L4 x48", $fd, 9999, ${EGRESS}, 0)`)
    const attach = bpf('prog_attach', `pack("L5", 9999, $fd, ${EGRESS}, 0, 0)`)
    const run = async (capabilities: string[]) =>
      (
        await explained(scratch, under(scratch, { ...SKB, capabilities }), `${load} ${link}; ${attach}`)
      ).slice(-2)
    const refused = await run(['bpf'])
    assert.deepEqual(refused.map(told), [
      ['link_create cgroup_inet_egress', 'EPERM', 'capability'],
      ['prog_attach cgroup_inet_egress', 'EINVAL', 'capability'],
    ])
    for (const { explained: of, foretold } of refused) {
      assert.deepEqual(of.policy, { list: 'capabilities', word: 'net_admin' })
      assert.equal(foretold.cause, 'capability')
    }
    // The change; then the next cause comes, which is a cgroup that is not there.
    const next = await run(['bpf', 'net_admin'])
    assert.deepEqual(next.map(told), [
      ['link_create cgroup_inet_egress', 'EBADF', 'request'],
      ['prog_attach cgroup_inet_egress', 'EBADF', 'request'],
    ])
    assert.deepEqual(
      next.map(({ foretold }) => foretold.cause),
      ['none', 'none'],
    )
  },
)

const MAP = 'my $map = map_create(1, 4, 4, 1, 0);'
const LENT = '/sys/fs/bpf'
const there = (pid: number, path = ''): string => `/proc/${pid}/root${LENT}${path}`

function named(cmd: 'obj_pin' | 'obj_get', path: string, fd: string, flags = 0): string {
  const name = `$n${++variables}`
  return `my ${name} = "${path}\\0"; ${bpf(cmd, `pack("Q L2 l x4", at(${name}), ${fd}, ${flags}, 0)`)}`
}
const pin = (path: string): string => named('obj_pin', path, '$map')
const get = (path: string, flags = 0): string => named('obj_get', path, '0', flags)

test(
  'pins: not in a bpffs, a name that is taken, one with a dot, none; and what is right',
  machine,
  async () => {
    const calls = [
      pin('/tmp/flows'),
      ...[pin(`${LENT}/flows`), pin(`${LENT}/flows`), pin(`${LENT}/a.b`)],
      ...[get(`${LENT}/none`), get(`${LENT}/flows`)],
    ]
    const script = `${MAP} ${calls.join('; ')}`
    const answers = (await explained(scratch, under(scratch, ENOUGH), script)).slice(1)
    assert.deepEqual(answers.map(told), [
      ['obj_pin "/tmp/flows"', 'EPERM', 'not-bpffs'],
      ['obj_pin "/sys/fs/bpf/flows"', undefined, 'none'],
      ['obj_pin "/sys/fs/bpf/flows"', 'EEXIST', 'request'],
      ['obj_pin "/sys/fs/bpf/a.b"', 'EPERM', 'request'],
      ['obj_get "/sys/fs/bpf/none"', 'ENOENT', 'request'],
      ['obj_get "/sys/fs/bpf/flows"', undefined, 'none'],
    ])
    assert.equal(answers[0]!.foretold.cause, 'not-bpffs')
    assert.equal(answers[5]!.foretold.cause, 'none')
  },
)

test('a directory that the process may not write to, and one that it may not search', machine, async () => {
  const run = async (mode: number) => {
    const close = (pid: number): void => {
      chownSync(there(pid), 12345, 12345)
      chmodSync(there(pid), mode)
    }
    const script = `${MAP} stage; ${pin(`${LENT}/flows`)}; ${get(`${LENT}/none`)}`
    return (await explained(scratch, under(scratch, ENOUGH), script, { at: [close] })).slice(1)
  }
  const unwritten = await run(0o755)
  assert.deepEqual(unwritten.map(told), [
    ['obj_pin "/sys/fs/bpf/flows"', 'EACCES', 'closed-directory'],
    ['obj_get "/sys/fs/bpf/none"', 'ENOENT', 'request'],
  ])
  assert.match(unwritten[0]!.explained.found, /^\/sys\/fs\/bpf: it belongs to user 12345 .* mode 0755/)
  const unsearched = await run(0o700)
  assert.deepEqual(unsearched.map(told), [
    ['obj_pin "/sys/fs/bpf/flows"', 'EACCES', 'closed-directory'],
    ['obj_get "/sys/fs/bpf/none"', 'EACCES', 'closed-directory'],
  ])
  assert.deepEqual(
    unsearched.map(({ foretold }) => foretold.cause),
    ['closed-directory', 'closed-directory'],
  )
  // The change: a mode that lets it in.
  const [open] = await run(0o777)
  assert.deepEqual(told(open!), ['obj_pin "/sys/fs/bpf/flows"', undefined, 'none'])
})

test('a pin of another user, which the process may not open', machine, async () => {
  const run = async (mode: number, flags = 0): Promise<Answer> => {
    const own = (pid: number): void => {
      chownSync(there(pid, '/flows'), 12345, 12345)
      chmodSync(there(pid, '/flows'), mode)
    }
    const script = `${MAP} ${pin(`${LENT}/flows`)}; stage; ${get(`${LENT}/flows`, flags)}`
    return (await explained(scratch, under(scratch, ENOUGH), script, { at: [own] })).at(-1)!
  }
  const closed = await run(0o600)
  assert.deepEqual(told(closed), ['obj_get "/sys/fs/bpf/flows"', 'EACCES', 'closed-pin'])
  assert.match(
    closed.explained.found,
    /user 12345 and group 12345 of the host with mode 0600, and the process is user/,
  )
  assert.equal(closed.foretold.cause, 'closed-pin')
  // The changes: a mode, or to ask for less.
  assert.deepEqual(told(await run(0o666)), ['obj_get "/sys/fs/bpf/flows"', undefined, 'none'])
  assert.deepEqual(told(await run(0o644)), ['obj_get "/sys/fs/bpf/flows"', 'EACCES', 'closed-pin'])
  const BPF_F_RDONLY = 8
  assert.deepEqual(told(await run(0o644, BPF_F_RDONLY)), [
    ...['obj_get "/sys/fs/bpf/flows"', undefined, 'none'],
  ])
})

test('a user whom the user namespace of the bpffs does not have', machine, async () => {
  const words = ['--user', '--map-root-user', '--mount', 'sh', '-c', 'echo ready; read line']
  const borrower = spawn('unshare', words, { stdio: ['pipe', 'pipe', 'inherit'] })
  try {
    await once(borrower.stdout, 'data')
    const policy = scratch.write('lent.yaml', policyText(ENOUGH, '  network: host'))
    const lent = await cli(['delegate', '--pid', String(borrower.pid), '--policy', policy])
    assert.equal(lent.status, 0, lent.stderr)
    // Of the host, where the bpffs is seen.
    const there = ['nsenter', `--mount=/proc/${borrower.pid}/ns/mnt`]
    const caps = ['--clear-groups', '--inh-caps', '+bpf', '--ambient-caps', '+bpf']
    const nobody = ['setpriv', '--reuid', '65534', '--regid', '65534', ...caps]
    const run = async (as: string[]): Promise<Answer> =>
      (await explained(scratch, [...there, ...as], `${MAP} ${pin(`${LENT}/theirs`)}`)).at(-1)!
    const foreign = await run(nobody)
    assert.deepEqual(told(foreign), ['obj_pin "/sys/fs/bpf/theirs"', 'EOVERFLOW', 'foreign-user'])
    // The change: a user whom it has.
    assert.deepEqual(told(await run([])), ['obj_pin "/sys/fs/bpf/theirs"', undefined, 'none'])
  } finally {
    borrower.stdin.end('\n')
    await once(borrower, 'exit')
  }
})
