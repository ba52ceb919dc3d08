/**
 * Records real programs of Debian, runs each again with a token and exactly the policy that was
 * recorded, and again without any right; writes what came of it into docs/record.md. Where that
 * policy is not enough, a run under a loan of everything is recorded: programs go other ways there.
 * Those that have a policy of the library run with that, too: docs/policies.md.
 *
 *   node --import tsx test/programs.ts [--check] [NAME...]
 *
 * Needs root and `scripts/fetch-containers.sh sid-tracers`. Exits 1 if a policy is not enough where
 * the recording says nothing that cannot be lent, or one of the library. `--check` and names write nothing.
 */
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ROOT } from '../scripts/tree.ts'
import { headerVocabulary } from '../src/needs/header-words.ts'
import { parsePolicy } from '../src/policy/parse.ts'
import { type CommentOf, rightsYaml } from '../src/policy/policy-yaml.ts'
import { libraryHead } from './corpus/library-head.ts'
import { RECORDED_TOOLS } from './corpus/library-tools.ts'
import { execute, PUBLIC, PUBLIC_CLI, type Result } from './helpers/cli.ts'
import { xdpObject } from './helpers/xdp-object.ts'

const TREE = '.cache/containers/sid-tracers'
const RECORDED = { file: 'docs/record.md', name: 'programs' }
const CHECKED = { file: 'docs/policies.md', name: 'runs' }
const LIBRARY = 'examples/policies/library'
const LIBRARIES = `${PUBLIC}/${TREE}/usr/lib/x86_64-linux-gnu`
const IN_TREE = `${LIBRARIES}/ld-linux-x86-64.so.2 --library-path ${LIBRARIES}`
/** A program of the tree, as words of a shell. */
const of = (path: string): string => `${IN_TREE} ${PUBLIC}/${TREE}/usr/${path}`

interface Program {
  readonly name: string
  /** Words of a shell; `$OBJECT` is an XDP program, `$PIN` a path in a bpffs. */
  readonly script: string
  /** What it says when it does its work. Undefined: its status says so. */
  readonly says?: RegExp
  /** Capabilities that it needs inside besides those of its policy. */
  readonly caps?: readonly string[]
  /** Its policy of the library. */
  readonly policy?: string
  /** Why its policy is not enough, although nothing that was seen tells. */
  readonly beyond?: string
}

const bpftool = (words: string): Program => ({
  name: `bpftool ${words.replaceAll(/\$\w+/g, 'X')}`,
  script: `${of('sbin/bpftool')} ${words}`,
})
/** Disk I/O, a second from now. */
const IO = '(sleep 1; dd if=/dev/zero of=$SHARED/io bs=64k count=4 conv=fsync 2>/dev/null; rm $SHARED/io) &'
/** For five seconds; those that trace for ever end by the signal. */
const tracer = (name: string, path: string, words: string, says: RegExp): Program => ({
  name,
  script: `timeout --preserve-status --signal=INT 5 ${of(path)} ${words}`,
  says,
})
const libbpfTool = (name: string, says: RegExp, words = ''): Program =>
  tracer(`${name} ${words}`.trim(), `sbin/${name}-libbpf`, words, says)
const bpftrace = (script: string): Program =>
  tracer(`bpftrace -e '${script}'`, 'bin/bpftrace', `-e '${script}'`, /Attach(ed|ing) [1-9]/)

/** One that works with a token: its policy, and what it says once it has seen something. */
const lentTool = (name: string, says: RegExp, words = '1 1', before = ''): Program => {
  const tool = libbpfTool(name, says, words)
  // Stacks of the whole machine fill many pages.
  const script = `${before} ${tool.script} | head -n 80`.trim()
  return { ...tool, script, policy: `libbpf-tools-${name}` }
}
const HISTOGRAM = /: [1-9]\d* +\|\*/

const ATTACHED = `${of('sbin/ip')} link show dev lo | grep -q prog/xdp`
const XDP_OBJECTS = `LIBXDP_OBJECT_PATH=${LIBRARIES}/bpf`
const BUSYBOX = `${PUBLIC}/${TREE}/usr/bin/busybox`

/** A daemon that makes its own programs: what asks for a connection is dropped, and counted. */
const BPFILTER = `${of('sbin/bpfilter')} --transient $TOKEN & daemon=$!
for i in 1 2 3 4 5 6 7 8 9; do test -S /run/bpfilter/daemon.sock && break; sleep 1; done
${of('sbin/bfcli')} ruleset set --from-str 'chain xdp BF_HOOK_XDP{ifindex=1} ACCEPT rule ip4.proto tcp counter DROP'
${BUSYBOX} nc -w 1 127.0.0.1 9
${of('sbin/bfcli')} ruleset get; kill $daemon; wait`

const KNOT = `mkdir $SHARED/knot && cd $SHARED/knot && cat >knot.conf <<END
server:
  rundir: $SHARED/knot
  listen: 127.0.0.1@5353
xdp:
  listen: lo
  ring-size: 256
database:
  storage: $SHARED/knot
log:
  - target: stdout
    any: debug
END
timeout -s INT 3 ${of('sbin/knotd')} -c knot.conf; cd / && rm -rf $SHARED/knot`

const NSD = `mkdir $SHARED/nsd && cd $SHARED/nsd && cat >nsd.conf <<END
server:
  username: ""
  ip-address: 127.0.0.1@5353
  zonesdir: $SHARED/nsd
  pidfile: ""
  xfrdfile: $SHARED/nsd/xfrd
  zonelistfile: $SHARED/nsd/zones
  xfrdir: $SHARED/nsd
  server-count: 1
  xdp-interface: lo
  xdp-program-path: ${PUBLIC}/${TREE}/usr/lib/bpf/nsd/xdp-dns-redirect_kern.o
  verbosity: 3
remote-control:
  control-enable: no
END
${XDP_OBJECTS} timeout -s INT 3 ${of('sbin/nsd')} -d -c nsd.conf; cd / && rm -rf $SHARED/nsd`

const PROGRAMS: readonly Program[] = [
  { ...bpftool('prog load $OBJECT $PIN'), policy: 'bpftool-prog-load' },
  bpftool('map create $PIN type hash key 4 value 4 entries 8 name pinned'),
  bpftool('prog show'),
  bpftool('net show'),
  {
    ...bpftool('feature probe kernel'),
    beyond: 'bpftool itself asks for CAP_SYS_ADMIN before it calls bpf(2)',
  },
  {
    name: 'ip link set lo xdpgeneric',
    script: `${of('sbin/ip')} link set dev lo xdpgeneric obj $OBJECT sec xdp && ${ATTACHED}`,
  },
  {
    name: 'xdp-loader load -m skb',
    script: `${XDP_OBJECTS} ${of('sbin/xdp-loader')} load -m skb lo $OBJECT && ${ATTACHED}`,
    policy: 'xdp-loader',
  },
  {
    name: 'xdp-filter load -m skb',
    script: `${XDP_OBJECTS} ${of('sbin/xdp-filter')} load -m skb lo && ${ATTACHED}`,
    policy: 'xdp-filter',
  },
  {
    name: 'xdp-forward load -m skb',
    script: `${XDP_OBJECTS} ${of('sbin/xdp-forward')} load -m skb lo && ${ATTACHED}`,
    policy: 'xdp-forward',
  },
  {
    name: 'xdpdump -i lo',
    script: `${XDP_OBJECTS} timeout -s INT 4 ${of('sbin/xdpdump')} -i lo --load-xdp-program --load-xdp-mode skb -x & sleep 2; ${BUSYBOX} nc -w 1 127.0.0.1 9; wait`,
    says: /@entry: packet size/,
  },
  { name: 'veristat', script: `${of('bin/veristat')} $OBJECT`, says: /success/ },
  {
    name: 'bpfilter',
    script: BPFILTER,
    says: /eq tcp\n +counters [1-9]/,
    policy: 'bpfilter-xdp',
  },
  {
    name: 'knotd with XDP',
    script: KNOT,
    says: /initialized XDP|info: server started/i,
    caps: ['net_raw'],
  },
  { name: 'nsd with XDP', script: NSD, says: /xdp: .*(loaded|attached)|NSD_XDP/i, caps: ['net_raw'] },
  lentTool('runqlat', HISTOGRAM),
  lentTool('hardirqs', /HARDIRQ.*\n.*\d/),
  lentTool('softirqs', /SOFTIRQ.*\n.*\d/),
  lentTool('biolatency', HISTOGRAM, '1 2', IO),
  lentTool('bitesize', HISTOGRAM, '1 2', IO),
  lentTool('cpudist', HISTOGRAM),
  lentTool('offcputime', /^ +- +.* \(\d+\)\n +\d/m, '1'),
  lentTool('wakeuptime', /waker: .+/, '1'),
  libbpfTool('runqslower', /TIME/, '1'),
  libbpfTool('drsnoop', /COMM/),
  libbpfTool('vfsstat', /READ/, '1 1'),
  libbpfTool('opensnoop', /PID/),
  libbpfTool('execsnoop', /PCOMM/),
  libbpfTool('tcpconnect', /PID/),
  libbpfTool('tcplife', /PID/),
  libbpfTool('syscount', /Tracing/, '-d 1'),
  libbpfTool('runqlen', /Sampling/, '1 1'),
  libbpfTool('llcstat', /./, '1'),
  bpftrace('BEGIN { exit() }'),
  bpftrace('rawtracepoint:sched_switch { @ = count() }'),
  bpftrace('tracepoint:syscalls:sys_enter_openat { @ = count() }'),
  bpftrace('kprobe:vfs_read { @ = count() }'),
  bpftrace('kprobe:vfs_* { @ = count() }'),
  bpftrace('interval:s:1 { exit() }'),
  bpftrace('iter:task { printf("%d\\n", ctx->task->pid) }'),
]

interface Asker {
  readonly outcomes: Readonly<Record<string, number>>
  readonly names: readonly string[]
}
interface Recorded {
  readonly complete: boolean
  readonly rights: readonly { domain: string; word: string; askers: readonly Asker[] }[]
  readonly capabilities: readonly { name: string; askers: readonly Asker[] }[]
  readonly leftOut: readonly {
    readonly domain: string
    readonly word: string
    readonly askers: readonly Asker[]
  }[]
  readonly withoutToken: readonly { readonly task: string }[]
  readonly unserved: readonly { call: string; fails: boolean; why: string }[]
}
interface Outcome {
  readonly program: Program
  readonly verdict:
    | 'enough'
    | 'enough, of a run with a token'
    | 'enough with perfmon'
    | 'nothing to lend'
    | 'cannot be lent'
    | 'not enough'
    | 'does not run here'
  readonly recorded?: Recorded
  /** Of a run with a token. */
  readonly under?: Recorded | undefined
  readonly said?: string
  /** Under its policy of the library: whether it did its work, and that it did not without rights. */
  readonly checked?: 'works' | 'does not work' | 'works without any right'
}

const EVERYTHING = `apiVersion: bpftoken.dev/v1
kind: DelegationPolicy
metadata: { name: everything }
spec:
  rights:
    cmds: [any]
    maps: [any]
    progs: [any]
    attachs: [any]
    capabilities: [bpf, net_admin, perfmon, sys_admin]
`

class Lab implements Disposable {
  readonly #dir = mkdtempSync(join(tmpdir(), 'bpftoken-programs-'))
  readonly #object = join(this.#dir, 'pass.o')

  constructor() {
    // Workloads run as an ordinary user.
    chmodSync(this.#dir, 0o755)
    writeFileSync(this.#object, xdpObject())
  }

  /** `writes`: also its policy of the library, where only a recording shows it. */
  async outcome(program: Program, writes: boolean): Promise<Outcome> {
    const outcome = await this.#recorded(program)
    if (program.policy === undefined) return outcome
    if (writes && outcome.recorded !== undefined) this.#write(program.policy, outcome.recorded)
    return { ...outcome, checked: await this.#checked(program, program.policy) }
  }

  /** Of a program whose rights no file shows: what was recorded, without processes and times. */
  #write(name: string, recorded: Recorded): void {
    const tool = RECORDED_TOOLS.find(one => one.name === name)
    if (tool === undefined) return
    const vocabulary = headerVocabulary()
    const policy = parsePolicy(readFileSync(join(this.#dir, 'policy.yaml'), 'utf8'), {
      source: name,
      vocabulary,
    })
    const asked = [
      ...recorded.rights,
      ...recorded.capabilities.map(one => ({ domain: 'capabilities', word: one.name, askers: one.askers })),
    ]
    const commentOf: CommentOf = (list, word) => {
      const right = asked.find(one => one.domain === list && one.word === word)
      if (right === undefined) return 'what its program computes with pointers; the verifier says so'
      const names = [...new Set(right.askers.flatMap(({ names }) => names))].join(', ')
      return names === '' ? 'asked for, without a name' : `asked for ${names}`
    }
    const how = `"bpftoken record" of ${tool.package} ${tool.version}, and run`
    const lines = [...libraryHead(tool, how), ...rightsYaml(name, policy.rights, vocabulary, commentOf)]
    writeFileSync(join(ROOT, LIBRARY, `${name}.yaml`), `${lines.join('\n')}\n`)
  }

  async #checked(program: Program, policy: string): Promise<NonNullable<Outcome['checked']>> {
    const file = join(ROOT, LIBRARY, `${policy}.yaml`)
    if (!isDone(program, await this.#lent(program, file))) return 'does not work'
    return isDone(program, await this.#lent(program, this.#without(file)))
      ? 'works without any right'
      : 'works'
  }

  async #recorded(program: Program): Promise<Outcome> {
    const policy = join(this.#dir, 'policy.yaml')
    rmSync(policy, { force: true })
    const asRoot = await this.#run(['record', '--json', '-o', policy], program.script)
    const recorded = documentIn(asRoot.stdout)
    if (recorded === undefined || !isDone(program, asRoot))
      return { program, verdict: 'does not run here', said: lastLine(asRoot) }
    if (recorded.rights.length === 0 && recorded.unserved.every(({ fails }) => !fails))
      return { program, verdict: 'nothing to lend', recorded }
    const again = await this.#lent(program, policy)
    if (isDone(program, again)) return this.#judged(program, recorded, policy, 'enough')
    const first = await this.#withPerfmon(program, recorded, policy)
    if (first !== undefined) return first
    const loan = join(this.#dir, 'loan.yaml')
    writeFileSync(loan, EVERYTHING)
    const words = [
      'record',
      '--json',
      '-o',
      policy,
      '--',
      process.execPath,
      PUBLIC_CLI,
      ...lending(program, loan),
    ]
    const under = await this.#run(words, program.script)
    const second = documentIn(under.stdout)
    if (second !== undefined && isDone(program, under)) {
      const third = await this.#lent(program, policy)
      if (isDone(program, third))
        return this.#judged(program, second, policy, 'enough, of a run with a token')
      const more = await this.#withPerfmon(program, second, policy)
      if (more !== undefined) return more
      return { program, verdict: 'not enough', recorded: second, said: program.beyond ?? lastLine(third) }
    }
    const isTold = [recorded, second].some(one => one !== undefined && obstacles(one).length > 0)
    return {
      ...{ program, verdict: isTold ? 'cannot be lent' : 'not enough', recorded, under: second },
      said: lastLine(second === undefined ? again : under),
    }
  }

  /** As the note in the policy says, where the verifier refuses a program. */
  async #withPerfmon(program: Program, recorded: Recorded, policy: string): Promise<Outcome | undefined> {
    const text = readFileSync(policy, 'utf8')
    if (!/^# Note: root passes the verifier/m.test(text)) return undefined
    writeFileSync(policy, text.replace(/^ {4}capabilities:\n/m, '$&      - perfmon # as its note says\n'))
    if (isDone(program, await this.#lent(program, policy)))
      return this.#judged(program, recorded, policy, 'enough with perfmon')
    writeFileSync(policy, text)
    return undefined
  }

  /** The twin: no right at all. */
  async #judged(
    program: Program,
    recorded: Recorded,
    policy: string,
    verdict: Outcome['verdict'],
  ): Promise<Outcome> {
    if (isDone(program, await this.#lent(program, this.#without(policy))))
      return { program, verdict: 'nothing to lend', recorded, said: 'it does its work without any right' }
    return { program, verdict, recorded }
  }

  /** The same policy without a command that a token is asked for. */
  #without(policy: string): string {
    const without = join(this.#dir, 'without.yaml')
    const text = readFileSync(policy, 'utf8')
    const less = text.replace(/^ {4}cmds:\n(?: {6}- .*\n)+/m, '    cmds: [token_create]\n')
    if (less === text) throw new Error(`${policy} lends no command`)
    writeFileSync(without, less)
    return without
  }

  #lent(program: Program, policy: string): Promise<Result> {
    return this.#run(lending(program, policy), program.script)
  }

  /** In a mount and a network namespace of their own, with a bpffs, where the clone is public. */
  #run(words: readonly string[], script: string): Promise<Result> {
    const mounts = `mount --bind "$0" ${PUBLIC} && mount -t bpf bpf /sys/fs/bpf && mount -t tmpfs -o mode=1777 tmpfs /run`
    const prepare = `${mounts} && ip link set lo up && cd ${PUBLIC} && exec "$@"`
    const token = words.includes('run') ? '--with-bpf-token' : ''
    const full = `export OBJECT=${this.#object} PIN=/sys/fs/bpf/pinned SHARED=/run TOKEN=${token}; ${script}`
    return execute('unshare', [
      ...['--mount', '--net', 'sh', '-c', prepare, ROOT],
      ...[process.execPath, PUBLIC_CLI, ...words, '--', 'sh', '-c', full],
    ])
  }

  [Symbol.dispose](): void {
    rmSync(this.#dir, { recursive: true, force: true })
  }
}

function lending({ caps = [] }: Program, policy: string): string[] {
  return ['run', '--policy', policy, ...caps.flatMap(one => ['--cap', one])]
}

/** Of what is no matter of rights: no symbols for a stack, a limit that is not raised. */
const NOISE = /^.*(RLIMIT_MEMLOCK for bpftrace|bump RLIMIT_MEMLOCK|failed to get syms).*\n/gm

/** Of a recorded run the program's own output is on stderr. */
function isDone({ says }: Program, { status, stdout, stderr }: Result): boolean {
  if (says === undefined) return status === 0
  const said = documentIn(stdout) === undefined ? stdout + stderr : stderr
  return says.test(said) && !/^(libbpf: .*)?failed to |^ERROR/im.test(said.replaceAll(NOISE, ''))
}

function documentIn(text: string): Recorded | undefined {
  try {
    return JSON.parse(text) as Recorded
  } catch {
    return undefined
  }
}

const NO_TOKEN = 'it tries for no token'

/** What a recording says that no policy helps. */
function obstacles({ unserved, withoutToken, leftOut }: Recorded): string[] {
  const calls = unserved.filter(({ fails }) => fails).map(({ call }) => call)
  const tokenless = leftOut.filter(
    ({ domain, askers }) =>
      domain !== 'cmds' && askers.some(({ outcomes }) => outcomes['EPERM'] !== undefined),
  )
  return [
    ...(calls.length === 0 ? [] : [`cannot be lent: ${calls.join(', ')}`]),
    ...(withoutToken.length === 0 ? [] : [NO_TOKEN]),
    ...(tokenless.length === 0
      ? []
      : [`it does not name its token for: ${tokenless.map(({ word }) => word).join(', ')}`]),
  ]
}

function lastLine({ stdout, stderr }: Result): string {
  const lines = `${documentIn(stdout) === undefined ? stdout : ''}\n${stderr}\n`
    .replaceAll(NOISE, '')
    .split('\n')
    .filter(line => /\S/.test(line))
  const telling = lines.find(line => /fail|not permitted|denied|error|cannot/i.test(line)) ?? lines.at(-1)
  return (telling ?? 'it says nothing').trim().slice(0, 160)
}

const MOST_SHOWN = 12

function row({ program, verdict, recorded, under, said }: Outcome): string {
  const words = (domain: string): string => {
    const found = recorded?.rights.filter(right => right.domain === domain).map(({ word }) => word) ?? []
    if (found.length === 0) return '-'
    return found.length > MOST_SHOWN ? `${found.length} types` : found.join(', ')
  }
  const told = [
    ...new Set([recorded, under].flatMap(one => (one === undefined ? [] : obstacles(one)))),
    ...(said === undefined ? [] : [`it says: ${said}`]),
  ]
    // What makes one by an option is recorded without it.
    .filter(text => !verdict.startsWith('enough') || text !== NO_TOKEN)
    .join('; ')
  const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('<', '&lt;')
  const name = `\`${program.name.replaceAll('|', '\\|')}\``
  return `| ${name} | ${words('progs')} | ${words('maps')} | **${verdict}** | ${cell(told)} |`
}

function checkedRow({ program: { name, policy }, checked }: Outcome): string {
  const words = name.replaceAll('|', '\\|')
  return `| [\`${policy}\`](../${LIBRARY}/${policy}.yaml) | \`${words}\` | **${checked}** |`
}

function writeTable({ file, name }: typeof RECORDED, lines: readonly string[]): void {
  const [begin, end] = [`<!-- ${name}: written by test/programs.ts -->`, `<!-- /${name} -->`]
  const path = join(ROOT, file)
  const before = readFileSync(path, 'utf8')
  const [from, to] = [before.indexOf(begin), before.indexOf(end)]
  if (from < 0 || to < from) throw new Error(`${file} lacks the lines "${begin}" and "${end}"`)
  const text = `${before.slice(0, from + begin.length)}\n\n${lines.join('\n')}\n\n${before.slice(to)}`
  writeFileSync(path, text)
}

async function main(words: readonly string[]): Promise<void> {
  const names = words.filter(word => word !== '--check')
  const chosen = PROGRAMS.filter(({ name }) => names.length === 0 || names.some(one => name.startsWith(one)))
  using lab = new Lab()
  const outcomes: Outcome[] = []
  for (const program of chosen) {
    const outcome = await lab.outcome(program, words.length === 0)
    outcomes.push(outcome)
    console.log(row(outcome))
    if (outcome.checked !== undefined) console.log(checkedRow(outcome))
  }
  const count = (verdict: Outcome['verdict']): number =>
    outcomes.filter(one => one.verdict === verdict).length
  const total = `${outcomes.length} programs: ${count('enough')} enough, ${count('enough, of a run with a token')} enough where a run with a token was recorded, ${count('enough with perfmon')} enough with perfmon, ${count('nothing to lend')} need nothing, ${count('cannot be lent')} cannot be lent, ${count('does not run here')} do not run here, ${count('not enough')} not enough`
  console.log(total)
  const isWrong = ({ verdict, program, checked }: Outcome): boolean =>
    (verdict === 'not enough' && program.beyond === undefined) || (checked ?? 'works') !== 'works'
  if (outcomes.some(isWrong)) process.exitCode = 1
  if (words.length > 0) return
  const header = [
    'program',
    'programs that it loads',
    'maps',
    'policy',
    'what cannot be lent, and what it says then',
  ]
  writeTable(RECORDED, [
    `| ${header.join(' | ')} |`,
    '|---|---|---|---|---|',
    ...outcomes.map(row),
    '',
    `${total}.`,
  ])
  writeTable(CHECKED, [
    '| policy | program that was run | under just this policy |',
    '|---|---|---|',
    ...outcomes.filter(({ checked }) => checked !== undefined).map(checkedRow),
  ])
}

void main(process.argv.slice(2))
