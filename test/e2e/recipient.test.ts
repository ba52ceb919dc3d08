/**
 * Who is lent to, by name: containers of an unmodified Podman, root's and a user's, and what is
 * said of names that mean nothing, several, or what does not run.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { compiled } from '../../scripts/compiled.ts'
import { residue, snapshot } from '../../scripts/residue.ts'
import { cgroupRoot } from '../../src/lending/recipient/cgroup.ts'
import { removeCgroup } from '../helpers/cgroup.ts'
import { CLI, cli, execute } from '../helpers/cli.ts'
import { needsProgram, needsTokens, ROOT } from '../helpers/machine.ts'
import { ALICE, IMAGE, Podman } from '../helpers/podman.ts'
import { Scratch } from '../helpers/scratch.ts'
import { Shell } from '../helpers/shell.ts'

const untouched = snapshot()
const scratch = new Scratch()
const POLICY = join(ROOT, 'examples/policies/libbpf-xdp.yaml')
// A user can come into a user namespace of theirs from the host's network.
const ANYWHERE = scratch.write(
  'anywhere.yaml',
  readFileSync(POLICY, 'utf8').replace('network: own', 'network: host'),
)
const IDS = ['--uidmap', '0:300000:65536', '--cap-add', 'BPF,NET_ADMIN']
const machine = needsProgram('podman/usr/bin/podman')

after(async () => {
  scratch[Symbol.dispose]()
  assert.deepEqual(await residue(untouched), [])
})

describe('of Podman', machine, () => {
  let podman: Podman
  before(async () => {
    podman = await Podman.start()
    await podman.sleeper('web', ...IDS)
    await podman.sleeper('other', ...IDS)
  })
  after(() => podman.end())

  const delegate = (...words: string[]) => podman.cli('delegate', '--policy', POLICY, ...words)
  const mounted = async (name: string): Promise<boolean> =>
    (await podman.podman('exec', name, 'cat', '/proc/mounts')).includes('delegate_cmds')

  test('delegate and undelegate --container NAME: that container, and no other', async () => {
    const lent = await delegate('--container', 'web')
    assert.equal(lent.status, 0, lent.stderr)
    assert.match(lent.stderr, /container web \([0-9a-f]{12}\) of Podman is process \d+/)
    assert.match(lent.stdout, new RegExp(`delegated to process ${await podman.pid('web')} at /sys/fs/bpf`))
    assert.deepEqual([await mounted('web'), await mounted('other')], [true, false])
    const back = await podman.cli('undelegate', '--container', 'web')
    assert.equal(back.status, 0, back.stderr)
    assert.equal(await mounted('web'), false)
  })

  test('explain --container NAME: what it lacks, and nothing more once that is lent', async () => {
    const explain = (...call: string[]) => podman.cli('explain', '--container', 'other', '--', ...call)
    const alone = await explain('prog_load', 'xdp', 'xdp')
    assert.equal(alone.status, 3, alone.stderr)
    assert.match(alone.stderr, /container other \([0-9a-f]{12}\) of Podman is process \d+/)
    assert.match(alone.stdout, /^prog_load xdp xdp: refused \(EPERM\): no-delegation$/m)
    assert.equal((await delegate('--container', 'other')).status, 0)
    const lent = await explain('prog_load', 'xdp', 'xdp')
    assert.deepEqual([lent.status, lent.stdout.split('\n')[0]], [0, 'prog_load xdp xdp: allowed'])
    // What the policy does not lend, and what the container was not given.
    const map = await explain('map_create', 'queue')
    assert.match(map.stdout, /: token-map-type$/m)
    const kprobe = await explain('prog_load', 'kprobe')
    assert.match(kprobe.stdout, /: token-prog-type$/m)
    assert.equal((await podman.cli('undelegate', '--container', 'other')).status, 0)
  })

  test('--container with an id, and with the beginning of one', async () => {
    const id = await podman.podman('inspect', '--format', '{{.Id}}', 'other')
    for (const name of [id, id.slice(0, 12)]) {
      const { status, stdout, stderr } = await delegate('--container', name, '--dry-run', '--json')
      assert.equal(status, 0, stderr)
      assert.equal(JSON.parse(stdout).target.pid, await podman.pid('other'))
    }
  })

  test('a name that nobody has: refused, with those that there are', async () => {
    const { status, stderr } = await delegate('--container', 'wev')
    assert.equal(status, 1)
    assert.match(stderr, /no container "wev": .*web \(/)
    assert.match(stderr, /other \(/)
  })

  test('a name that means several: refused with each, and its id is taken', async () => {
    const ids = await Promise.all(
      ['web', 'other'].map(name => podman.podman('inspect', '--format', '{{.Id}}', name)),
    )
    // Sixteen more at most, of which two begin alike.
    const starts = new Set(ids.map(id => id[0]!))
    const made: string[] = []
    while (starts.size === ids.length) {
      const name = `more-${made.length}`
      const id = await podman.podman('create', '--name', name, '--network', 'none', IMAGE, 'true')
      made.push(name)
      ids.push(id)
      starts.add(id[0]!)
    }
    const shared = ids.find((id, i) => ids.findIndex(one => one[0] === id[0]) !== i)![0]!
    const { status, stderr } = await delegate('--container', shared, '--dry-run')
    if (made.length > 0) await podman.remove(...made)
    assert.equal(status, 1)
    assert.match(stderr, /means several containers: .*; /)
    assert.equal((await delegate('--container', ids[0]!, '--dry-run')).status, 0)
  })

  test('one in our own user namespace: refused, and how it would get one', async () => {
    await podman.sleeper('plain', '--cap-add', 'BPF')
    const { status, stderr } = await delegate('--container', 'plain')
    await podman.remove('plain')
    assert.equal(status, 1)
    assert.match(stderr, /Of container plain .* same user namespace/)
    assert.match(stderr, /--userns=auto/)
  })

  test('one that is stopped: refused; started again: lent to, and it is another process', async () => {
    const first = await podman.pid('other')
    await podman.podman('stop', '--time', '0', 'other')
    const stopped = await delegate('--container', 'other')
    assert.equal(stopped.status, 1)
    assert.match(stopped.stderr, /Container other .* is exited/)
    await podman.podman('start', 'other')
    const lent = await delegate('--container', 'other')
    assert.equal(lent.status, 0, lent.stderr)
    assert.notEqual(await podman.pid('other'), first)
    assert.equal(await mounted('other'), true)
  })

  test('one that ended while conmon was killed still runs for Podman: its number is believed no more', async () => {
    await podman.sleeper('stale', ...IDS)
    const pid = await podman.pid('stale')
    const conmon = await podman.podman('inspect', '--format', '{{.State.ConmonPid}}', 'stale')
    await podman.execute('kill', '-KILL', conmon)
    await podman.execute('kill', '-KILL', String(pid))
    const said = await podman.podman('ps', '--filter', 'name=stale', '--format', '{{.Status}} {{.Pid}}')
    const { status, stdout, stderr } = await delegate('--container', 'stale')
    await podman.remove('stale')
    assert.match(said, new RegExp(`^Up .* ${pid}$`))
    assert.equal(status, 1, stderr)
    assert.equal(stdout, '')
  })

  test("a user's container is named with its user, and is not root's", async () => {
    await podman.rootlessSleeper('hers')
    const without = await delegate('--container', 'hers', '--dry-run')
    assert.equal(without.status, 1)
    assert.match(without.stderr, /no container "hers"/)
    const hers = ['delegate', '--policy', ANYWHERE, '--container', 'alice/hers', '--json']
    const { status, stdout, stderr } = await podman.cli(...hers)
    assert.equal(status, 0, stderr)
    assert.match(stderr, /container hers \([0-9a-f]{12}\) of alice's Podman/)
    assert.equal(JSON.parse(stdout).target.ownerUid, ALICE.uid)
    const inside = await podman.asAlice('podman', 'exec', 'hers', 'cat', '/proc/mounts')
    assert.match(inside.stdout, /delegate_cmds/)
    const roots = await delegate('--container', 'alice/web')
    assert.equal(roots.status, 1)
    assert.match(roots.stderr, /no container "web" of user alice/)
  })
})

describe('of a Podman that lies', machine, () => {
  let podman: Podman
  let first: Shell
  let second: Shell
  before(async () => {
    podman = await Podman.start()
    first = await Shell.start()
    second = await Shell.start()
  })
  after(async () => {
    await first.end()
    await second.end()
    await podman.end()
  })

  /** `podman ps` answers with these, one after the other, the last one again and again. */
  function answers(...pids: readonly number[]): Promise<void> {
    return answersSince(Math.floor(Date.now() / 1000), pids)
  }

  async function answersSince(seconds: unknown, pids: readonly number[]): Promise<void> {
    const script = ['#!/bin/sh', 'n=$(cat /run/asked 2>/dev/null || echo 0)', 'echo $((n + 1)) >/run/asked']
    pids.forEach((pid, i) => {
      const one = { Id: 'a'.repeat(64), Names: ['web'], Pid: pid, State: 'running', StartedAt: seconds }
      const test = i === pids.length - 1 ? 'true' : `[ $n = ${i} ]`
      script.push(`if ${test}; then echo '${JSON.stringify([one])}'; exit; fi`)
    })
    const file = scratch.write('podman', `${script.join('\n')}\n`, 0o755)
    const { status, stderr } = await podman.execute(
      'sh',
      '-c',
      `echo 0 >/run/asked; chmod 666 /run/asked; cp ${file} /usr/local/bin/fake; mount --bind ${file} /usr/bin/podman`,
    )
    assert.equal(status, 0, stderr)
  }

  const delegate = (name: string) => podman.cli('delegate', '--policy', POLICY, '--container', name)
  const mounts = (shell: Shell) => shell.run('grep -c delegate_cmds /proc/self/mounts || true')

  test('a container that is restarted while it is looked up is not lent to', async () => {
    await answers(first.pid, second.pid)
    const { status, stderr } = await delegate('web')
    assert.equal(status, 1)
    assert.match(stderr, /While it was looked at, container web .* became container web/)
    assert.deepEqual([await mounts(first), await mounts(second)], ['0', '0'])
  })

  test('a user cannot name a process that is not in a user namespace of theirs', async () => {
    await answers(first.pid)
    const { status, stderr } = await delegate('alice/web')
    assert.equal(status, 1)
    assert.match(stderr, /is in no user namespace of user alice/)
    assert.equal(await mounts(first), '0')
  })

  test("a user's own Podman runs as that user, without our keys and descriptors", async () => {
    const probe = compiled(join(ROOT, 'test/e2e/run-probe.c'))
    const script = scratch.write('podman', '#!/bin/sh\n/run/alice/probe >/run/alice/said\necho "[]"\n', 0o755)
    const place = `cp '${probe}' /run/alice/probe && mount --bind '${script}' /usr/bin/podman`
    assert.equal((await podman.execute('sh', '-c', place)).status, 0)
    const inherit = 'umask 077; renice -n -5 -p $$ >/dev/null; exec 99</dev/null 251</dev/null; exec "$@"'
    const keyed = (...command: string[]) =>
      podman.execute('bash', '-c', inherit, 'bash', '/run/alice/probe', 'keyed', ...command)
    const twin = (await keyed('/run/alice/probe')).stdout
    assert.match(twin, /^key ok$/m)
    assert.match(twin, /^descriptors .*\b99\b.*\b251\b/m)
    assert.match(twin, /^umask 077$/m)
    assert.match(twin, /^nice -5$/m)
    const words = ['delegate', '--policy', ANYWHERE, '--container', 'alice/web']
    assert.match((await keyed(process.execPath, CLI, ...words)).stderr, /no container "web" of user alice/)
    const said = (await podman.execute('cat', '/run/alice/said')).stdout
    assert.match(said, /^key ENOKEY$/m)
    assert.match(said, new RegExp(`^uids ${ALICE.uid}:${ALICE.uid}\ngroups 0$`, 'm'))
    assert.match(said, /^descriptors 0 1 2$/m)
    assert.match(said, /^umask 022$/m)
    assert.match(said, /^nice 0$/m)
    assert.match(said, /^CapEff:?\s*0+$/m)
    assert.doesNotMatch(said, /^env SUDO_/m)
  })

  test('a process that began after its container was started has but its number, and is not lent to', async () => {
    await answersSince(Math.floor(Date.now() / 1000) - 3600, [first.pid])
    const { status, stderr } = await delegate('web')
    assert.equal(status, 1)
    assert.match(stderr, /said to be container web .* began after that was started/)
    for (const nothing of [undefined, null, 'soon', 1.5]) {
      await answersSince(nothing, [first.pid])
      const untold = await delegate('web')
      assert.equal(untold.status, 1)
      assert.match(untold.stderr, /does not say since when it runs/)
    }
    assert.equal(await mounts(first), '0')
  })

  test('getent is one of the system, not one that PATH has', async () => {
    const lines = ['#!/bin/sh', 'echo asked >>/run/getent-asked', 'echo mallory:x:4711:4711::/:/bin/sh']
    scratch.write('getent', `${lines.join('\n')}\n`, 0o755)
    const run = (before: string) =>
      podman.execute(
        ...(['sh', '-c', `${before}; exec "$@"`, 'sh', process.execPath, CLI] as const),
        ...['delegate', '--policy', POLICY, '--container', 'mallory/web'],
      )
    const asked = async () => (await podman.execute('cat', '/run/getent-asked')).stdout
    const { status, stderr } = await run(`PATH=${scratch.path}:$PATH`)
    assert.notEqual(status, 0)
    assert.match(stderr, /mallory/)
    assert.equal(await asked(), '')
    await run(`mount --bind ${scratch.path}/getent /usr/bin/getent`)
    assert.match(await asked(), /^asked$/m)
    await podman.execute('umount', '/usr/bin/getent')
  })

  test('and one that stays the same is lent to', async () => {
    await answers(first.pid)
    const { status, stderr } = await delegate('web')
    assert.equal(status, 0, stderr)
    assert.deepEqual([await mounts(first), await mounts(second)], ['1', '0'])
  })

  test('an answer that is none is refused', async () => {
    await answers()
    const file = scratch.write('podman', '#!/bin/sh\necho what\n', 0o755)
    await podman.execute('mount', '--bind', file, '/usr/bin/podman')
    const { status, stderr } = await delegate('web')
    assert.equal(status, 1)
    assert.match(stderr, /the answer is no JSON/)
  })
})

describe('of a daemon that speaks as Docker does', machine, () => {
  let podman: Podman
  let shell: Shell
  before(async () => {
    podman = await Podman.start()
    shell = await Shell.start()
  })
  after(async () => {
    await shell.end()
    await podman.end()
  })

  const web = 'b'.repeat(64)
  const list = (state: string) =>
    JSON.stringify([
      { Id: web, Names: ['/web'], State: state },
      { Id: 'c'.repeat(64), Names: ['/other'], State: 'running' },
    ])
  const details = (state: object) => JSON.stringify({ Id: web, State: state })

  /**
   * While it answers these paths, and nothing else, at Docker's socket. Gives the paths that were
   * asked for.
   */
  async function answering(
    answers: Readonly<Record<string, string>>,
    during: () => Promise<void>,
  ): Promise<string[]> {
    const script = scratch.write(
      'docker.js',
      `const answers = ${JSON.stringify(answers)}
require('node:http').createServer((request, response) => {
  console.log(request.url)
  const found = request.method === 'GET' && answers[request.url]
  response.statusCode = found ? 200 : 404
  response.end(found || '{}')
}).listen('/run/docker.sock', () => console.log('listens'))
process.stdin.resume().on('end', () => process.exit())`,
    )
    const daemon = spawn('nsenter', [...podman.enter, process.execPath, script], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    const ended = once(daemon, 'close')
    const asked: string[] = []
    try {
      await once(daemon.stdout, 'data')
      daemon.stdout.on('data', text => asked.push(...String(text).trim().split('\n')))
      await during()
      return asked
    } finally {
      daemon.stdin.end()
      await ended
      await podman.execute('rm', '-f', '/run/docker.sock')
    }
  }

  const delegate = (name: string) => podman.cli('delegate', '--policy', POLICY, '--container', name)
  const running = (pid: number) => ({
    Status: 'running',
    Running: true,
    Pid: pid,
    StartedAt: new Date().toISOString(),
  })

  test('its container is lent to, by name', async () => {
    const answers = {
      '/containers/json?all=1': list('running'),
      [`/containers/${web}/json`]: details(running(shell.pid)),
    }
    await answering(answers, async () => {
      const { status, stdout, stderr } = await delegate('web')
      assert.equal(status, 0, stderr)
      assert.match(stderr, /container web \(b{12}\) of Docker is process/)
      assert.match(stdout, new RegExp(`process ${shell.pid} at`))
      const other = await delegate('nope')
      assert.equal(other.status, 1)
      assert.match(other.stderr, /no container "nope": web .* of Docker, running; other/)
    })
  })

  test('one that has ended is refused, and so is an answer of another container', async () => {
    const ended = { ...running(shell.pid), Status: 'exited', Running: false }
    const cases: [string, RegExp][] = [
      [details(ended), /Container web .* is exited/],
      [details({ ...running(shell.pid) }).replaceAll('b', 'd'), /not of the container that was asked for/],
    ]
    for (const [said, why] of cases) {
      const answers = { '/containers/json?all=1': list('exited'), [`/containers/${web}/json`]: said }
      await answering(answers, async () => {
        const { status, stderr } = await delegate('web')
        assert.equal(status, 1)
        assert.match(stderr, why)
      })
    }
  })

  test('of a name that several have no details are asked, however many they are', async () => {
    const twins = ['d', 'e', 'f'].map(digit => ({ Id: digit.repeat(64), Names: ['/twin'], State: 'running' }))
    const answers = {
      '/containers/json?all=1': JSON.stringify([...twins, ...JSON.parse(list('running'))]),
      [`/containers/${web}/json`]: details(running(shell.pid)),
    }
    const asked = await answering(answers, async () => {
      const { status, stderr } = await delegate('twin')
      assert.equal(status, 1)
      assert.match(stderr, /"twin" means several containers/)
    })
    assert.deepEqual(asked, ['/containers/json?all=1'])
    const twin = await answering(answers, async () => {
      const { status, stderr } = await podman.cli('undelegate', '--container', 'web', '--path', '/mnt')
      assert.doesNotMatch(stderr, /several/)
      assert.equal(status, 1)
    })
    assert.equal(twin.filter(path => path === `/containers/${web}/json`).length, 2)
  })

  test('one of a user that changes the protocol is refused, and nothing is said to be done', async () => {
    const socket = `/run/user/${ALICE.uid}/docker.sock`
    const script = scratch.write(
      'upgrade.js',
      `require('node:net').createServer(socket => {
  socket.on('error', () => {})
  socket.write('HTTP/1.1 101 Switching Protocols\\r\\nConnection: upgrade\\r\\nUpgrade: tcp\\r\\n\\r\\n')
}).listen('${socket}', () => console.log('listens'))
process.stdin.resume().on('end', () => process.exit())`,
    )
    const as = ['setpriv', '--reuid', `${ALICE.uid}`, '--regid', `${ALICE.uid}`, '--clear-groups']
    const daemon = spawn('nsenter', [...podman.enter, ...as, process.execPath, script], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    const ended = once(daemon, 'close')
    try {
      await once(daemon.stdout, 'data')
      for (const command of [['delegate', '--policy', POLICY], ['undelegate']]) {
        const { status, stdout, stderr } = await podman.cli(...command, '--container', 'alice/web')
        assert.equal(status, 1, stderr)
        assert.equal(stdout, '')
        assert.match(stderr, /another protocol/)
      }
    } finally {
      daemon.stdin.end()
      await ended
      await podman.execute('rm', '-f', socket)
    }
  })
})

describe('of a cgroup', needsTokens(), () => {
  let path: string
  let below: string
  before(() => {
    path = join(cgroupRoot() ?? assert.fail('no cgroup2 is mounted'), 'bpftoken-test-recipient')
    below = join(path, 'below')
    mkdirSync(below, { recursive: true })
  })
  after(() => removeCgroup(path))

  const delegate = () => cli(['delegate', '--policy', POLICY, '--cgroup', path, '--dry-run', '--json'])

  test('none, one, the same twice, and two different', async () => {
    const empty = await delegate()
    assert.equal(empty.status, 1)
    assert.match(empty.stderr, /no process runs/)
    const shells = [await Shell.start(), await Shell.start()] as const
    try {
      await shells[0].run(`echo $$ >${below}/cgroup.procs`)
      // A second process of the same namespaces, which lives on beside the first.
      await shells[0].run('sleep 1000 & echo $! >/dev/null')
      const one = await delegate()
      assert.equal(one.status, 0, one.stderr)
      assert.equal(JSON.parse(one.stdout).target.pid, shells[0].pid)
      await shells[1].run(`echo $$ >${path}/cgroup.procs`)
      const two = await delegate()
      assert.equal(two.status, 1)
      assert.match(two.stderr, new RegExp(`2 different user or mount namespaces: .*${shells[1].pid}`))
    } finally {
      await shells[0].run('kill $!')
      for (const shell of shells) await shell.end()
    }
  })

  test('with cgroups too deep for any path below it, none is chosen, and it is said in words', async () => {
    const shell = await Shell.start()
    try {
      await shell.run(`echo $$ >${below}/cgroup.procs`)
      const name = 'd'.repeat(200)
      const deep = (levels: number) =>
        execute('sh', [
          '-ec',
          `cd "$0"; for i in $(seq ${levels}); do mkdir ${name}; cd -P ./${name}; done`,
          path,
        ])
      const clear = () => execute('find', [path, '-depth', '-type', 'd', '-name', name, '-delete'])
      assert.equal((await deep(10)).status, 0)
      const reached = await delegate()
      assert.equal(reached.status, 0, reached.stderr)
      await clear()
      const made = await deep(25)
      const refused = await delegate()
      await clear()
      assert.equal(made.status, 0, made.stderr)
      assert.equal(refused.status, 1)
      assert.match(refused.stderr, /Cgroups lie too deep to be looked into/)
      assert.doesNotMatch(refused.stderr, /ENAMETOOLONG|defect/)
    } finally {
      await shell.end()
    }
  })

  test('a directory that is none, and one that is not there', async () => {
    const at = (dir: string) => cli(['delegate', '--policy', POLICY, '--cgroup', dir])
    assert.equal((await at('/tmp')).status, 2)
    assert.equal((await at('relative')).status, 2)
    const missing = await at(`${path}/not-there`)
    assert.equal(missing.status, 1)
    assert.match(missing.stderr, /There is no cgroup/)
  })
})

test('exactly one recipient is named; what --cgroup meant once is refused with its new name', async () => {
  const delegate = (...words: string[]) => cli(['delegate', '--policy', POLICY, ...words])
  assert.equal((await delegate()).status, 2)
  const old = await delegate('--pid', '1', '--cgroup', '/sys/fs/cgroup')
  assert.equal(old.status, 2)
  assert.match(old.stderr, /--only-cgroup/)
  for (const name of ['', '--help', '-x', 'a b', 'a/b/c', `${'x'.repeat(300)}`])
    assert.equal((await delegate(`--container=${name}`)).status, 2, name)
})
