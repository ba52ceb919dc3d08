/**
 * `bpftoken run` with the daemon itself, for ordinary users and for root: from the command line to
 * an attached program, and what the daemon knows of it.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { residue, snapshot } from '../../scripts/residue.ts'
import { Client } from '../../src/client/client.ts'
import { frontPath } from '../../src/sys/prebuilt.ts'
import { Bpftokend } from '../helpers/bpftokend.ts'
import { execute, finish, inPublic, PUBLIC, PUBLIC_CLI, type Result } from '../helpers/cli.ts'
import { eventually } from '../helpers/eventually.ts'
import { needsTokens } from '../helpers/machine.ts'
import { asUser, Front, LENT_OBJECT, lentObjectPolicies, OTHER_USER, USER } from '../helpers/ordinary-user.ts'
import { Scratch } from '../helpers/scratch.ts'

const residueBefore = snapshot()
after(async () => assert.deepEqual(await residue(residueBefore), []))

describe('run with the daemon', needsTokens(), () => {
  const scratch = new Scratch()
  let front: Front
  let daemon: Bpftokend
  let root: Client

  before(async () => {
    front = new Front()
    // The least that the object needs, for one user and for nobody else.
    const policy = await lentObjectPolicies()
    daemon = new Bpftokend(scratch.path)
    const users = (...uids: number[]): string =>
      `  subjects: [${uids.map(uid => `{ user: ${uid} }`).join(', ')}]\n`
    for (const [name, more, network] of [
      ['dev', users(USER), 'host'],
      ['own-network', users(USER), 'own'],
      ['asked', `${users(USER)}  approval: required\n`, 'host'],
      ['service', users(65534), 'own'],
    ] as const) {
      const text = policy(name, `  network: ${network}\n  guard: optional\n${more}`)
      writeFileSync(join(daemon.policies, `${name}.yaml`), text, { mode: 0o644 })
    }
    await daemon.ready()
    root = new Client({ socket: daemon.socket })
  })
  after(async () => {
    root?.[Symbol.dispose]()
    await daemon[Symbol.asyncDispose]()
    front[Symbol.dispose]()
    scratch[Symbol.dispose]()
  })

  const liveLoans = async () => (await root.listLoans({ query: { state: 'live' } })).loans

  /** Loads and attaches XDP to the loopback device, and shows it there. */
  const ATTACH = `
    "${process.execPath}" ${PUBLIC_CLI} obj load ${PUBLIC}/${LENT_OBJECT} --program count --attach xdp:lo/skb &
    for i in $(seq 600); do ip -o link show lo | grep -q xdpgeneric && break; sleep 0.1; done
    ip -o link show lo; kill -INT $!; wait $!; echo "status $?"; ip -o link show lo`

  /** Where a user can reach the command. */
  const attachAs = (uid: number): Promise<Result> => {
    const [as, words] = asUser(uid, front.words('dev', '--', 'sh', '-c', ATTACH))
    return execute(...inPublic([as, ...words]), { env: { ...process.env, BPFTOKEN_SOCKET: daemon.socket } })
  }

  test('an ordinary user loads and attaches XDP in a network of its own; another is refused, with the reason', async () => {
    const { status, stdout, stderr } = await attachAs(USER)
    assert.equal(status, 0, stderr)
    assert.match(stdout, /lo:.*xdpgeneric/)
    assert.match(stdout, /^status 0$/m)
    assert.doesNotMatch(stdout.slice(stdout.indexOf('status 0')), /xdpgeneric/, 'it is gone with its loader')
    const other = await attachAs(OTHER_USER)
    assert.deepEqual([other.status, other.stdout], [3, ''])
    assert.match(other.stderr, /user is "4712", not "4711"/)
    assert.match(other.stderr, /next: Ask root to add you to spec.subjects/)
  })

  test('the daemon knows whose it is and when it is over', async () => {
    const child = spawn(...asUser(USER, front.words('dev', '--', 'sh', '-c', 'echo; read x')), {
      env: { ...process.env, BPFTOKEN_SOCKET: daemon.socket },
      stdio: ['pipe', 'pipe', 'inherit'],
      cwd: '/',
    })
    await once(child.stdout!, 'data')
    const [loan] = (await liveLoans()).filter(({ record }) => record?.recipient.pid === child.pid)
    assert.equal(loan?.policy, 'dev')
    assert.equal(loan.spec.asker.uid, USER)
    assert.equal(loan.record!.recipient.ownerUid, USER)
    assert.deepEqual(loan.record!.capabilities.toSorted(), ['bpf', 'net_admin'])
    assert.equal((await finish(child, '\n')).status, 0)
    await eventually(async () => !(await liveLoans()).some(({ id }) => id === loan.id), 'it is not over')
  })

  test('a policy that says network: own is not for a namespace that its user can enter, without a guard', async () => {
    const { status, stdout, stderr } = await front.run(
      daemon.socket,
      front.words('own-network', '--', 'echo', 'ran'),
    )
    assert.deepEqual([status, stdout], [3, ''])
    assert.match(stderr, /next: Ask root to install the guard/)
  })

  test('what root must approve waits, and goes on or ends as root says', async () => {
    const start = () => {
      const child = spawn(...asUser(USER, front.words('asked', '--', 'echo', 'ran')), {
        env: { ...process.env, BPFTOKEN_SOCKET: daemon.socket },
        cwd: '/',
        stdio: 'pipe',
      })
      return { child, ended: finish(child) }
    }
    const waiting = async (): Promise<string> => {
      let id: string | undefined
      await eventually(async () => {
        id = (await root.listRequests({ query: { state: 'waiting' } })).requests[0]?.id
        return id !== undefined
      }, 'nothing waits')
      return id!
    }
    const approved = start()
    await root.approve({ params: { id: await waiting() }, body: {} })
    const granted = await approved.ended
    assert.deepEqual([granted.status, granted.stdout], [0, 'ran\n'], granted.stderr)
    const denied = start()
    await root.deny({ params: { id: await waiting() }, body: { comment: 'not today' } })
    const refused = await denied.ended
    assert.deepEqual([refused.status, refused.stdout], [3, ''])
    assert.match(refused.stderr, /denied: not today/)
    const withdrawn = start()
    const id = await waiting()
    withdrawn.child.kill('SIGINT')
    assert.equal((await withdrawn.ended).signal, 'SIGINT')
    assert.equal((await root.showRequest({ params: { id }, query: {} })).state, 'withdrawn')
  })

  test('root runs a program as a user whom the policy names', async () => {
    const run = (...words: string[]): Promise<Result> =>
      execute(frontPath(), ['run', ...words], { env: { ...process.env, BPFTOKEN_SOCKET: daemon.socket } })
    const inside = await run('--policy', 'service', '--', 'sh', '-c', 'id -u; stat -f -c %T /sys/fs/bpf')
    assert.deepEqual([inside.status, inside.stdout], [0, '0\nbpf_fs\n'], inside.stderr)
    const other = await run('--policy', 'dev', '--', 'echo', 'ran')
    assert.deepEqual([other.status, other.stdout], [3, ''])
  })

  test('killed at any moment it leaves nothing, and the daemon knows', async () => {
    const env = { ...process.env, BPFTOKEN_SOCKET: daemon.socket }
    for (let i = 0; i < 40; i++) {
      const words = front.words('dev', '--', 'sleep', '300')
      const child = spawn(...asUser(USER, words), { env, cwd: '/', stdio: 'ignore' })
      const exited = once(child, 'exit')
      await sleep(i)
      child.kill('SIGKILL')
      await exited
    }
    await eventually(async () => (await liveLoans()).length === 0, 'a loan is thought to live')
    const { loans } = await root.listLoans({ query: { state: 'all', limit: 1000 } })
    assert.ok(loans.every(({ state }) => state === 'ended'))
  })
})
