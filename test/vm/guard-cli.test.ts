/**
 * The guard by its commands, from a kernel without one to revoked delegations. Runs in a VM, after
 * `make build`.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { chmodSync, copyFileSync, mkdirSync, readFileSync, rmdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { CLI, cli, execute, startCli } from '../helpers/cli.ts'
import { checkedDocument, documentOf } from '../helpers/documents.ts'
import { ROOT } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'
import { skip } from './guarded.ts'

const POLICY = (name: string, spec = ''): string => `apiVersion: bpftoken.dev/v1
kind: DelegationPolicy
metadata: { name: ${name} }
spec:
  rights:
    cmds: [map_create]
    maps: [array]
    capabilities: [bpf]
${spec}`

let scratch: Scratch
let limited: string
let plain: string

/** Runs a program in a cgroup of its own, which goes with the scope. */
class Cgroup implements Disposable {
  readonly path: string

  constructor(name: string) {
    this.path = `/sys/fs/cgroup/${name}`
    mkdirSync(this.path)
  }

  run(command: readonly string[]): ReturnType<typeof execute> {
    const enter = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
    return execute('sh', ['-c', enter, this.path, ...command])
  }

  [Symbol.dispose](): void {
    rmdirSync(this.path)
  }
}

/** A command line that creates a map as root of the host, without a token. */
const mapCommand = (type: string): string[] => {
  const map = `{ type: '${type}', keyBytes: 4, valueBytes: 4, maxEntries: 1, token: null }`
  return [process.execPath, '-e', `require('${ROOT}/src/ebpf/map.ts').BpfMap.create(${map})`]
}

/**
 * Delegates by bare system calls, as a program that does not know bpftoken. Gives the errno of the
 * option and that of the superblock.
 */
async function delegatesBy(node: string, mask: string, within?: Cgroup): Promise<string[]> {
  const script = `
    const n = require('${ROOT}/dist/sys/prebuilt.js').loadAddon()
    const name = result => (result < 0 ? require('node:util').getSystemErrorName(result) : 'ok')
    const fd = n.fsopen('bpf', 0)
    console.log(name(n.fsconfig(fd, 1, 'delegate_cmds', '${mask}', 0)), name(n.fsconfig(fd, 6, null, null, 0)))`
  const command = [node, '-e', script]
  const { status, stdout, stderr } = await (within?.run(command) ?? execute(node, ['-e', script]))
  assert.equal(status, 0, stderr)
  return stdout.trim().split(' ')
}

/** Makes a token where `target` has a delegation, and tells what is wrong. */
function tokenShow(target: ChildProcess): string[] {
  const enter = ['nsenter', '-t', String(target.pid), '-U', '-m', '--preserve-credentials']
  return [...enter, process.execPath, CLI, 'token', 'show']
}

before(() => {
  scratch = new Scratch()
  limited = scratch.write('limited.yaml', POLICY('limited', '  limits: { tokens: 1, lifetime: 1h }\n'))
  plain = scratch.write('plain.yaml', POLICY('plain'))
})
after(() => scratch[Symbol.dispose]())

async function ok(...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await cli(args)
  assert.equal(status, 0, `bpftoken ${args.join(' ')}: ${stderr}${stdout}`)
  return stdout
}

async function json(...args: string[]): Promise<Record<string, unknown>> {
  return checkedDocument(documentOf(args), await ok(...args, '--json')) as Record<string, unknown>
}

/** A process in namespaces of its own, to delegate to. */
async function sleeper(): Promise<ChildProcess> {
  const child = spawn('unshare', ['-U', '-r', '-m', 'sh', '-c', 'echo ready; exec sleep 1000'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await new Promise(resolve => child.stdout!.once('data', resolve))
  return child
}

describe('the commands of the guard', { skip }, () => {
  test('without it a policy with limits is refused, and status says so', async () => {
    const status = await cli(['guard', 'status'])
    assert.equal(status.status, 1)
    assert.match(status.stdout, /not installed/)
    const run = await cli(['run', '--policy', limited, '--', 'true'])
    assert.equal(run.status, 4)
    assert.match(run.stderr, /bpftoken guard install/)
    const explained = await cli(['explain', '--last'])
    assert.equal(explained.status, 1)
    assert.match(explained.stderr, /not installed[\s\S]*bpftoken guard install/)
    assert.match(await ok('doctor'), /note {2}guard: is not installed/)
  })

  test('install, and again', async () => {
    assert.match(await ok('guard', 'install'), /^guard installed in \/sys\/fs\/bpf\/bpftoken, mode enforce/)
    assert.match(await ok('guard', 'install'), /^guard adopted/)
    assert.match(await ok('guard', 'status'), /enforces: the reserved mount option is refused/)
    assert.match(await ok('doctor'), /ok {4}guard: enforces[\s\S]*delegation works on this machine/)
  })

  test('run works with it, limits and all, and what was lent ends with the program', async () => {
    await ok('run', '--policy', plain, '--', 'true')
    await ok('run', '--policy', limited, '--', 'true')
    const token = await cli([
      'run',
      '--policy',
      limited,
      '--',
      process.execPath,
      CLI,
      'token',
      'show',
      '--json',
    ])
    assert.equal(token.status, 0, token.stderr)
    const status = await json('guard', 'status')
    assert.deepEqual(status['policies'], [], 'the policy was known for the moment of lending only')
  })

  test('policies become abilities', async () => {
    const directory = scratch.path
    assert.match(await ok('policy', 'install', directory), /installed as abilities: limited, plain/)
    assert.deepEqual((await json('guard', 'status'))['policies'], ['limited', 'plain'])
  })

  test('a policy with subjects is refused where nobody compares them, unless --any-subject is said', async () => {
    using elsewhere = new Scratch()
    using group = new Cgroup('for-some')
    const named = elsewhere.write('named.yaml', POLICY('named', '  subjects: [{ user: alice }]\n'))
    const commands = [
      ['policy', 'install', named],
      ['guard', 'allow', '--exe', '/bin/true', '--policy', named],
      ['confine', '--cgroup', group.path, '--policy', named],
    ]
    for (const command of commands) {
      const { status, stderr } = await cli(command)
      assert.equal(status, 4, command.join(' '))
      assert.match(stderr, /Policy "named" names subjects, and .*\n.*--any-subject/)
    }
    assert.deepEqual((await json('guard', 'status'))['policies'], ['limited', 'plain'])
    for (const command of commands) await ok(...command, '--any-subject')
    await ok('unconfine', '--cgroup', group.path)
    await ok('guard', 'disallow', '--exe', '/bin/true')
  })

  test('delegate, show, revoke, and the event of what came after', async () => {
    const target = await sleeper()
    try {
      const { id } = await json('delegate', '--pid', String(target.pid), '--policy', limited)
      assert.equal(typeof id, 'number')
      assert.match(await ok('show', String(id)), /live for 59m/)
      const [command, ...args] = tokenShow(target) as [string, ...string[]]
      const inside = (): ReturnType<typeof execute> => execute(command, args)
      const allowed = await inside()
      assert.equal(allowed.status, 0, allowed.stderr)
      await ok('events')
      assert.match(await ok('revoke', String(id)), new RegExp(`^delegation ${id} is revoked`))
      assert.match(await ok('show', String(id)), /revoked/)
      const refused = await inside()
      assert.notEqual(refused.status, 0)
      assert.match(refused.stderr, /EACCES/)
      const events = (await ok('events', '--json'))
        .trim()
        .split('\n')
        .map(line => JSON.parse(line))
      const last = events.at(-1)
      assert.deepEqual(
        [last.delegation, last.point, last.verdict, last.reason],
        [id, 'token_create', 'refused', 'revoked'],
      )
    } finally {
      target.kill('SIGKILL')
    }
    assert.equal((await cli(['revoke', '999'])).status, 1)
  })

  test('explain: an event by its number, the last refusal, and --fix, after which it is allowed', async () => {
    const rights = POLICY('small', '  limits: { maps: 1 }\n').replace('[array]', '[array, devmap] # two')
    const small = scratch.write('small.yaml', rights)
    const target = spawn('unshare', ['-U', '-r', '-m', '-n', 'sh', '-c', 'echo ready; exec sleep 1000'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    await new Promise(resolve => target.stdout!.once('data', resolve))
    const pid = String(target.pid)
    /** Makes these maps, which live together, with the token that it finds. */
    const makes = async (...types: string[]): Promise<string> => {
      const maps = types.map(
        type => `BpfMap.create({ type: '${type}', keyBytes: 4, valueBytes: 4, maxEntries: 1 })`,
      )
      const script = `const { BpfMap } = require('${ROOT}/src/ebpf/map.ts'); const maps = [${maps.join(', ')}]`
      const enter = ['-t', pid, '-U', '-m', '-n', '--preserve-credentials', process.execPath, '-e', script]
      const { status, stderr } = await execute('nsenter', enter)
      return status === 0 ? 'ok' : (/failed with (\w+)/.exec(stderr)?.[1] ?? stderr)
    }
    type Answer = {
      event: { seq: number; pid: number; uid: number }
      cause: string
      errno: string
      found: string
      state: string
      edit: object
      fix?: { applied: boolean; run: string[]; diff: string; again: { verdict: string } }
    }
    const explain = async (status: number, ...words: string[]): Promise<Answer> => {
      const said = await cli(['explain', ...words, '--json'])
      assert.equal(said.status, status, said.stderr)
      return checkedDocument('explain', said.stdout) as Answer
    }
    const obey = async ({ fix }: Answer): Promise<number> => {
      assert.deepEqual([fix?.applied, fix?.again.verdict], [true, 'ok'])
      // The last one lends anew.
      for (const command of fix!.run.slice(0, -1)) await ok(...command.split(' ').slice(1))
      const { id } = await json(...fix!.run.at(-1)!.split(' ').slice(1))
      return id as number
    }
    try {
      const { id } = await json('delegate', '--pid', pid, '--policy', small)
      const of = ['--delegation', String(id)]
      const none = await cli(['explain', '--last', ...of])
      assert.equal(none.status, 1)
      assert.match(none.stderr, /none is a refusal of those that are named|no events/)
      assert.equal(await makes('array'), 'ok')
      assert.equal(await makes('array', 'array'), 'EDQUOT')
      const last = await explain(3, '--last', ...of)
      assert.deepEqual(
        [last.cause, last.errno, last.state, last.edit],
        ['guard-maps', 'EDQUOT', 'live', { path: 'spec.limits.maps', value: 2 }],
      )
      assert.match(last.found, /^spec\.limits\.maps: 1, of which \d are in use now$/)
      // Read by somebody, it is still the same event.
      const lines = (await ok('events', '--json')).trim().split('\n')
      const told = lines.map(
        line => JSON.parse(line) as { seq: number; delegation?: number; verdict: string },
      )
      assert.deepEqual(
        told.filter(one => one.delegation === id && one.verdict === 'refused').map(({ seq }) => seq),
        [last.event.seq],
      )
      const { seq } = last.event
      // The time is worked out each time from two clocks, and may differ by some milliseconds.
      const timeless = ({ event, ...rest }: Answer) => ({ ...rest, event: { ...event, at: undefined } })
      for (const words of [
        ['--event', String(seq)],
        ['--last', '--pid', String(last.event.pid)],
        ['--last', '--uid', String(last.event.uid)],
      ])
        assert.deepEqual(timeless(await explain(3, ...words)), timeless(last))
      const fixing = ['--fix', '--yes', '--policy', small]
      const second = await obey(await explain(0, '--event', String(seq), ...fixing))
      assert.equal(await makes('array', 'array'), 'ok')
      // Now the capability, which its root has, and the delegation does not.
      assert.equal(await makes('devmap'), 'EPERM')
      const lacking = await explain(3, '--last', '--delegation', String(second))
      assert.deepEqual(
        [lacking.cause, lacking.edit],
        ['guard-capability', { path: 'spec.rights.capabilities', value: 'net_admin' }],
      )
      await obey(await explain(0, '--last', '--delegation', String(second), ...fixing))
      assert.equal(await makes('devmap'), 'ok')
      assert.equal(
        readFileSync(small, 'utf8'),
        rights.replace('maps: 1 ', 'maps: 2 ').replace('[bpf]', '[bpf, net_admin]'),
      )
      // What the event was of was revoked, and then unmounted.
      assert.match((await explain(3, '--event', String(seq))).state, /^(revoked|ended)$/)
      const unknown = await cli(['explain', '--event', '999999'])
      assert.equal(unknown.status, 1)
      assert.match(unknown.stderr, /has no event 999999: it has those from \d+ to \d+/)
      await ok('undelegate', '--pid', pid)
    } finally {
      target.kill('SIGKILL')
    }
  })

  test('events --follow tells of them as they come', async () => {
    const follower = startCli(['events', '--follow'], { stdio: ['ignore', 'pipe', 'inherit'] })
    let text = ''
    follower.stdout!.on('data', chunk => {
      text += String(chunk)
    })
    try {
      for (let attempt = 0; attempt < 100 && !text.includes('no-delegator'); attempt++) {
        await execute('mount', ['-t', 'bpf', '-o', 'delegate_cmds=any', 'bpf', '/mnt'])
        await execute(process.execPath, [
          '-e',
          `const n = require('./dist/sys/prebuilt.js').loadAddon(); const fd = n.fsopen('bpf', 0); n.fsconfig(fd, 1, 'delegate_cmds', '1', 0)`,
        ])
        await new Promise(resolve => setTimeout(resolve, 100))
      }
      assert.match(text, /refused option "delegate_cmds" \(no-delegator\): node \d+ uid 0/)
      assert.match(text, /refused option "delegate_cmds" \(old-mount\): mount \d+ uid 0/)
      const ended = new Promise(resolve => follower.once('exit', resolve))
      follower.kill('SIGINT')
      assert.equal(await ended, 0)
    } finally {
      follower.kill('SIGKILL')
    }
  })

  test('allow: an executable that knows nothing of us delegates within its ceiling, its twin does not', async () => {
    const node = join(scratch.path, 'delegator')
    copyFileSync(process.execPath, node)
    chmodSync(node, 0o755)
    assert.deepEqual(
      await delegatesBy(node, '0x1'),
      ['EACCES', 'ok'],
      'before it is allowed: an ordinary bpffs',
    )
    await ok('guard', 'allow', '--implicit', '--exe', node, '--policy', plain)
    assert.match(
      await ok('guard', 'status'),
      /delegator executable .*\/delegator, implicit: cmds=map_create maps=array$/m,
    )
    assert.deepEqual(await delegatesBy(node, '0x1'), ['ok', 'ok'])
    assert.deepEqual(await delegatesBy(node, '0x3'), ['ok', 'EACCES'], 'beyond the ceiling')
    assert.deepEqual(await delegatesBy(process.execPath, '0x1'), ['EACCES', 'ok'], 'another file')
    await ok('guard', 'disallow', '--exe', node)
    assert.deepEqual(await delegatesBy(node, '0x1'), ['EACCES', 'ok'])
    assert.equal((await cli(['guard', 'disallow', '--exe', node])).status, 1)
    rmSync(node)
  })

  test('allow: warns of an executable that is many programs, not of one that is one', async () => {
    for (const [name, kinds] of [
      ['busybox', ['multi-call']],
      ['python3', ['interpreter']],
      ['delegator', []],
    ] as const) {
      const file = join(scratch.path, name)
      copyFileSync(process.execPath, file)
      const { status, stdout, stderr } = await cli([
        'guard',
        'allow',
        '--json',
        '--exe',
        file,
        '--policy',
        plain,
      ])
      assert.equal(status, 0, stderr)
      const { warnings } = JSON.parse(stdout) as { warnings: { kind: string; what: string }[] }
      assert.deepEqual(
        warnings.map(({ kind }) => kind),
        kinds,
      )
      assert.equal(stderr, warnings.map(({ what }) => `bpftoken: warning: ${what}\n`).join(''))
      await ok('guard', 'disallow', '--exe', file)
      rmSync(file)
    }
  })

  test('allow: a cgroup, and the unit that is one', async () => {
    using slice = new Cgroup('system.slice')
    for (const kind of ['cgroup', 'unit']) {
      const name = 'allowed.service'
      const who = [`--${kind}`, kind === 'unit' ? name : `${slice.path}/${name}`]
      const inside = async (): Promise<string[]> => {
        using group = new Cgroup(`system.slice/${name}`)
        return await delegatesBy(process.execPath, '0x1', group)
      }
      await ok('guard', 'allow', '--implicit', ...who, '--policy', plain)
      assert.deepEqual(await inside(), ['ok', 'ok'], `${kind}, made after it was allowed`)
      assert.deepEqual(await inside(), ['ok', 'ok'], `${kind}, made anew`)
      assert.deepEqual(await delegatesBy(process.execPath, '0x1'), ['EACCES', 'ok'], 'outside')
      await ok('guard', 'disallow', ...who)
      assert.deepEqual(await inside(), ['EACCES', 'ok'])
    }
  })

  test('confine: of bpf(2), a service that runs as root can do what its policy lends', async () => {
    using group = new Cgroup('service')
    const outcome = async (type: string): Promise<string> => {
      const { status, stderr } = await group.run(mapCommand(type))
      return status === 0 ? 'ok' : (/failed with (\w+)/.exec(stderr)?.[1] ?? stderr)
    }
    assert.equal(await outcome('hash'), 'ok', 'before')
    const { id } = await json('confine', '--cgroup', group.path, '--policy', plain)
    assert.equal(await outcome('array'), 'ok')
    assert.equal(await outcome('hash'), 'EPERM')
    const [command, ...args] = mapCommand('hash') as [string, ...string[]]
    assert.equal((await execute(command, args)).status, 0, 'outside of the cgroup')
    assert.match(await ok('show', String(id)), /live/)
    assert.match(await ok('guard', 'status'), /service/)
    assert.match(await ok('events'), new RegExp(`refused .*rights.* delegation ${id},`))
    const watched = scratch.write('watched.yaml', POLICY('watched', '  mode: permissive\n'))
    const { id: other } = await json('confine', '--cgroup', group.path, '--policy', watched)
    assert.equal(await outcome('hash'), 'ok', 'permissive')
    assert.match(await ok('events'), new RegExp(`would-refuse .*rights.* delegation ${other},`))
    assert.equal(await outcome('hash'), 'ok', 'permissive')
    const suggested = await ok('events', '--suggest')
    assert.match(suggested, new RegExp(`^# To be added to the policy of delegation ${other}$`, 'm'))
    assert.match(suggested, /^ {4}maps:\n {6}- hash # let through once: /m)
    assert.match(await ok('events', '--suggest'), /^# Nothing was refused or let through$/m)
    // With what was suggested it is refused no more.
    const enough = POLICY('enough').replace(/maps: \[/, 'maps: [hash, ')
    await json('confine', '--cgroup', group.path, '--policy', scratch.write('enough.yaml', enough))
    assert.equal(await outcome('hash'), 'ok', 'as suggested')
    await json('confine', '--cgroup', group.path, '--policy', plain)
    await ok('unconfine', '--cgroup', group.path)
    assert.equal(await outcome('hash'), 'ok', 'after')
    assert.equal((await cli(['unconfine', '--cgroup', group.path])).status, 1)
    assert.equal((await cli(['unconfine'])).status, 2)
  })

  test('delegate --only-cgroup: tokens are made in that cgroup only', async () => {
    using group = new Cgroup('workload')
    const target = await sleeper()
    try {
      const { id } = await json(
        'delegate',
        '--pid',
        String(target.pid),
        '--policy',
        plain,
        '--only-cgroup',
        group.path,
      )
      const [command, ...args] = tokenShow(target) as [string, ...string[]]
      assert.match((await execute(command, args)).stderr, /EACCES/)
      const within = await group.run([command, ...args])
      assert.equal(within.status, 0, within.stderr)
      assert.match(await ok('show', String(id)), /tokens in +\/sys\/fs\/cgroup\/workload/)
      const listed = JSON.parse(await ok('ls', '--json')) as { delegations: number[] }[]
      assert.deepEqual(
        listed.map(({ delegations }) => delegations),
        [[id]],
      )
    } finally {
      target.kill('SIGKILL')
    }
  })

  test('derive: a narrower one, which takes from its origin and falls with it', async () => {
    const [origin, heir] = [await sleeper(), await sleeper()]
    const token = (target: ChildProcess): ReturnType<typeof execute> => {
      const [command, ...args] = tokenShow(target) as [string, ...string[]]
      return execute(command, args)
    }
    try {
      const wide = scratch.write(
        'wide.yaml',
        POLICY('wide', '  limits: { maps: 4 }\n  derive: { allowed: true, maxDepth: 1 }\n'),
      )
      const moreFor = (user: string): string =>
        POLICY('more', `  limits: { maps: 8 }\n  subjects: [{ user: ${user} }]\n`)
      const more = scratch.write('more.yaml', moreFor('root'))
      const others = scratch.write('others.yaml', moreFor('nobody'))
      const { id: shut } = await json(
        'delegate',
        '--pid',
        String(origin.pid),
        '--policy',
        plain,
        '--path',
        '/mnt',
      )
      const derive = (from: unknown, ...args: string[]): ReturnType<typeof cli> =>
        cli(['derive', String(from), '--pid', String(heir.pid), '--policy', ...args])
      assert.match((await derive(shut, plain)).stderr, /does not allow it/)

      const { id } = await json('delegate', '--pid', String(origin.pid), '--policy', wide)
      const strict = await derive(id, more, '--strict')
      assert.equal(strict.status, 3)
      assert.match(strict.stderr, /spec\.limits\.maps: 8 \(the parent's limit is 4\)/)
      const stranger = await derive(id, others)
      assert.equal(stranger.status, 3)
      assert.match(stranger.stderr, /user is "0", not "nobody"/)
      const made = await derive(id, more, '--json')
      assert.equal(made.status, 0, made.stderr)
      const { id: child, removed } = checkedDocument('derive', made.stdout) as {
        id: number
        removed: { path: string }[]
      }
      assert.deepEqual(
        removed.map(({ path }: { path: string }) => path),
        ['spec.limits.maps'],
      )
      assert.match(await ok('show', String(child)), new RegExp(`from\\s+delegation ${id}`))
      assert.equal((await token(heir)).status, 0)
      const again = await cli([
        'derive',
        String(id),
        '--pid',
        String(heir.pid),
        '--policy',
        more,
        '--path',
        '/mnt',
      ])
      assert.match(again.stderr, /the parent's limit is 0/, 'nothing is left')
      await ok('revoke', String(id))
      assert.match((await token(origin)).stderr, /EACCES/)
      assert.match((await token(heir)).stderr, /EACCES/)
      assert.match(await ok('show', String(child)), /revoked/)
      assert.equal((await derive(id, plain)).status, 1, 'from what is revoked')
    } finally {
      origin.kill('SIGKILL')
      heir.kill('SIGKILL')
    }
  })

  test('ls --tree: who has what, with what is derived from it and what lives of it', async () => {
    const [origin, heir] = [await sleeper(), await sleeper()]
    const wide = scratch.write('tree.yaml', POLICY('tree', '  derive: { allowed: true, maxDepth: 1 }\n'))
    const to = (target: ChildProcess): string[] => ['--pid', String(target.pid)]
    let holder: ChildProcess | undefined
    try {
      const { id } = await json('delegate', ...to(origin), '--policy', wide)
      const { id: child } = await json('derive', String(id), ...to(heir), '--policy', plain)
      // A map of the derived delegation, held until it is killed.
      const script = `const { BpfMap } = require('${ROOT}/src/ebpf/map.ts')
        BpfMap.create({ type: 'array', keyBytes: 4, valueBytes: 4, maxEntries: 1, name: 'held' })
        console.log('held'); setInterval(() => {}, 1000)`
      const enter = [
        '-t',
        String(heir.pid),
        '-U',
        '-m',
        '--preserve-credentials',
        process.execPath,
        '-e',
        script,
      ]
      holder = spawn('nsenter', enter, { stdio: ['ignore', 'pipe', 'inherit'] })
      await new Promise(resolve => holder!.stdout!.once('data', resolve))
      const text = await ok('ls', '--tree')
      assert.match(
        text,
        new RegExp(
          `\\n  delegation ${id} of policy tree, live\\n    derived delegation ${child} of policy plain, live, to user:\\[\\d+\\]\\n      map \\d+ array held\\n`,
        ),
      )
      assert.doesNotMatch(text, /not known/)
      const { lent } = (await json('ls', '--tree')) as {
        lent: { delegations: { id: number; derived: { id: number; maps: { name: string }[] }[] }[] }[]
      }
      const found = lent.flatMap(({ delegations }) => delegations).find(one => one.id === id)
      assert.deepEqual(
        found?.derived.map(one => [one.id, one.maps.map(({ name }) => name)]),
        [[child, ['held']]],
      )
    } finally {
      for (const child of [origin, heir, holder]) child?.kill('SIGKILL')
    }
  })

  test('every document about the guard is of its schema', async () => {
    const target = await sleeper()
    using _slice = new Cgroup('system.slice')
    using group = new Cgroup('documents')
    try {
      await json('guard', 'install')
      await json('policy', 'install', plain)
      await json('guard', 'allow', '--exe', '/bin/true', '--policy', plain)
      await json('guard', 'allow', '--unit', 'documents.service')
      await json('confine', '--cgroup', group.path, '--policy', limited)
      const { id } = await json('delegate', '--pid', String(target.pid), '--policy', limited)
      await json('guard', 'status')
      await json('show', String(id))
      await json('ls', '--tree')
      await json('revoke', String(id))
      await json('revoke', String(id), '--detach', '--kill')
      await json('show', String(id))
      await json('unconfine', '--cgroup', group.path)
      await json('guard', 'disallow', '--exe', '/bin/true')
      await json('guard', 'disallow', '--unit', 'documents.service')
      // This makes an event.
      assert.notEqual(
        (await execute('mount', ['-t', 'bpf', '-o', 'delegate_cmds=any', 'bpf', '/mnt'])).status,
        0,
      )
      const lines = (await ok('events', '--json')).trim().split('\n')
      for (const line of lines) checkedDocument('events', line)
      const failed = await cli(['show', '999', '--json'])
      assert.equal(failed.status, 1)
      checkedDocument('error', failed.stderr)
      await json('guard', 'remove')
      await json('guard', 'install', '--mode', 'enforce')
    } finally {
      target.kill('SIGKILL')
    }
  })

  test('remove', async () => {
    assert.match(await ok('guard', 'remove'), /^guard removed/)
    assert.equal((await cli(['guard', 'status'])).status, 1)
    assert.equal((await cli(['guard', 'remove'])).status, 1)
    await ok('run', '--policy', plain, '--', 'true')
  })
})
