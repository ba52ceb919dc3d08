/**
 * `delegate` looks at the process before it lends. What it says of real processes, and what
 * --strict does about it.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'node:test'
import { compiled } from '../../scripts/compiled.ts'
import { CLI, cli } from '../helpers/cli.ts'
import { eventually } from '../helpers/eventually.ts'
import { needsTokens, ROOT } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'
import { Shell } from '../helpers/shell.ts'
import { policyText } from '../kernel/lending/explained.ts'

const machine = needsTokens()
const POLICY = join(ROOT, 'examples/policies/packet-counter.yaml')

interface Concern {
  code: string
  certain: boolean
  capability?: string
}

interface Case {
  readonly name: string
  readonly how: Parameters<typeof Shell.start>[0]
  /** `capability` or `code` of each concern; `?` where it is not certain. */
  readonly concerns: readonly string[]
}

const CASES: readonly Case[] = [
  { name: 'root with all capabilities', how: {}, concerns: [] },
  {
    name: 'root with no more than is needed',
    how: { inside: ['setpriv', '--bounding-set', '-all,+bpf,+net_admin'] },
    concerns: [],
  },
  {
    name: 'no CAP_BPF in the bounding set',
    how: { inside: ['setpriv', '--bounding-set', '-bpf'] },
    concerns: ['bpf'],
  },
  {
    name: 'neither CAP_NET_ADMIN nor CAP_SYS_ADMIN',
    how: { inside: ['setpriv', '--bounding-set', '-net_admin,-sys_admin'] },
    concerns: ['net_admin'],
  },
  {
    name: 'a seccomp filter',
    how: { inside: [compiledIfNeeded()] },
    concerns: ['?seccomp'],
  },
]

function compiledIfNeeded(): string {
  return machine.skip === undefined ? compiled(join(__dirname, 'filtered.c')) : 'true'
}

const brief = (concerns: Concern[]): string[] =>
  concerns.map(({ code, certain, capability }) => `${certain ? '' : '?'}${capability ?? code}`)

for (const { name, how, concerns } of CASES)
  test(`delegate to a process with ${name}: ${concerns.join(', ') || 'no warning'}`, machine, async () => {
    const shell = await Shell.start(how)
    try {
      const lend = (...also: string[]) =>
        cli(['delegate', '--pid', String(shell.pid), '--policy', POLICY, ...also])
      const tried = await lend('--dry-run', '--json')
      assert.equal(tried.status, 0, tried.stderr)
      assert.deepEqual(brief(JSON.parse(tried.stdout).preflight), concerns)
      const strict = await lend('--strict')
      const mounted = await shell.run('grep -c delegate_cmds /proc/self/mountinfo || true')
      if (concerns.length === 0) {
        assert.equal(strict.status, 0, strict.stderr)
        assert.equal(strict.stderr, '')
        assert.equal(mounted, '1')
        return
      }
      assert.equal(strict.status, 4, strict.stdout)
      assert.match(strict.stderr, /could not use the loan/)
      assert.equal(mounted, '0')
      const warned = await lend('--json')
      assert.equal(warned.status, 0, warned.stderr)
      assert.match(warned.stderr, concerns[0]!.startsWith('?') ? /this may not work: / : /warning: /)
      assert.match(warned.stderr, / {2}next: .*(--cap-add|seccomp=PROFILE)/)
      assert.deepEqual(brief(JSON.parse(warned.stdout).preflight), concerns)
      assert.equal(await shell.run('grep -c delegate_cmds /proc/self/mountinfo'), '1')
    } finally {
      await shell.end()
    }
  })

test('what is foretold comes true: no token without CAP_BPF, one with it', machine, async () => {
  for (const [bounding, status] of [
    ['-bpf', 3],
    ['+bpf', 0],
  ] as const) {
    const shell = await Shell.start({ inside: ['setpriv', '--bounding-set', bounding] })
    try {
      const made = await cli(['delegate', '--pid', String(shell.pid), '--policy', POLICY])
      assert.equal(made.status, 0, made.stderr)
      const said = await shell.run(`${process.execPath} '${CLI}' token show 2>&1; echo status $?`)
      assert.match(said, new RegExp(`status ${status}$`), said)
    } finally {
      await shell.end()
    }
  }
})

const HOST_NETWORK = policyText(
  { cmds: ['prog_load'], maps: [], progs: ['xdp'], attachs: ['xdp'], capabilities: ['bpf', 'net_admin'] },
  '  network: host',
)
const NR_UNSHARE = process.arch === 'arm64' ? 97 : 272

test(
  'who has all capabilities and is not number 0 inside loses them with the next program',
  machine,
  async () => {
    using scratch = new Scratch()
    const policy = scratch.write('policy.yaml', HOST_NETWORK)
    const concernsAs = async (inside: number): Promise<string[]> => {
      const map = (of: string): string =>
        `open F, ">", "/proc/self/${of}_map"; print F "${inside} 65534 1"; close F;`
      const script = `$| = 1; syscall ${NR_UNSHARE}, 0x10020000; ${map('uid')} print "ready\\n"; <STDIN>`
      const someone = ['--reuid', '65534', '--regid', '65534', '--clear-groups']
      const child = spawn('setpriv', [...someone, 'perl', '-e', script], {
        stdio: ['pipe', 'pipe', 'inherit'],
      })
      try {
        await new Promise(resolve => child.stdout.once('data', resolve))
        const words = ['delegate', '--pid', String(child.pid), '--policy', policy, '--dry-run', '--json']
        const { status, stdout, stderr } = await cli(words)
        assert.equal(status, 0, stderr)
        return (JSON.parse(stdout).preflight as Concern[]).map(
          ({ code, capability }) => `${code} ${capability}`,
        )
      } finally {
        child.stdin.end('\n')
        await eventually(() => child.exitCode !== null, 'it never ended')
      }
    }
    assert.deepEqual(await concernsAs(1000), ['kept-until-exec bpf', 'kept-until-exec net_admin'])
    assert.deepEqual(await concernsAs(0), [])
  },
)
