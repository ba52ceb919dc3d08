/**
 * explain: which bpffs a process comes to, which thread has called, and what flags, filters and limits
 * have to say. Each situation is made for real, explained, changed as the explanation says, and tried
 * again.
 */
import assert from 'node:assert/strict'
import { chmodSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { residue, snapshot } from '../../../scripts/residue.ts'
import { cli } from '../../helpers/cli.ts'
import { needsTokens } from '../../helpers/machine.ts'
import { Scratch } from '../../helpers/scratch.ts'
import { type Answer, ENOUGH, explained, HASH, NR_BPF, policyText, type Rights, under } from './explained.ts'

const machine = needsTokens()
const scratch = new Scratch()
const before = snapshot()
after(async () => {
  scratch[Symbol.dispose]()
  assert.deepEqual(await residue(before), [])
})

const [NR_PRCTL, NR_SECCOMP, NR_CAPSET, NR_PRLIMIT, NR_UNSHARE] =
  process.arch === 'arm64' ? [167, 277, 91, 261, 97] : [157, 317, 126, 302, 272]
const OWN = ['unshare', '--user', '--map-root-user', '--mount']
const DROP = `my ($head, $none) = (pack("LL", 0x20080522, 0), pack("L6", (0) x 6)); syscall ${NR_CAPSET}, $head, $none;`
const AGAIN = `($t, $with) = (0, 0); take_token();`
const ALLOWED = [undefined, 'none', 'ok']

const told = ({ seen, explained: { cause, verdict } }: Answer) => [seen.errno, cause, verdict]

async function lend(pid: number, rights: Rights, ...where: string[]): Promise<void> {
  const policy = scratch.write('lent.yaml', policyText(rights, '  network: host'))
  const { status, stderr } = await cli(['delegate', '--pid', String(pid), '--policy', policy, ...where])
  assert.equal(status, 0, stderr)
}

for (const [how, hide, over] of [
  ['a file system over it', 'mount -t tmpfs x /sys/fs/bpf', '/sys/fs/bpf'],
  ['one over what is above it', 'mount -t tmpfs x /sys/fs; mkdir /sys/fs/bpf', '/sys/fs'],
  ['a directory over it', 'mount --bind /srv /sys/fs/bpf', '/sys/fs/bpf'],
] as const)
  test(`a bpffs that is hidden by ${how} is none`, machine, async () => {
    const [hidden] = await explained(scratch, OWN, `stage; system "${hide}"; ${AGAIN} ${HASH}`, {
      alone: true,
      at: [pid => lend(pid, ENOUGH)],
    })
    assert.deepEqual(told(hidden!), ['EPERM', 'hidden-bpffs', 'refused'])
    assert.equal(hidden!.foretold.cause, 'hidden-bpffs')
    assert.match(hidden!.explained.found, /something else is mounted over \/sys\/fs\/bpf$/)
    // The change: another place; or it is taken away.
    const [lent, shown] = await explained(
      scratch,
      OWN,
      `stage; system "${hide}"; stage; take_token("/mnt"); ${HASH}; system "umount ${over}"; ${AGAIN} ${HASH}`,
      { alone: true, at: [pid => lend(pid, ENOUGH), pid => lend(pid, ENOUGH, '--path', '/mnt')] },
    )
    assert.deepEqual(told(shown!), ALLOWED)
    assert.deepEqual(told(lent!), ALLOWED)
    assert.equal(lent!.foretold.verdict, 'ok')
  })

test('a bpffs on the way to which a directory is closed', machine, async () => {
  const closed = join(scratch.path, 'closed')
  const at = join(closed, 'b')
  mkdirSync(at, { recursive: true })
  const someone = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups', ...OWN]
  const run = (mode: number) =>
    explained(scratch, someone, `stage; take_token("${at}"); ${HASH}`, {
      alone: true,
      at: [
        async pid => {
          chmodSync(closed, 0o755)
          await lend(pid, ENOUGH, '--path', at)
          chmodSync(closed, mode)
        },
      ],
    })
  const [refused] = await run(0o700)
  assert.deepEqual(told(refused!), ['EPERM', 'closed-directory', 'refused'])
  assert.equal(refused!.foretold.cause, 'closed-directory')
  assert.ok(refused!.explained.needed.startsWith(`to search ${closed}, for ${at}`))
  // The change: a mode that lets it in.
  const [open] = await run(0o755)
  assert.deepEqual(told(open!), ALLOWED)
  assert.equal(open!.foretold.verdict, 'ok')
})

test(
  'of two loans that counts which a loader takes; another one is told by what it refuses',
  machine,
  async () => {
    const narrow = { ...ENOUGH, maps: ['array'] }
    const [usual, other] = await explained(
      scratch,
      OWN,
      `stage; take_token(); ${HASH}; take_token("/mnt"); ${HASH}`,
      {
        alone: true,
        at: [
          async pid => {
            await lend(pid, ENOUGH)
            await lend(pid, narrow, '--path', '/mnt')
          },
        ],
      },
    )
    assert.deepEqual(told(usual!), ALLOWED)
    assert.deepEqual([usual!.foretold.verdict, usual!.foretold.bpffs], ['ok', '/sys/fs/bpf'])
    assert.deepEqual(told(other!), ['EPERM', 'token-map-type', 'refused'])
    assert.equal(other!.explained.found, '/mnt lends maps: array')
    assert.match(other!.explained.notes.join(), /it must be one of \/mnt$/)
  },
)

test('a loan elsewhere is none that a loader finds by itself, and that is said', machine, async () => {
  const run = (words: readonly string[]) =>
    explained(scratch, [...words, ...OWN], `stage; take_token("/mnt"); ${HASH}`, {
      alone: true,
      at: [pid => lend(pid, ENOUGH, '--path', '/mnt')],
    })
  const note = /a loader looks at \/sys\/fs\/bpf: for \/mnt tell it LIBBPF_BPF_TOKEN_PATH=\/mnt/
  const [lent] = await run([])
  assert.deepEqual(told(lent!), ALLOWED)
  assert.match(lent!.foretold.notes.join(), note)
  // The change.
  const [said] = await run(['env', 'LIBBPF_BPF_TOKEN_PATH=/mnt'])
  assert.deepEqual([said!.foretold.verdict, said!.foretold.notes], ['ok', []])
  // A path at which there is none: a loader gives up, and the call that it made before is what is seen.
  const [lost] = await explained(scratch, ['env', 'LIBBPF_BPF_TOKEN_PATH=/nope', ...OWN], `stage; ${HASH}`, {
    alone: true,
    at: [pid => lend(pid, ENOUGH)],
  })
  assert.deepEqual(told(lost!), ['EPERM', 'no-token', 'refused'])
  assert.match(
    lost!.explained.notes.join(),
    /a loader looks at \/nope, as LIBBPF_BPF_TOKEN_PATH says: for \/sys\/fs\/bpf tell it/,
  )
})

test('a bpffs of another user namespace, where nothing can be lent beside it', machine, async () => {
  const nested = [
    ...OWN,
    'sh',
    '-c',
    'echo stage $$; read line; exec unshare --user --map-root-user "$@"',
    'sh',
  ]
  const [foreign] = await explained(scratch, nested, HASH, { at: [pid => lend(pid, ENOUGH)] })
  assert.deepEqual(told(foreign!), ['EPERM', 'foreign-mounts', 'refused'])
  assert.equal(foreign!.foretold.cause, 'foreign-mounts')
  // The change: a mount namespace of its own; then it is lent to.
  const own = [...OWN, 'sh', '-c', `echo stage $$; read line; exec ${OWN.join(' ')} "$@"`, 'sh']
  const [lent] = await explained(scratch, own, `stage; take_token("/mnt"); ${HASH}`, {
    at: [pid => lend(pid, ENOUGH), pid => lend(pid, ENOUGH, '--path', '/mnt')],
  })
  assert.deepEqual(told(lent!), ALLOWED)
})

test('of a thread its own capabilities count, and of a process others are named', machine, async () => {
  const inThread = (words: string): string =>
    `use threads; my $done = 0; threads->create(sub { ${words} ${HASH}; sleep 600 })->detach; select undef, undef, undef, 0.5; ${HASH}`
  const run = (words: string) => explained(scratch, under(scratch, ENOUGH), inThread(words))
  const [bare, first] = await run(DROP)
  assert.notEqual(bare!.seen.tid, bare!.seen.pid)
  assert.deepEqual(told(bare!), ['EPERM', 'capability', 'refused'])
  assert.deepEqual(told(first!), ALLOWED)
  assert.match(first!.foretold.notes.join(), new RegExp(`of its threads ${bare!.seen.tid} has other rights`))
  // The change: the capability.
  const [kept, same] = await run('')
  assert.deepEqual([told(kept!), told(same!)], [ALLOWED, ALLOWED])
  assert.doesNotMatch(same!.foretold.notes.join(), /of its threads/)
})

test('flags that need more than a token, and those that the kernel does not know', machine, async () => {
  const [seed, unknown, map, program] = await explained(
    scratch,
    under(scratch, ENOUGH),
    `map_create(1, 4, 4, 1, 64); prog_load(1, 0, 1 << 30); ${HASH}; prog_load(1, 0, 0)`,
  )
  assert.deepEqual(told(seed!), ['EPERM', 'host-only', 'refused'])
  assert.deepEqual(seed!.explained.capabilities, ['CAP_SYS_ADMIN'])
  assert.deepEqual(told(unknown!), ['EINVAL', 'request', 'refused'])
  // The change: without.
  assert.deepEqual([told(map!), told(program!)], [ALLOWED, ALLOWED])
})

test('what a seccomp filter would say is not known, and not said', machine, async () => {
  const filter = (answer: string): string =>
    `my $f = pack("SCCL" x 4, 0x20,0,0,0, 0x15,0,1,${NR_BPF}, 0x06,0,0,${answer}, 0x06,0,0,0x7fff0000);
    syscall ${NR_PRCTL}, 38, 1, 0, 0, 0; syscall ${NR_SECCOMP}, 1, 0, pack("S x6 Q", 4, at($f));`
  const run = (words: string) => explained(scratch, under(scratch, ENOUGH), `${words} ${HASH}`)
  const [refused] = await run(filter('0x50001'))
  assert.deepEqual(told(refused!), ['EPERM', 'seccomp', 'refused'])
  assert.match(
    refused!.foretold.notes.join(),
    /a seccomp filter is on: what it answers to bpf\(2\) is not known/,
  )
  assert.deepEqual(
    refused!.foretold.checks.filter(({ rule }) => rule.name.startsWith('seccomp')),
    [],
  )
  // The change: one that lets it through. Of a call that was made, that is known.
  const [open] = await run(filter('0x7fff0000'))
  assert.deepEqual(told(open!), ALLOWED)
  assert.ok(open!.explained.checks.some(({ rule, passed }) => rule.name.startsWith('seccomp') && passed))
})

test('descriptors above a limit take no room below it', machine, async () => {
  const low = `my $low = pack("QQ", 64, 64); syscall ${NR_PRLIMIT}, 0, 7, $low, 0;`
  const run = (words: string) => explained(scratch, under(scratch, ENOUGH), `${words} ${HASH}`)
  const [free] = await run(`use POSIX; for (500 .. 599) { POSIX::dup2(0, $_) } ${low}`)
  assert.deepEqual(told(free!), ALLOWED)
  assert.equal(free!.foretold.verdict, 'ok')
  const [full] = await run(`${low} my @all; while (open my $f, "<", "/dev/null") { push @all, $f }`)
  assert.deepEqual(told(full!), ['EMFILE', 'descriptor-limit', 'refused'])
  assert.equal(full!.foretold.cause, 'descriptor-limit')
})

test('what the next program loses is said', machine, async () => {
  const apart = (inside: number): string => {
    const map = (of: string): string =>
      `open F, ">", "/proc/self/${of}_map"; print F "${inside} 65534 1"; close F;`
    return `syscall ${NR_UNSHARE}, 0x10020000; ${map('uid')} stage; take_token(); ${HASH}`
  }
  const someone = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups']
  const run = (inside: number) =>
    explained(scratch, someone, apart(inside), { alone: true, at: [pid => lend(pid, ENOUGH)] })
  const [user] = await run(1000)
  assert.deepEqual(told(user!), ALLOWED)
  assert.match(
    user!.foretold.notes.join(),
    /the next program that it executes has no CAP_BPF, which is not ambient/,
  )
  // Root's programs have them.
  const [root] = await run(0)
  assert.deepEqual([told(root!), root!.foretold.notes], [ALLOWED, []])
})
