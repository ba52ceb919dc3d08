/**
 * A machine that lets ordinary users make no user namespaces: `bpftoken run` has the launcher start
 * the program, where the policy says so, and else says which setting it is. Needs a kernel with
 * kernel.unprivileged_userns_clone, as Debian has it. Runs in a VM:
 *
 *   node --import tsx scripts/vm/vm.ts --kernel 6.12 --tests test/vm/no-namespaces.test.ts
 */
import assert from 'node:assert/strict'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { residue, snapshot } from '../../scripts/residue.ts'
import { Bpftokend } from '../helpers/bpftokend.ts'
import { execute, type Result } from '../helpers/cli.ts'
import { Launchd } from '../helpers/launchd.ts'
import { hasTokens, inVm, isRoot, ROOT } from '../helpers/machine.ts'
import { asUser, Front, OTHER_USER, USER } from '../helpers/ordinary-user.ts'
import { Scratch } from '../helpers/scratch.ts'

const SETTING = '/proc/sys/kernel/unprivileged_userns_clone'
const LIMIT = '/proc/sys/user/max_user_namespaces'

const skip = !isRoot
  ? 'needs root'
  : !inVm
    ? 'runs in a VM: make test-vm'
    : !hasTokens() || !existsSync(SETTING)
      ? 'this kernel has no tokens, or no kernel.unprivileged_userns_clone'
      : false

const residueBefore = skip === false ? snapshot() : undefined
after(async () => {
  if (residueBefore !== undefined) assert.deepEqual(await residue(residueBefore), [])
})

describe('where users may make no namespaces', { skip }, () => {
  const scratch = new Scratch()
  const limit = skip === false ? readFileSync(LIMIT, 'utf8') : ''
  let front: Front
  let daemon: Bpftokend
  let launchd: Launchd

  before(async () => {
    const socket = join(scratch.path, 'launch.sock')
    front = new Front()
    daemon = new Bpftokend(scratch.path, '--launcher', socket)
    const example = readFileSync(join(ROOT, 'examples/policies/libbpf-xdp.yaml'), 'utf8')
    const write = (name: string, more: string): void =>
      writeFileSync(
        join(daemon.policies, `${name}.yaml`),
        example
          .replace(/^( *name:).*$/m, `$1 ${name}`)
          .replace(/^spec:$/m, `spec:\n  guard: optional\n  subjects: [{ user: ${USER} }]${more}`),
        { mode: 0o644 },
      )
    write('dev', '\n  launch: allowed')
    write('closed', '')
    launchd = await new Launchd(socket).ready()
    await daemon.ready()
    writeFileSync(SETTING, '0')
  })
  after(async () => {
    writeFileSync(SETTING, '1')
    writeFileSync(LIMIT, limit)
    await daemon?.[Symbol.asyncDispose]()
    await launchd?.[Symbol.asyncDispose]()
    front?.[Symbol.dispose]()
    scratch[Symbol.dispose]()
  })

  const run = (policy: string, script: string, uid = USER): Promise<Result> =>
    front.run(daemon.socket, front.words(policy, '--', 'sh', '-c', script), { uid })
  const facts = 'id -u; grep -c delegate_cmds /proc/self/mountinfo; grep CapEff /proc/self/status; exit 7'

  test('users may make none, which is what it is about', async () => {
    assert.notEqual((await execute(...asUser(USER, ['unshare', '--user', 'true']))).status, 0)
  })

  test('the launcher starts the program, without being asked for by name', async () => {
    const { status, stdout, stderr } = await front.run(
      daemon.socket,
      front.words('dev', '--', 'sh', '-c', facts),
    )
    assert.deepEqual([status, stderr], [7, ''])
    assert.match(stdout, /^0\n1\nCapEff:\t[0-9a-f]{16}\n$/)
  })

  test('it is refused to a policy that does not say so, and to another user, with the setting and the remedy', async () => {
    const closed = await run('closed', 'echo ran')
    assert.deepEqual([closed.status, closed.stdout], [3, ''])
    assert.match(closed.stderr, /kernel.unprivileged_userns_clone forbids it/)
    assert.match(closed.stderr, /next: Ask root to say spec.launch: allowed/)
    const other = await run('dev', 'echo ran', OTHER_USER)
    assert.deepEqual([other.status, other.stdout], [3, ''])
  })

  test('where they may, the program is in namespaces of the user’s own, as ever', async () => {
    writeFileSync(SETTING, '1')
    try {
      const own = await front.run(daemon.socket, front.words('dev', '--host-net', '--', 'echo', 'ran'))
      assert.deepEqual([own.status, own.stdout], [3, ''], 'the policy says network: own')
      assert.match(own.stderr, /network/)
    } finally {
      writeFileSync(SETTING, '0')
    }
  })

  test('a limit counts for root, too: it stays refused, with the reason', async () => {
    writeFileSync(SETTING, '1')
    writeFileSync(LIMIT, '0')
    try {
      const { status, stdout, stderr } = await run('dev', 'echo ran')
      assert.deepEqual([status, stdout], [4, ''])
      assert.match(stderr, /ENOSPC.*\n.*max_user_namespaces/)
    } finally {
      writeFileSync(LIMIT, limit)
      writeFileSync(SETTING, '0')
    }
  })
})
