/**
 * explain: what stands in the way beside rights and capabilities. Each situation is made for real,
 * explained, changed as the explanation says, and tried again.
 */
import assert from 'node:assert/strict'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { compiled } from '../../../scripts/compiled.ts'
import { cli } from '../../helpers/cli.ts'
import { CACHE, needsTokens, ROOT } from '../../helpers/machine.ts'
import { tidyScratch } from '../../helpers/tidy-scratch.ts'
import { xdpObject } from '../../helpers/xdp-object.ts'
import { type Answer, ENOUGH, explained, explainedRun, HASH, policyText, under, ZERO } from './explained.ts'

const machine = needsTokens()
const scratch = tidyScratch()

const told = ({ seen, explained: { cause, verdict } }: Answer) => [seen.errno, cause, verdict]
const ALLOWED = [undefined, 'none', 'ok']
const bpffsOf = (pid: number): string => `/proc/${pid}/root/sys/fs/bpf`

async function lend(pid: number, ...where: string[]): Promise<void> {
  const policy = scratch.write('lent.yaml', policyText(ENOUGH, '  network: host'))
  const { status, stderr } = await cli(['delegate', '--pid', String(pid), '--policy', policy, ...where])
  assert.equal(status, 0, stderr)
}

test('a mount namespace of another user namespace, in which nothing can be lent', machine, async () => {
  const own = ['unshare', '--user', '--map-root-user']
  const [foreign] = await explained(scratch, own, HASH)
  assert.deepEqual(told(foreign!), ['EPERM', 'foreign-mounts', 'refused'])
  assert.equal(foreign!.foretold.cause, 'foreign-mounts')
  // The change: a mount namespace of its own. Then the next cause, and with that change success.
  const [unlent, lent] = await explained(
    scratch,
    [...own, '--mount'],
    `${HASH}; stage; take_token(); ${HASH}`,
    {
      at: [pid => lend(pid)],
    },
  )
  assert.equal(unlent!.seen.errno, 'EPERM')
  assert.deepEqual(told(lent!), ALLOWED)
})

test('a bpffs of another user namespace, which is seen and is no good', machine, async () => {
  const own = ['unshare', '--user', '--map-root-user', '--mount']
  const nested = [...own, 'sh', '-c', `echo stage $$; read line; exec ${own.join(' ')} "$@"`, 'sh']
  const [foreign] = await explained(scratch, nested, HASH, { at: [pid => lend(pid)] })
  assert.deepEqual(told(foreign!), ['EPERM', 'foreign-bpffs', 'refused'])
  assert.equal(foreign!.foretold.cause, 'foreign-bpffs')
  assert.match(foreign!.explained.found, /is of user:\[\d+\], and the process is in user:\[\d+\]/)
  // The change: lend to the inner one, at another place.
  const [lent] = await explained(scratch, nested, `stage; take_token("/mnt"); ${HASH}`, {
    at: [pid => lend(pid), pid => lend(pid, '--path', '/mnt')],
  })
  assert.deepEqual(told(lent!), ALLOWED)
})

test("a bpffs whose root the process may not open: another user's, and closed", machine, async () => {
  const close = (pid: number): void => {
    chownSync(bpffsOf(pid), 12345, 12345)
    chmodSync(bpffsOf(pid), 0o700)
  }
  const script = `stage; take_token(); ${HASH}`
  const run = (change: (pid: number) => void) =>
    explained(scratch, under(scratch, ENOUGH), script, { alone: true, at: [change] })
  const [closed] = await run(close)
  assert.deepEqual(told(closed!), ['EPERM', 'closed-bpffs', 'refused'])
  assert.equal(closed!.foretold.cause, 'closed-bpffs')
  assert.match(closed!.explained.found, /user 12345 .* mode 0700/)
  // The change: open to all, as a loan is.
  const [open] = await run(pid => {
    close(pid)
    chmodSync(bpffsOf(pid), 0o1777)
  })
  assert.deepEqual(told(open!), ALLOWED)
})

/** `undefined`: it is not on this machine. */
const libbpfIn = (directory: string): string | undefined => {
  const name = existsSync(directory)
    ? readdirSync(directory).find(one => /^libbpf\.so\.\d\.\d+\.\d+$/.test(one))
    : undefined
  return name === undefined ? undefined : join(directory, name)
}
const SYSTEM = `/usr/lib/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu`
const OLD = libbpfIn(SYSTEM)
const NEW = libbpfIn(join(CACHE, 'vm/tools', SYSTEM))
const OLD_HAS_NONE = OLD !== undefined && !readFileSync(OLD).includes('bpf_token_create')
const libraries =
  machine.skip !== undefined || (OLD_HAS_NONE && NEW !== undefined)
    ? machine
    : { skip: 'no libbpf before 1.4 is installed, or .cache/vm/tools has none' }

test('a loader that knows no tokens is named, foretold, and a newer one loads', libraries, async () => {
  const loader = compiled(join(ROOT, 'test/kernel/lending/libbpf-loader.c'))
  const object = scratch.write('pass.o', xdpObject())
  // With what each version tries first.
  const rights = {
    ...{ cmds: ['map_create', 'prog_load', 'btf_load'], maps: ['array', 'hash'] },
    ...{ progs: ['xdp', 'socket_filter', 'tracepoint', 'kprobe'], attachs: ['xdp', ZERO] },
    capabilities: ['bpf', 'net_admin', 'perfmon'],
  }
  const run = (library: string, lent = rights) =>
    explainedRun([...under(scratch, lent), loader, library, object], 'libbpf-loader')
  const refused = (await run(OLD!)).filter(({ seen }) => seen.errno === 'EPERM')
  assert.ok(refused.length > 0)
  for (const { explained: of, foretold } of refused) {
    assert.deepEqual([of.cause, foretold.cause], ['old-loader', 'old-loader'])
    assert.match(of.found, /^libbpf 1\.[0-3] of libbpf\.so\.1\.\d\.\d+, which knows none$/)
  }
  // However little is lent: no line of the policy helps it.
  const little = { ...rights, cmds: ['map_create'], progs: [], maps: ['lru_hash'] }
  for (const { seen, explained: of, foretold } of await run(OLD!, little))
    if (seen.errno === 'EPERM')
      assert.deepEqual(
        [of.cause, of.policy, foretold.cause, foretold.policy],
        ['old-loader', undefined, 'old-loader', undefined],
      )
  // The change.
  const newer = await run(NEW!)
  assert.deepEqual(newer.filter(({ seen }) => seen.need?.progType === 6).map(told), [ALLOWED])
})

test('RLIMIT_MEMLOCK plays no part, and a refusal beside it says so', machine, async () => {
  const without = (rights: typeof ENOUGH) => ['prlimit', '--memlock=4096', ...under(scratch, rights)]
  const [refused] = await explained(scratch, without({ ...ENOUGH, maps: ['array'] }), HASH)
  assert.deepEqual(told(refused!), ['EPERM', 'token-map-type', 'refused'])
  assert.match(refused!.explained.notes.join(), /RLIMIT_MEMLOCK is 4096 bytes, and plays no part/)
  // The change, which is another one.
  const [lent] = await explained(scratch, without(ENOUGH), HASH)
  assert.deepEqual(told(lent!), ALLOWED)
  assert.deepEqual(lent!.explained.notes, [])
})

test('no descriptor left', machine, async () => {
  const limited = ['prlimit', '--nofile=64:64', ...under(scratch, ENOUGH)]
  const fill = 'my @all; while (open my $f, "<", "/dev/null") { push @all, $f }'
  const [full] = await explained(scratch, limited, `${fill} ${HASH}`)
  assert.deepEqual(told(full!), ['EMFILE', 'descriptor-limit', 'refused'])
  assert.equal(full!.foretold.cause, 'descriptor-limit')
  assert.match(full!.explained.found, /RLIMIT_NOFILE 64, and 64 descriptors open/)
  // The change: it closes some.
  const [some] = await explained(scratch, limited, `${fill} splice @all, 0, 8; ${HASH}`)
  assert.deepEqual(told(some!), ALLOWED)
  assert.equal(some!.foretold.cause, 'none')
})

const MEMORY = memoryCgroup()
const memory =
  machine.skip !== undefined || MEMORY !== undefined
    ? machine
    : { skip: 'no cgroup with a memory limit can be made' }

/** The files of a cgroup of our own, whichever version has the memory. Undefined: none can be made. */
function memoryCgroup(): { directory: string; max: string } | undefined {
  const own = readFileSync('/proc/self/cgroup', 'utf8')
  const old = /^\d+:memory:(.*)$/m.exec(own)?.[1]
  const [parent, max] =
    old === undefined
      ? ['/sys/fs/cgroup', 'memory.max']
      : [`/sys/fs/cgroup/memory${old}`, 'memory.limit_in_bytes']
  const directory = join(parent, `bpftoken-test-${process.pid}`)
  try {
    mkdirSync(directory)
    const has = existsSync(join(directory, max))
    rmdirSync(directory)
    return has ? { directory, max } : undefined
  } catch {
    return undefined
  }
}

test("no memory left in the process's cgroup", memory, async () => {
  const { directory, max } = MEMORY!
  mkdirSync(directory)
  try {
    const limit =
      (bytes: number) =>
      (pid: number): void => {
        writeFileSync(join(directory, max), String(bytes))
        writeFileSync(join(directory, 'cgroup.procs'), String(pid))
      }
    const BIG = 'map_create(1, 4, 1024, 65536, 0)'
    const run = (bytes: number) =>
      explained(scratch, under(scratch, ENOUGH), `stage; ${BIG}`, { at: [limit(bytes)] })
    const [full] = await run(32 << 20)
    assert.deepEqual(told(full!), ['ENOMEM', 'memory-limit', 'refused'])
    assert.match(full!.explained.found, /may have 33554432 bytes, and has \d+ now/)
    // The change: a higher limit.
    const [room] = await run(512 << 20)
    assert.deepEqual(told(room!), ALLOWED)
  } finally {
    rmdirSync(directory)
  }
})

test('what the verifier lets pass with CAP_PERFMON alone is told with its own reason', machine, async () => {
  const leak = 'prog_of(1, 0, 0, pack("Q2", 0xa0bf, 0x95))'
  const [refused] = await explained(scratch, under(scratch, ENOUGH), leak)
  assert.deepEqual(told(refused!), ['EACCES', 'verifier', 'refused'])
  assert.match(refused!.explained.found, /R0 leaks addr as return value, at 1: \(95\) exit/)
  assert.deepEqual(refused!.explained.policy, { list: 'capabilities', word: 'perfmon' })
  // The change.
  const rights = { ...ENOUGH, capabilities: ['bpf', 'perfmon'] }
  const [allowed] = await explained(scratch, under(scratch, rights), leak)
  assert.deepEqual(told(allowed!), ALLOWED)
})

test(
  'what the verifier never lets pass is told with its own reason, and no right helps',
  machine,
  async () => {
    const [bad, good] = await explained(
      scratch,
      under(scratch, ENOUGH),
      'prog_load(1, 0, 0, 1); prog_load(1, 0, 0)',
    )
    assert.equal(bad!.explained.cause, 'verifier')
    assert.match(bad!.explained.found, /R0 !read_ok, at 0: \(95\) exit/)
    assert.equal(bad!.explained.policy, undefined)
    assert.deepEqual(told(good!), ALLOWED)
  },
)

test('a process in a PID namespace of its own is looked at as any other', machine, async () => {
  const apart = ['unshare', '--pid', '--fork', '--mount-proc', '--kill-child']
  const [refused] = await explained(
    scratch,
    [...under(scratch, { ...ENOUGH, capabilities: ['bpf', 'sys_admin'], maps: ['array'] }), ...apart],
    HASH,
  )
  assert.notEqual(refused!.seen.pid, refused!.seen.innerPid)
  assert.deepEqual(told(refused!), ['EPERM', 'token-map-type', 'refused'])
  // The change.
  const [lent] = await explained(
    scratch,
    [...under(scratch, { ...ENOUGH, capabilities: ['bpf', 'sys_admin'] }), ...apart],
    HASH,
  )
  assert.deepEqual(told(lent!), ALLOWED)
})
