/** Who gets a delegation: the subjects of a policy against real processes, cgroups and files. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { after, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { cgroupRoot } from '../../src/lending/recipient/cgroup.ts'
import { removeCgroup } from '../helpers/cgroup.ts'
import { CLI, cli, execute, finish, startCli } from '../helpers/cli.ts'
import { needsTokens } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'

const machine = needsTokens()
const scratch = new Scratch()
after(() => scratch[Symbol.dispose]())

let count = 0

/** A policy with these subjects (YAML), which needs no guard; without, it states none. */
function policyFor(subjects?: string): string {
  return scratch.write(
    `policy-${count++}.yaml`,
    `apiVersion: bpftoken.dev/v1
kind: DelegationPolicy
metadata: { name: for-some }
spec:
  ${subjects === undefined ? '' : `subjects: ${subjects}`}
  rights: { cmds: [map_create], maps: [array] }
`,
  )
}

const USER = '4711:4712'

interface Workload extends AsyncDisposable {
  readonly pid: string
}

/**
 * A process in a user namespace of its own, host user 4711, in the cgroup given: `run` with nobody
 * to ask.
 */
async function startWorkload(program: string[] = ['sleep', '600'], cgroup?: string): Promise<Workload> {
  const args = ['run', '--policy', policyFor(), '--path', '/mnt', '--user', USER, '--', ...program]
  const child = startCli(args, { stdio: ['ignore', 'ignore', 'inherit'] })
  const pid = await descendant(child, program[0]!)
  if (cgroup !== undefined) writeFileSync(`${cgroup}/cgroup.procs`, pid)
  return {
    pid,
    async [Symbol.asyncDispose]() {
      process.kill(Number(pid), 'SIGKILL')
      await finish(child)
    },
  }
}

/** The process below `child` that has become `program`. */
async function descendant(child: ChildProcess, program: string): Promise<string> {
  for (;;) {
    assert.equal(child.exitCode, null, 'the workload has ended')
    const found = below(String(child.pid)).find(pid => commandOf(pid) === program)
    if (found !== undefined) return found
    await sleep(20)
  }
}

function below(pid: string): string[] {
  const children = readOrEmpty(`/proc/${pid}/task/${pid}/children`).split(' ').filter(Boolean)
  return children.flatMap(child => [child, ...below(child)])
}

function commandOf(pid: string): string {
  return readOrEmpty(`/proc/${pid}/cmdline`).split('\0')[0]!
}

/** Processes end while we look. */
function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}

async function delegate(pid: string, subjects: string | undefined, ...more: string[]) {
  return await cli(['delegate', '--pid', pid, '--policy', policyFor(subjects), '--json', ...more])
}

/** Allowed, really there, and taken back. */
async function assertLends(pid: string, subjects: string | undefined, ...more: string[]): Promise<unknown> {
  const made = await delegate(pid, subjects, ...more)
  assert.equal(made.status, 0, made.stderr)
  assert.equal((await cli(['undelegate', '--pid', pid])).status, 0)
  return JSON.parse(made.stdout)
}

/** Refused with exit 3 and a trace, and nothing there. */
async function assertRefuses(pid: string, subjects: string, why: RegExp, ...more: string[]): Promise<void> {
  const refused = await delegate(pid, subjects, ...more)
  assert.equal(refused.status, 3, refused.stdout)
  const { error } = JSON.parse(refused.stderr)
  assert.equal(error.code, 'BPFTOKEN_DENIED')
  assert.match(error.message, why)
  assert.equal(error.trace[0].policy, 'for-some')
  assert.equal((await cli(['undelegate', '--pid', pid])).status, 1)
}

describe('run', () => {
  const run = (subjects: string | undefined, ...args: string[]) =>
    cli(['run', '--policy', policyFor(subjects), ...args])

  test(
    'runs for whom the policy names, and for nobody else: exit 3, the trace, no program',
    machine,
    async () => {
      const mine = await run('[{ user: 4711, group: 4712 }]', '--user', USER, '--', 'echo', 'started')
      assert.equal(mine.status, 0, mine.stderr)
      assert.equal(mine.stdout, 'started\n')
      const other = await run('[{ user: 4711, group: 4713 }]', '--user', USER, '--', 'echo', 'started')
      assert.equal(other.status, 3)
      assert.equal(other.stdout, '')
      assert.match(other.stderr, /^bpftoken: Refused: no subject matches$/m)
      assert.match(other.stderr, /spec\.subjects\[0\] does not match: group is "4712", not "4713"$/m)
      assert.match(other.stderr, /--any-subject/)
      const dry = await run('[{ user: 1 }]', '--user', USER, '--dry-run', '--', 'echo', 'started')
      assert.equal(dry.status, 3)
    },
  )

  test('finds users and groups by the names of this machine', machine, async () => {
    const nobody = spawnSync('id', ['-gn', 'nobody'], { encoding: 'utf8' }).stdout.trim()
    const known = await run(`[{ user: nobody, group: ${nobody} }]`, '--user', 'nobody', '--', 'true')
    assert.equal(known.status, 0, known.stderr)
    // The name of another user, and a name that there is not.
    assert.equal((await run('[{ user: daemon }]', '--user', 'nobody', '--', 'true')).status, 3)
    assert.equal((await run('[{ user: no-such-user }]', '--user', 'nobody', '--', 'true')).status, 3)
  })

  test(
    'absent subjects leave it to root, an empty list is nobody, --any-subject overrides and says so',
    machine,
    async () => {
      assert.equal((await run(undefined, '--', 'true')).status, 0)
      assert.equal((await run('[]', '--', 'true')).status, 3)
      const any = await run('[]', '--any-subject', '--', 'echo', 'started')
      assert.equal(any.status, 0)
      assert.equal(any.stdout, 'started\n')
      assert.match(any.stderr, /does not name this subject: --any-subject lends/)
      const recorded = await run('[]', '--any-subject', '--dry-run', '--json', '--', 'true')
      assert.equal(JSON.parse(recorded.stdout).anySubject, true)
      // Where it is not needed, it is not recorded.
      const named = await run(
        '[{ user: 4711 }]',
        '--user',
        USER,
        '--any-subject',
        '--dry-run',
        '--json',
        '--',
        'true',
      )
      assert.equal(JSON.parse(named.stdout).anySubject, undefined)
      assert.equal(named.stderr, '')
    },
  )

  test(
    'what cannot be known here is refused with exit 4, unless another entry matches',
    machine,
    async () => {
      const pod = '{ kubernetes: { namespace: edge, serviceAccount: agent } }'
      const refused = await run(
        `[${pod}, { kubernetes: { namespace: a, serviceAccount: b }, user: 4711 }]`,
        '--user',
        USER,
        '--',
        'true',
      )
      assert.equal(refused.status, 4)
      assert.match(refused.stderr, /kubernetes: its service account cannot be known here/)
      assert.equal((await run(`[${pod}, { user: 4711 }]`, '--user', USER, '--', 'true')).status, 0)
    },
  )

  test(
    'the executable is known of an absolute path without links, the label before execution never',
    machine,
    async () => {
      const program = scratch.write('program', '#!/bin/sh\nexit 0\n', 0o755)
      const subjects = `[{ executable: ${program} }]`
      assert.equal((await run(subjects, '--', program)).status, 0)
      assert.equal((await run(subjects, '--', '/bin/true')).status, 3)
      const link = `${scratch.path}/link`
      spawnSync('ln', ['-sf', program, link])
      assert.equal((await run(`[{ executable: ${link} }]`, '--', link)).status, 3)
      assert.equal((await run(`[{ executable: ${program} }]`, '--', link)).status, 3)
      assert.equal((await run('[{ label: "*" }]', '--', program)).status, 3)
    },
  )
})

describe('delegate', () => {
  test('goes by the ids that the kernel gives, in the numbers of the host', machine, async () => {
    await using workload = await startWorkload()
    await assertLends(workload.pid, '[{ user: 4711 }]')
    await assertLends(workload.pid, '[{ group: 4712, user: 4711 }]')
    await assertLends(workload.pid, undefined)
    // Inside it is root, which is not root here.
    await assertRefuses(workload.pid, '[{ user: 0 }]', /user is "4711", not "0"/)
    await assertRefuses(workload.pid, '[{ user: root }]', /user is "4711", not "root"/)
    await assertRefuses(workload.pid, '[{ user: 4711, group: 0 }]', /group is "4712", not "0"/)
    await assertRefuses(workload.pid, '[]', /list of subjects is empty/)
    await assertRefuses(workload.pid, '[{ user: 0 }]', /user is "4711"/, '--dry-run')
    const overridden = await assertLends(workload.pid, '[{ user: 0 }]', '--any-subject')
    assert.equal((overridden as { anySubject?: boolean }).anySubject, true)
    assert.equal(
      ((await assertLends(workload.pid, '[{ user: 4711 }]')) as object & { anySubject?: boolean }).anySubject,
      undefined,
    )
  })

  test('goes by no id that a process has in its name', machine, async () => {
    for (const end of ['\r', '\u2028', '\u2029']) {
      const program = `${scratch.path}/a${end}Groups:4242`
      copyFileSync('/bin/sleep', program)
      await using workload = await startWorkload([program, '600'])
      assert.equal(readFileSync(`/proc/${workload.pid}/comm`, 'utf8'), `a${end}Groups:4242\n`)
      await assertRefuses(workload.pid, '[{ group: 4242 }]', /group is "4712", not "4242"/)
      await assertLends(workload.pid, '[{ group: 4712 }]')
    }
  })

  const cgroups = cgroupRoot()
  const withCgroups =
    machine.skip === undefined && cgroups === undefined ? { skip: 'no cgroup2 is mounted' } : machine

  test(
    'goes by the cgroup and its unit, and not by what a unit calls what is below it',
    withCgroups,
    async () => {
      const slice = `${cgroups}/bpftoken${process.pid}.slice`
      const unit = `${slice}/edge-1.service`
      const below = `${unit}/fake.service`
      for (const directory of [slice, unit, below]) mkdirSync(directory)
      try {
        await inCgroups(unit, below, `/bpftoken${process.pid}.slice`)
      } finally {
        await removeCgroup(slice)
      }
    },
  )

  async function inCgroups(unit: string, below: string, slice: string): Promise<void> {
    // What `run` starts will be where `run` is.
    const enter = ['-c', 'echo $$ > "$0/cgroup.procs" && exec "$@"', unit, process.execPath, CLI, 'run']
    const runInUnit = (subjects: string) =>
      execute('sh', [...enter, '--policy', policyFor(subjects), '--', 'true'])
    assert.equal((await runInUnit(`[{ unit: edge-1.service, cgroup: ${slice}/** }]`)).status, 0)
    const elsewhere = await runInUnit('[{ unit: edge-2.service }]')
    assert.equal(elsewhere.status, 3)
    assert.match(elsewhere.stderr, /unit is "edge-1\.service", not "edge-2\.service"/)
    {
      await using workload = await startWorkload(['sleep', '600'], unit)
      await assertLends(workload.pid, `[{ cgroup: "${slice}/edge-*.service", unit: edge-1.service }]`)
      await assertRefuses(workload.pid, '[{ cgroup: /*/edge-2.service }]', /edge-1\.service", not/)
      await assertRefuses(workload.pid, '[{ unit: edge-1.scope }]', /unit is "edge-1\.service"/)
    }
    await using hidden = await startWorkload(['sleep', '600'], below)
    await assertLends(hidden.pid, `[{ unit: "edge-*", cgroup: "${slice}/**" }]`)
    await assertRefuses(
      hidden.pid,
      '[{ unit: fake.service }]',
      /unit is "edge-1\.service", not "fake\.service"/,
    )
    await assertRefuses(hidden.pid, `[{ cgroup: "${slice}/edge-*" }]`, /fake\.service", not/)
  }

  test('goes by no executable, which the target can choose', machine, async () => {
    const program = `${scratch.path}/agent`
    copyFileSync('/bin/sleep', program)
    await using workload = await startWorkload([program, '600'])
    for (const wanted of [program, `${scratch.path}/a*`, '/**'])
      await assertRefuses(workload.pid, `[{ executable: "${wanted}" }]`, /executable: .*can choose/)
    await assertRefuses(workload.pid, `[{ executable: ${program}, user: 4711 }]`, /executable: .*can choose/)
    await assertLends(workload.pid, `[{ executable: ${program} }, { user: 4711 }]`)
  })

  test('a label that the kernel does not give matches nothing', machine, async () => {
    await using workload = await startWorkload()
    const label = readOrUndefined(`/proc/${workload.pid}/attr/current`)
    if (label === undefined) await assertRefuses(workload.pid, '[{ label: "*" }]', /no security label/)
    else await assertLends(workload.pid, '[{ label: "*" }]')
    await assertRefuses(workload.pid, '[{ label: no-such-label }]', /label/)
  })
})

describe('policy test', () => {
  const policy = policyFor('[{ user: alice, unit: "x*.service" }, { group: 44 }, { label: "s0:c1,c2" }]')
  const ask = (as: string, options = {}) => cli(['policy', 'test', policy, '--as', as], options)

  test('prints verdict and trace, and does nothing: 0 allowed, 3 refused, without root', async () => {
    for (const [as, status, why] of [
      ['user=alice,unit=x1.service', 0, /spec\.subjects\[0\] matches/],
      ['user=alice,cgroup=/system.slice/x1.service/y', 0, /spec\.subjects\[0\] matches/],
      ['user=alice,unit=x1.service,cgroup=/system.slice/x1.service/y', 0, /spec\.subjects\[0\] matches/],
      ['user=alice,cgroup=/', 3, /unit: it is not given/],
      ['user=alice', 3, /unit: it is not given/],
      ['user=bob,unit=x1.service', 3, /user is "bob", not "alice"/],
      ['group=43,group=44', 0, /spec\.subjects\[1\] matches/],
      ['group=43,group=45', 3, /group is "43, 45", not "44"/],
      ['label=s0:c1,c2', 0, /spec\.subjects\[2\] matches/],
      ['label=s0:c1', 3, /label is "s0:c1"/],
    ] as const) {
      for (const options of process.geteuid?.() === 0 ? [{}, { uid: 65534, gid: 65534 }] : [{}]) {
        const { status: was, stdout, stderr } = await ask(as, options)
        assert.equal(was, status, `${as}: ${stderr}`)
        assert.match(stdout, why)
      }
    }
  })

  test('--json prints the verdict as data', async () => {
    const { status, stdout } = await cli(['policy', 'test', policy, '--as', 'user=bob', '--json'])
    assert.equal(status, 3)
    const verdict = JSON.parse(stdout)
    assert.equal(verdict.allowed, false)
    assert.equal(verdict.trace[0].entries[0].fields[0].outcome, 'differs')
  })

  test('facts that there are not, and values that cannot be, are usage errors', async () => {
    for (const as of [
      'usr=alice',
      'user',
      'user=',
      '=alice',
      'user=alice,user=bob',
      'user=alice,uint=x',
      'user=4294967295',
      'group=4294967296',
      'user=99999999999999999999',
      'cgroup=a/b',
      'cgroup=//a',
      'cgroup=/a//b',
      'cgroup=/a/',
      'cgroup=/a/../b',
      'cgroup=/a/.',
      'executable=/usr//bin/x',
      'unit=x1.timer',
      'unit=x1',
      'unit=a/b.service',
      'unit=x1.service,cgroup=/system.slice/x2.service',
      'unit=x1.service,cgroup=/',
      'executable=agent',
      'kubernetes=edge',
      '',
    ])
      assert.equal((await ask(as)).status, 2, as)
    assert.equal((await cli(['policy', 'test', policy])).status, 2)
  })
})

function readOrUndefined(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}
