/**
 * `bpftoken run` of an ordinary user (native/run), with a daemon that says what a test wants: what
 * the program gets, how it ends, and that nothing runs on an answer that is no loan.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { residue, snapshot } from '../../scripts/residue.ts'
import { endExecutors } from '../../src/sys/executor/pool.ts'
import { execute, finish, inPublic, PUBLIC_CLI, type Result } from '../helpers/cli.ts'
import { eventually } from '../helpers/eventually.ts'
import { needsTokens } from '../helpers/machine.ts'
import { asUser, Front, hasWhatIsLentAlone, statusOf, USER } from '../helpers/ordinary-user.ts'
import { type Answer, type Asked, PretendedDaemon, type Said } from '../helpers/pretended-daemon.ts'
import { LENT, lent, loanWith } from '../helpers/pretended-lending.ts'
import { Scratch } from '../helpers/scratch.ts'
import { quote, STOPPABLE, stopsAndResumes, Terminal } from '../helpers/terminal.ts'

const machine = needsTokens()
const residueBefore = snapshot()

after(async () => {
  await endExecutors()
  assert.deepEqual(await residue(residueBefore), [])
})

describe('run of an ordinary user', machine, () => {
  let front: Front
  let daemon: PretendedDaemon
  before(async () => {
    front = new Front()
    daemon = await PretendedDaemon.start(lent)
  })
  after(async () => {
    await daemon[Symbol.asyncDispose]()
    front[Symbol.dispose]()
  })

  type More = Parameters<Front['run']>[2]
  const run = (
    answer: Answer,
    command: readonly string[],
    options: readonly string[] = [],
    more: More = {},
  ) => {
    daemon.answer = answer
    return front.run(daemon.socket, front.words('dev', ...options, '--', ...command), more)
  }
  const shell = (answer: Answer, script: string, ...options: string[]): Promise<Result> =>
    run(answer, ['sh', '-c', script], options)

  test('asks for itself, by name and place, and gives its program what is lent and no more', async () => {
    daemon.asked.length = 0
    const script = 'id -u; cat /proc/self/status; stat -f -c %T /sys/fs/bpf; cat /proc/self/uid_map'
    const { status, stdout, stderr } = await shell(lent, script)
    assert.deepEqual([status, stderr], [0, ''])
    const [{ method, path, uid, body } = assert.fail('nothing was asked')] = daemon.asked
    assert.deepEqual(
      { method, path, uid, body },
      {
        ...{ method: 'POST', path: '/v1/loans', uid: USER },
        body: { policy: { name: 'dev' }, recipient: { self: true }, place: { path: '/sys/fs/bpf' } },
      },
    )
    hasWhatIsLentAlone(stdout)
  })

  test('--identity shows it its own id, with ambient capabilities; --path and --cap count', async () => {
    const script = 'id -u; cat /proc/self/status; echo "$LIBBPF_BPF_TOKEN_PATH"; stat -f -c %T /mnt'
    const { stdout, stderr } = await shell(lent, script, '--identity', '--path=/mnt', '--cap', 'CAP_SYS_NICE')
    assert.match(stdout, /^4711\n/, stderr)
    assert.match(stdout, /^\/mnt\nbpf_fs$/m)
    assert.equal(statusOf(stdout).get('CapAmb'), '0000008000801000')
  })

  test('the network is its own, unless it asks for that of the host', async () => {
    const ours = (await execute('readlink', ['/proc/self/ns/net'])).stdout
    const script = 'readlink /proc/self/ns/net'
    assert.notEqual((await shell(lent, script)).stdout, ours)
    assert.equal((await shell(lent, script, '--host-net')).stdout, ours)
    const up = await shell(lent, 'cat /proc/net/route /proc/net/if_inet6; ip link show lo')
    assert.match(up.stdout, /LOOPBACK,UP/)
  })

  test('variables, descriptors, umask and ignored signals are the user’s own, and stay', async () => {
    const script =
      'umask; grep SigIgn /proc/self/status; cat <&9; echo "$MINE $OTHER"; test -e /proc/self/fd/3 || echo none'
    const words = front.words('dev', '--env', 'OTHER=y', '--env=MINE', '--', 'sh', '-c', script)
    daemon.answer = lent
    const outer = `umask 027; trap '' HUP; exec "$@" 9<<<nine`
    const { stdout, stderr, status } = await front.run(
      daemon.socket,
      ['bash', '-c', outer, 'bash', ...words],
      {
        env: { MINE: 'x' },
      },
    )
    // glibc's posix_spawn(3) has its children ignore the signals that it keeps for itself, from 32
    // on.
    const ours = /^SigIgn:\t(\w+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))![1]!
    const ignored = ((BigInt(`0x${ours}`) >> 31n) << 31n) | 1n
    const expected = ignored.toString(16).padStart(16, '0')
    assert.equal(stdout, `0027\nSigIgn:\t${expected}\nnine\nx y\nnone\n`, stderr)
    assert.equal(status, 0)
    const unknown = await run(lent, ['true'], ['--env', 'NO_SUCH_VARIABLE'])
    assert.deepEqual([unknown.status, unknown.stdout], [2, ''])
  })

  test('it is the process that was started: its pid, its signals, its status', async () => {
    daemon.answer = lent
    const words = front.words('dev', '--', 'sh', '-c', 'echo $$; read line; exit 5')
    const env = { ...process.env, BPFTOKEN_SOCKET: daemon.socket }
    const child = spawn(...asUser(USER, words), { env, cwd: '/', stdio: ['pipe', 'pipe', 'inherit'] })
    const [said] = (await once(child.stdout!, 'data')) as [Buffer]
    assert.equal(Number(said.toString()), child.pid)
    assert.equal((await finish(child, '\n')).status, 5)
    for (const signal of [1, 2, 9, 15])
      assert.equal((await shell(lent, `kill -${signal} $$`)).status, 128 + signal)
    for (const [name, expected] of [
      ['no-such-program', 127],
      ['/etc/passwd', 126],
      ['false', 1],
    ] as const)
      assert.equal((await run(lent, [name])).status, expected, name)
    const forged = await run(lent, ['/no/\x1b[31m\nbpftoken: forged'])
    assert.equal(forged.stderr, 'bpftoken: cannot run "/no/\\u{1b}[31m\\u{a}bpftoken: forged": ENOENT\n')
  })

  test('on a terminal Ctrl-C comes once, and Ctrl-Z and fg are the program’s', async () => {
    daemon.answer = lent
    const script = `trap "echo got it; exit 5" INT; ${STOPPABLE}`
    const command = quote(front.words('dev', '--', 'sh', '-c', script))
    const env = { ...process.env, BPFTOKEN_SOCKET: daemon.socket }
    const [as, words] = asUser(USER, ['bash', '--norc', '-i'])
    using terminal = new Terminal(quote([as, ...words]), env)
    await stopsAndResumes({ terminal, prompt: /\$ / }, command, { status: 5, says: /got it/ })
    assert.equal(terminal.seen.match(/got it/g), null, 'once')
  })

  test('a refusal is told in words, or as JSON, with the status of its code', async () => {
    const problem =
      (status: number, body: object): Answer =>
      () => ({ status, body })
    const subject = {
      code: 'BPFTOKEN_DENIED',
      detail: 'not\nyou \x1b[2J\u202e',
      reason: 'subject-refused',
      hint: 'no',
    }
    const denied = await run(problem(403, subject), ['touch', '/tmp/bpftoken-ran'])
    assert.equal(denied.status, 3)
    assert.equal(
      denied.stderr,
      'bpftoken: not\nbpftoken: you \\u{1b}[2J\\u{202e}\nbpftoken:   next: Ask root to add you to spec.subjects of the policy\n',
    )
    const json = await run(problem(403, subject), ['true'], ['--json'])
    assert.deepEqual(JSON.parse(json.stderr), {
      error: {
        ...{ code: 'BPFTOKEN_DENIED', message: 'not\\u{a}you \\u{1b}[2J\\u{202e}' },
        ...{ hint: 'Ask root to add you to spec.subjects of the policy', context: {} },
      },
    })
    for (const [code, expected] of [
      ['BPFTOKEN_NOT_SUPPORTED', 4],
      ['BPFTOKEN_POLICY_INVALID', 2],
      ['BPFTOKEN_NOT_FOUND', 1],
      ['BPFTOKEN_BUSY', 1],
      ['BPFTOKEN_UNREACHABLE', 5],
      ['BPFTOKEN_OF_TOMORROW', 1],
    ] as const) {
      const { status, stderr } = await run(problem(500, { code, detail: 'why', hint: 'help' }), [
        'touch',
        '/tmp/bpftoken-ran',
      ])
      assert.deepEqual([status, stderr], [expected, 'bpftoken: why\nbpftoken:   next: help\n'], code)
    }
    const wordless = await run(problem(502, {}), ['true'])
    assert.deepEqual(
      [wordless.status, wordless.stderr],
      [1, 'bpftoken: the daemon answered with status 502, and no word why\n'],
    )
  })

  test('nothing runs on an answer that is no loan', async () => {
    const raw =
      (text: string): Answer =>
      (_, response) => {
        response.socket!.end(text)
        return undefined
      }
    const mark = join(front.program, '../ran')
    for (const [answer, expected] of [
      [() => ({ status: 201, body: LENT }), /there is no bpffs/],
      [() => ({ status: 200, body: LENT }), /status 200/],
      [() => ({ status: 201, body: {} }), /not known here/],
      [
        async asked => ({ ...(await lent(asked)), body: { ...LENT, loan: loanWith(['bpf', 'no_such']) } }),
        /not known here/,
      ],
      [
        async asked => ({ ...(await lent(asked)), body: { ...LENT, loan: loanWith('bpf') } }),
        /not known here/,
      ],
      [() => ({ status: 202, body: {} }), /not known here/],
      [raw(''), /went away/],
      [raw('HTTP/1.1 201 Created\r\nContent-Length: 10\r\n\r\n{'), /went away/],
      [raw('SSH-2.0-OpenSSH\r\n\r\n'), /speaks no HTTP/],
      [raw('HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\n{]}'), /not known here/],
      [raw(`HTTP/1.1 201 Created\r\nContent-Length: 900000\r\n\r\n${' '.repeat(900_000)}`), /too long/],
    ] as [Answer, RegExp][]) {
      const { status, stdout, stderr } = await run(answer, ['sh', '-c', `echo ran`])
      assert.match(stderr, expected)
      assert.equal(stdout, '', mark)
      assert.notEqual(status, 0)
    }
    assert.equal((await run(lent, ['sh', '-c', 'echo ran'])).stdout, 'ran\n', 'their twin')
  })

  test('without a daemon it says so, and ends with 5', async () => {
    using scratch = new Scratch()
    for (const socket of [join(scratch.path, 'none'), scratch.write('plain', ''), `/${'x'.repeat(200)}`]) {
      const { status, stdout, stderr } = await front.run(socket, front.words('dev', '--', 'echo', 'ran'))
      assert.deepEqual([status, stdout], [5, ''], socket)
      assert.match(stderr, /No daemon answers at .*\nbpftoken: {3}next: Ask root to start it/)
    }
  })

  test('where users may make no namespaces, it says so, and ends with 4', async () => {
    daemon.answer = lent
    const words = front.words('dev', '--', 'echo', 'ran')
    const inside = (limit: string): Promise<Result> => {
      const script = `echo ${limit} > /proc/sys/user/max_user_namespaces && exec "$@"`
      // A namespace around it, which is limited so: the machine itself is not touched.
      const around = ['unshare', '--user', '--map-current-user', '--keep-caps']
      return front.run(daemon.socket, [...around, 'sh', '-c', script, 'sh', ...words])
    }
    const { status, stdout, stderr } = await inside('0')
    assert.deepEqual([status, stdout], [4, ''])
    assert.match(
      stderr,
      /an ordinary user cannot make the namespaces on this machine \(ENOSPC\)\n.*max_user_namespaces/,
    )
    assert.equal((await inside('10')).stdout, 'ran\n', 'the twin')
  })

  test('through Node it is the same, and what is for root alone is refused there', async () => {
    daemon.answer = lent
    const node = (...words: string[]): Promise<Result> => {
      const [command, args] = asUser(USER, [process.execPath, PUBLIC_CLI, 'run', '--policy', 'dev', ...words])
      const env = { ...process.env, BPFTOKEN_SOCKET: daemon.socket }
      return execute(...inPublic([command, ...args]), { env })
    }
    const good = await node('-v', '--', 'sh', '-c', 'id -u; exit 7')
    assert.deepEqual([good.status, good.stdout], [7, '0\n'], good.stderr)
    assert.equal((await node('--', 'sh', '-c', 'kill -9 $$')).status, 137)
    for (const [words, expected] of [
      [['--user', 'nobody'], 3],
      [['--any-subject'], 3],
      [['--kill-rest'], 4],
      [['--dry-run'], 4],
    ] as const) {
      const { status, stdout, stderr } = await node(...words, '--', 'echo', 'ran')
      assert.deepEqual([status, stdout], [expected, ''], words[0])
      assert.match(stderr, /next: /)
    }
  })

  describe('where root must approve first', () => {
    const request = (state: string, more: object = {}): Said => ({
      status: 200,
      body: { id: 'request-7', state, ...more },
    })
    const waiting: Said = { status: 202, body: { request: { id: 'request-7', state: 'waiting' } } }
    /** The first question is answered so; then each in its turn. */
    const after_ = (...rest: Answer[]): Answer => {
      let first: Asked | undefined
      return (asked, response) => {
        if (first === undefined) {
          first = asked
          return waiting
        }
        return (rest.length > 1 ? rest.shift()! : rest[0]!)({ ...asked, body: first.body }, response)
      }
    }

    test('it waits, says for what, and goes on once it is approved', async () => {
      daemon.asked.length = 0
      const approve: Answer = async asked => {
        await lent(asked)
        return request('approved', { loan: 'loan-9' })
      }
      const answer = after_(
        () => request('waiting'),
        approve,
        () => ({ status: 200, body: loanWith(['bpf']) }),
      )
      const { status, stdout, stderr } = await run(answer, ['cat', '/proc/self/status'])
      assert.equal(status, 0, stderr)
      assert.match(stderr, /^bpftoken: request-7 waits until root approves it/)
      assert.equal(statusOf(stdout).get('CapEff'), '0000008000000000')
      assert.equal(statusOf(stdout).get('SigBlk'), '0000000000000000')
      assert.deepEqual(
        daemon.asked.map(({ method, path }) => `${method} ${path}`),
        ['POST /v1/loans', ...Array(2).fill('GET /v1/requests/request-7?wait=30'), 'GET /v1/loans/loan-9'],
      )
    })

    test('it is told of a no, and of a time that is over', async () => {
      const no = await run(
        after_(() => request('denied', { decided: { comment: 'not today' } })),
        ['echo', 'ran'],
      )
      assert.deepEqual([no.status, no.stdout], [3, ''])
      assert.match(no.stderr, /it is denied: not today/)
      const late = await run(
        after_(() => request('expired')),
        ['echo', 'ran'],
      )
      assert.deepEqual([late.status, late.stdout], [1, ''])
    })

    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
      test(`${signal} withdraws the request, and ends it`, async () => {
        daemon.asked.length = 0
        daemon.answer = after_(({ path }) => (path.endsWith('/withdraw') ? request('withdrawn') : undefined))
        const env = { ...process.env, BPFTOKEN_SOCKET: daemon.socket }
        const child = spawn(...asUser(USER, front.words('dev', '--', 'echo', 'ran')), {
          env,
          cwd: '/',
          stdio: 'pipe',
        })
        await eventually(() => daemon.asked.length === 2, 'it does not wait')
        child.kill(signal)
        const { signal: endedBy, stdout } = await finish(child)
        assert.deepEqual([endedBy, stdout], [signal, ''])
        assert.equal(daemon.asked.at(-1)!.path, '/v1/requests/request-7/withdraw')
      })
  })

  test('killed at any moment it leaves nothing', async () => {
    daemon.answer = lent
    daemon.asked.length = 0
    const words = front.words('dev', '--', 'sleep', '300')
    const env = { ...process.env, BPFTOKEN_SOCKET: daemon.socket }
    // A machine that is slow, or busy, takes longer to come as far as to ask.
    for (let stretch = 1; daemon.asked.length <= 10; stretch *= 2) {
      assert.ok(stretch < 256, 'some were killed after they had asked')
      for (let i = 0; i < 40; i++) {
        const child = spawn(...asUser(USER, words), { env, cwd: '/', stdio: 'ignore' })
        const exited = once(child, 'exit')
        await sleep((i * stretch) / 2)
        child.kill('SIGKILL')
        await exited
      }
    }
    // What is left is looked for at the end: see `after`.
  })
})
