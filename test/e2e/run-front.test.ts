/**
 * `bpftoken run` of root where the daemon lends (native/run/root.c): the program gets what it gets
 * when Node starts it, and ends, and is ended, as then.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { compiled } from '../../scripts/compiled.ts'
import { residue, snapshot } from '../../scripts/residue.ts'
import { endExecutors } from '../../src/sys/executor/pool.ts'
import { frontPath } from '../../src/sys/prebuilt.ts'
import { CLI, execute, finish, type Result } from '../helpers/cli.ts'
import { eventually } from '../helpers/eventually.ts'
import { needsTokens, ROOT } from '../helpers/machine.ts'
import { type Answer, PretendedDaemon } from '../helpers/pretended-daemon.ts'
import { lent } from '../helpers/pretended-lending.ts'
import { Scratch } from '../helpers/scratch.ts'
import { quote, STOPPABLE, stopsAndResumes, Terminal } from '../helpers/terminal.ts'

const residueBefore = snapshot()
const FRONT = frontPath()
const POLICY = join(ROOT, 'examples/policies/packet-counter.yaml')

after(async () => {
  await endExecutors()
  assert.deepEqual(await residue(residueBefore), [])
})

describe('run of root where the daemon lends', needsTokens(), () => {
  let daemon: PretendedDaemon
  before(async () => {
    daemon = await PretendedDaemon.start(lent)
  })
  after(() => daemon[Symbol.asyncDispose]())

  const env = (more: NodeJS.ProcessEnv = {}) => ({ ...process.env, BPFTOKEN_SOCKET: daemon.socket, ...more })
  const words = (...rest: string[]): string[] => ['run', '--policy', 'dev', ...rest]
  const run = (answer: Answer, ...rest: string[]): Promise<Result> => {
    daemon.answer = answer
    return execute(FRONT, words(...rest), { env: env() })
  }
  const start = (...rest: string[]): ChildProcess => {
    daemon.answer = lent
    return spawn(FRONT, words(...rest), { env: env(), stdio: ['ignore', 'pipe', 'inherit'] })
  }

  test('its program finds itself with what it has when Node starts it, by the kernel and to itself', async () => {
    using stage = new Scratch()
    const probe = stage.write('probe', readFileSync(compiled(join(__dirname, 'run-probe.c'))), 0o755)
    const secret = stage.write('secret', 'root only', 0o600)
    /** From a caller that has much to give away. */
    const facts = async (...command: string[]): Promise<string[]> => {
      const script = `
        exec 9<${secret} 17<${secret} 200<>${secret}
        umask 077; trap '' PIPE USR1 HUP 35
        echo -500 > /proc/self/oom_score_adj 2> /dev/null; renice -n -5 -p $$ > /dev/null; ionice -c 1 -p $$
        export SECRET=abc SSH_AUTH_SOCK=/run/agent LC_TIME=C TZ=UTC OTHER=o
        exec "$@"`
      const { stdout, stderr } = await execute(probe, ['keyed', 'bash', '-c', script, 'bash', ...command], {
        cwd: '/',
        env: env(),
      })
      assert.match(stdout, /^descriptors 0 1 2$/m, stderr)
      // Numbers of what is each time another.
      return stdout.split('\n').filter(line => !/namespace|BPFTOKEN/.test(line))
    }
    daemon.answer = lent
    for (const options of [
      [],
      ['--identity', '--user', 'nobody'],
      ['--env', 'SECRET', '--env=MORE=1', '--cap', 'sys_nice', '--host-net'],
      ['--keep-env', '--path', '/mnt'],
    ]) {
      const host = options.includes('--host-net')
      const policy = host
        ? stage.write('p.yaml', readFileSync(POLICY, 'utf8').replace('network: own', 'network: host'))
        : POLICY
      const direct = await facts(process.execPath, CLI, 'run', '--policy', policy, ...options, '--', probe)
      daemon.asked.length = 0
      assert.deepEqual(await facts(FRONT, ...words(...options, '--', probe)), direct, options.join(' '))
      assert.equal(daemon.asked.length, 1, 'the daemon was asked')
    }
  })

  test('the daemon sees the user that the program will be', async () => {
    let uids: string | undefined
    const look: Answer = async asked => {
      const { pidfd } = (asked.body as { recipient: { pidfd: number } }).recipient
      const pid = /^Pid:\s*(\d+)/m.exec(readFileSync(`/proc/${asked.pid}/fdinfo/${pidfd}`, 'utf8'))![1]
      uids = /^Uid:\s*(.*)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]
      return lent(asked)
    }
    assert.equal((await run(look, '--', 'id', '-u')).stdout, '0\n')
    assert.equal(uids, '65534\t65534\t65534\t65534')
  })

  test('it ends as its program does, or says why there is none', async () => {
    for (const [command, expected] of [
      [['sh', '-c', 'exit 255'], 255],
      [['sh', '-c', 'kill -9 $$'], 137],
      [['sh', '-c', 'kill -64 $$'], 192],
      [['no-such-program'], 127],
      [['/etc/passwd'], 126],
    ] as const)
      assert.equal((await run(lent, '--', ...command)).status, expected, command.join(' '))
    const denied = await run(
      () => ({ status: 403, body: { code: 'BPFTOKEN_DENIED', detail: 'no' } }),
      '--',
      'echo',
      'ran',
    )
    assert.deepEqual([denied.status, denied.stdout, denied.stderr], [3, '', 'bpftoken: no\n'])
    const untrue = await run(
      () => ({ status: 201, body: { loan: { record: { capabilities: [] } } } }),
      '--',
      'echo',
      'ran',
    )
    assert.deepEqual([untrue.status, untrue.stdout], [1, ''])
    assert.match(untrue.stderr, /there is no bpffs/)
  })

  test('what it does not know, and where no daemon answers, is for Node', async () => {
    const node = await execute(FRONT, ['run', '--policy', POLICY, '--', 'id', '-u'], { env: env() })
    assert.deepEqual([node.status, node.stdout], [0, '0\n'], node.stderr)
    const alone = await execute(FRONT, ['run', '--policy', POLICY, '--', 'id', '-u'], {
      env: env({ BPFTOKEN_SOCKET: '/none' }),
    })
    assert.deepEqual([alone.status, alone.stdout], [0, '0\n'], alone.stderr)
    const version = await execute(FRONT, ['--version'])
    assert.equal(version.stdout, (await execute(process.execPath, [CLI, '--version'])).stdout)
    daemon.asked.length = 0
    using stage = new Scratch()
    // For Node this is a file.
    stage.write('dev', readFileSync(POLICY))
    for (const bad of ['4294967296', '0', '-1', 'root', '0:0', '1:4294967296', 'no-such-user']) {
      const given = words(`--user=${bad}`, '--', 'id')
      const { status, stdout } = await execute(FRONT, given, { env: env(), cwd: stage.path })
      assert.deepEqual([status, stdout], [2, ''], bad)
    }
    assert.deepEqual(daemon.asked, [])
  })

  test('signals reach the program, which decides what they mean', async () => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1'] as const) {
      const child = start(
        '--',
        'sh',
        '-c',
        `trap "exit 9" ${signal.slice(3)}; echo ready; while :; do sleep 0.05; done`,
      )
      await once(child.stdout!, 'data')
      child.kill(signal)
      assert.equal((await finish(child)).status, 9, signal)
    }
  })

  test('on a terminal Ctrl-C comes once, and Ctrl-Z stops both until fg', async () => {
    daemon.answer = lent
    const script = `trap "echo got it; exit 5" INT; ${STOPPABLE}`
    const command = quote([FRONT, ...words('--', 'sh', '-c', script)])
    using plain = new Terminal(command, env())
    await plain.see(/ready/)
    plain.type('\x03')
    assert.equal(await plain.ended(), 5)
    assert.equal(plain.seen.match(/got it/g)?.length, 1)

    using terminal = new Terminal('bash --norc -i', env())
    await stopsAndResumes({ terminal, prompt: /# / }, command, { status: 5, says: /got it/ })
  })

  test('killed, it kills its program, also one that has cleared its death signal', async () => {
    const child = start('--', 'sh', '-c', 'echo $$; exec setpriv --pdeathsig clear sleep 1000 > /dev/null')
    const [line] = (await once(child.stdout!, 'data')) as [Buffer]
    const name = (): string => {
      try {
        return readFileSync(`/proc/${String(line).trim()}/comm`, 'utf8').trim()
      } catch {
        return ''
      }
    }
    await eventually(() => name() === 'sleep', 'it has not cleared it')
    child.kill('SIGKILL')
    await finish(child)
    await eventually(() => name() !== 'sleep', 'it lives')
  })

  test('killed at any moment it leaves nothing', async () => {
    daemon.answer = lent
    daemon.asked.length = 0
    for (let i = 0; i < 60; i++) {
      const child = spawn(FRONT, words('--', 'sleep', '300'), { env: env(), stdio: 'ignore' })
      const exited = once(child, 'exit')
      await sleep(i / 2)
      child.kill('SIGKILL')
      await exited
    }
    // What is left is looked for at the end: see `after`.
    assert.ok(daemon.asked.length > 10, 'most were killed after they had asked')
  })
})
