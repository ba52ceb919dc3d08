/**
 * Records real programs of Debian, runs each again with a token and exactly the policy that was
 * recorded, and again without any right; writes what came of it into docs/record.md. Where that
 * policy is not enough, a run under a loan of everything is recorded: programs go other ways there.
 *
 *   node --import tsx test/programs.ts [--check] [NAME...]
 *
 * Needs root and `scripts/fetch-containers.sh sid-tracers`. Exits 1 if a policy is not enough where
 * the recording says nothing that cannot be lent. `--check` and names write nothing.
 */
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ROOT } from '../scripts/tree.ts'
import { execute, PUBLIC, PUBLIC_CLI, type Result } from './helpers/cli.ts'
import { xdpObject } from './helpers/xdp-object.ts'

const TREE = '.cache/containers/sid-tracers'
const DOCUMENT = 'docs/record.md'
const [BEGIN, END] = ['<!-- programs: written by test/programs.ts -->', '<!-- /programs -->']
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
  /** Why its policy is not enough, although nothing that was seen tells. */
  readonly beyond?: string
}

const bpftool = (words: string): Program => ({
  name: `bpftool ${words.replaceAll(/\$\w+/g, 'X')}`,
  script: `${of('sbin/bpftool')} ${words}`,
})
/** For three seconds; those that trace for ever end by the signal. */
const tracer = (name: string, path: string, words: string, says: RegExp): Program => ({
  name,
  script: `timeout --preserve-status --signal=INT 3 ${of(path)} ${words}`,
  says,
})
const libbpfTool = (name: string, says: RegExp, words = ''): Program =>
  tracer(`${name} ${words}`.trim(), `sbin/${name}-libbpf`, words, says)
const bpftrace = (script: string): Program =>
  tracer(`bpftrace -e '${script}'`, 'bin/bpftrace', `-e '${script}'`, /Attach(ed|ing) [1-9]/)

const ATTACHED = `${of('sbin/ip')} link show dev lo | grep -q prog/xdp`
const XDP_OBJECTS = `LIBXDP_OBJECT_PATH=${LIBRARIES}/bpf`
const PROGRAMS: readonly Program[] = [
  bpftool('prog load $OBJECT $PIN'),
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
  },
  {
    name: 'xdp-filter load -m skb',
    script: `${XDP_OBJECTS} ${of('sbin/xdp-filter')} load -m skb lo && ${ATTACHED}`,
  },
  { name: 'veristat', script: `${of('sbin/veristat')} $OBJECT` },
  libbpfTool('runqlat', /usecs/, '1 1'),
  libbpfTool('runqslower', /TIME/, '1'),
  libbpfTool('hardirqs', /HARDIRQ/, '1 1'),
  libbpfTool('softirqs', /SOFTIRQ/, '1 1'),
  libbpfTool('biolatency', /Tracing/, '1 1'),
  libbpfTool('bitesize', /Tracing/, '1 1'),
  libbpfTool('drsnoop', /COMM/),
  libbpfTool('cpudist', /Tracing/, '1 1'),
  libbpfTool('offcputime', /./, '1'),
  libbpfTool('vfsstat', /READ/, '1 1'),
  libbpfTool('opensnoop', /PID/),
  libbpfTool('execsnoop', /PCOMM/),
  libbpfTool('tcpconnect', /PID/),
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

interface Recorded {
  readonly complete: boolean
  readonly rights: readonly { domain: string; word: string }[]
  readonly capabilities: readonly { name: string }[]
  readonly leftOut: readonly {
    readonly domain: string
    readonly word: string
    readonly askers: readonly { readonly outcomes: Readonly<Record<string, number>> }[]
  }[]
  readonly withoutToken: readonly { readonly task: string }[]
  readonly unserved: readonly { call: string; fails: boolean; why: string }[]
}
interface Outcome {
  readonly program: Program
  readonly verdict:
    | 'enough'
    | 'enough, of a run with a token'
    | 'nothing to lend'
    | 'cannot be lent'
    | 'not enough'
    | 'does not run here'
  readonly recorded?: Recorded
  /** Of a run with a token. */
  readonly under?: Recorded | undefined
  readonly said?: string
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

  async outcome(program: Program): Promise<Outcome> {
    const policy = join(this.#dir, 'policy.yaml')
    rmSync(policy, { force: true })
    const first = await this.#run(['record', '--json', '-o', policy], program.script)
    const recorded = documentIn(first.stdout)
    if (recorded === undefined || !isDone(program, first))
      return { program, verdict: 'does not run here', said: lastLine(first) }
    if (recorded.rights.length === 0 && recorded.unserved.every(({ fails }) => !fails))
      return { program, verdict: 'nothing to lend', recorded }
    const again = await this.#run(['run', '--policy', policy], program.script)
    if (isDone(program, again)) return this.#judged(program, recorded, policy, 'enough')
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
      'run',
      '--policy',
      loan,
    ]
    const under = await this.#run(words, program.script)
    const second = documentIn(under.stdout)
    if (second !== undefined && isDone(program, under)) {
      const third = await this.#run(['run', '--policy', policy], program.script)
      if (isDone(program, third))
        return this.#judged(program, second, policy, 'enough, of a run with a token')
      return { program, verdict: 'not enough', recorded: second, said: program.beyond ?? lastLine(third) }
    }
    const isTold = [recorded, second].some(one => one !== undefined && obstacles(one).length > 0)
    return {
      ...{ program, verdict: isTold ? 'cannot be lent' : 'not enough', recorded, under: second },
      said: lastLine(second === undefined ? again : under),
    }
  }

  /** The twin: no right at all. */
  async #judged(
    program: Program,
    recorded: Recorded,
    policy: string,
    verdict: Outcome['verdict'],
  ): Promise<Outcome> {
    const without = join(this.#dir, 'without.yaml')
    const text = readFileSync(policy, 'utf8')
    writeFileSync(without, text.replace(/^ {4}cmds:\n(?: {6}- .*\n)+/m, '    cmds: [token_create]\n'))
    if (isDone(program, await this.#run(['run', '--policy', without], program.script)))
      return { program, verdict: 'nothing to lend', recorded, said: 'it does its work without any right' }
    return { program, verdict, recorded }
  }

  /** In a mount and a network namespace of their own, with a bpffs, where the clone is public. */
  #run(words: readonly string[], script: string): Promise<Result> {
    const prepare = `mount --bind "$0" ${PUBLIC} && mount -t bpf bpf /sys/fs/bpf && ip link set lo up && cd ${PUBLIC} && exec "$@"`
    const full = `export OBJECT=${this.#object} PIN=/sys/fs/bpf/pinned; ${script}`
    return execute('unshare', [
      ...['--mount', '--net', 'sh', '-c', prepare, ROOT],
      ...[process.execPath, PUBLIC_CLI, ...words, '--', 'sh', '-c', full],
    ])
  }

  [Symbol.dispose](): void {
    rmSync(this.#dir, { recursive: true, force: true })
  }
}

/** Of a recorded run the program's own output is on stderr. */
function isDone({ says }: Program, { status, stdout, stderr }: Result): boolean {
  if (says === undefined) return status === 0
  const said = documentIn(stdout) === undefined ? stdout + stderr : stderr
  return says.test(said) && !/failed to |^ERROR/im.test(said)
}

function documentIn(text: string): Recorded | undefined {
  try {
    return JSON.parse(text) as Recorded
  } catch {
    return undefined
  }
}

/** What a recording says that no policy helps. */
function obstacles({ unserved, withoutToken, leftOut }: Recorded): string[] {
  const calls = unserved.filter(({ fails }) => fails).map(({ call }) => call)
  const tokenless = leftOut.filter(
    ({ domain, askers }) =>
      domain !== 'cmds' && askers.some(({ outcomes }) => outcomes['EPERM'] !== undefined),
  )
  return [
    ...(calls.length === 0 ? [] : [`cannot be lent: ${calls.join(', ')}`]),
    ...(withoutToken.length === 0 ? [] : ['it tries for no token']),
    ...(tokenless.length === 0
      ? []
      : [`it does not name its token for: ${tokenless.map(({ word }) => word).join(', ')}`]),
  ]
}

function lastLine({ stdout, stderr }: Result): string {
  const lines = `${documentIn(stdout) === undefined ? stdout : ''}\n${stderr}`
    .split('\n')
    .filter(line => /\S/.test(line))
  const telling = lines.find(line => /fail|not permitted|denied|error|cannot/i.test(line)) ?? lines.at(-1)
  return (telling ?? 'it says nothing').trim().slice(0, 160)
}

function row({ program, verdict, recorded, under, said }: Outcome): string {
  const words = (domain: string): string =>
    recorded?.rights
      .filter(right => right.domain === domain)
      .map(({ word }) => word)
      .join(', ') || '-'
  const told = [
    ...new Set([recorded, under].flatMap(one => (one === undefined ? [] : obstacles(one)))),
    ...(said === undefined ? [] : [`it says: ${said}`]),
  ].join('; ')
  const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('<', '&lt;')
  const name = `\`${program.name.replaceAll('|', '\\|')}\``
  return `| ${name} | ${words('progs')} | ${words('maps')} | **${verdict}** | ${cell(told)} |`
}

async function main(words: readonly string[]): Promise<void> {
  const names = words.filter(word => word !== '--check')
  const chosen = PROGRAMS.filter(({ name }) => names.length === 0 || names.some(one => name.startsWith(one)))
  using lab = new Lab()
  const outcomes: Outcome[] = []
  for (const program of chosen) {
    const outcome = await lab.outcome(program)
    outcomes.push(outcome)
    console.log(row(outcome))
  }
  const count = (verdict: Outcome['verdict']): number =>
    outcomes.filter(one => one.verdict === verdict).length
  const total = `${outcomes.length} programs: ${count('enough')} enough, ${count('enough, of a run with a token')} enough where a run with a token was recorded, ${count('nothing to lend')} need nothing, ${count('cannot be lent')} cannot be lent, ${count('does not run here')} do not run here, ${count('not enough')} not enough`
  console.log(total)
  if (outcomes.some(({ verdict, program }) => verdict === 'not enough' && program.beyond === undefined))
    process.exitCode = 1
  if (words.length > 0) return
  const before = readFileSync(join(ROOT, DOCUMENT), 'utf8')
  const [begin, end] = [before.indexOf(BEGIN), before.indexOf(END)]
  if (begin < 0 || end < begin) throw new Error(`${DOCUMENT} lacks the lines "${BEGIN}" and "${END}"`)
  const table = [
    '| program | programs that it loads | maps | policy | what cannot be lent, and what it says then |',
    '|---|---|---|---|---|',
    ...outcomes.map(row),
    '',
    `${total}.`,
  ]
  writeFileSync(
    join(ROOT, DOCUMENT),
    `${before.slice(0, begin + BEGIN.length)}\n\n${table.join('\n')}\n\n${before.slice(end)}`,
  )
}

void main(process.argv.slice(2))
