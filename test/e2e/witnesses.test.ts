/**
 * Unmodified programs, none of which knows bpftoken, load and attach XDP with a delegation and
 * cannot without: under `bpftoken run`, and in a bubblewrap sandbox that `bpftoken delegate` lends
 * to.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { after, describe, test } from 'node:test'
import { residue, snapshot } from '../../scripts/residue.ts'
import { asNobody, cli, finish, inPublic, PUBLIC, publicCli, type Result } from '../helpers/cli.ts'
import { needsProgram, ROOT } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'
import { SID, sidCommand } from '../helpers/sid.ts'
import { xdpObject } from '../helpers/xdp-object.ts'

const before = snapshot()
const scratch = new Scratch()
const OBJECT = scratch.write('pass.o', xdpObject())
const LENDS_XDP = join(ROOT, 'examples/policies/libbpf-xdp.yaml')
// The deny twin differs in one right: XDP programs. libbpf's own probes still succeed.
const LENDS_NO_XDP = scratch.write(
  'no-xdp.yaml',
  readFileSync(LENDS_XDP, 'utf8').replace('progs: [xdp, socket_filter]', 'progs: [socket_filter]'),
)
// Who made a user namespace can come into it from the host's network: so it takes this word.
const LENDS_XDP_ANYWHERE = scratch.write(
  'xdp-anywhere.yaml',
  readFileSync(LENDS_XDP, 'utf8').replace('network: own', 'network: host'),
)

after(async () => {
  scratch[Symbol.dispose]()
  assert.deepEqual(await residue(before), [])
})

const HOST_BPFTOOL = `${PUBLIC}/.cache/host/usr/sbin/bpftool`

/** A program of the sid tree, where the repository is shown to everybody. */
const sid = (program: string): string => sidCommand(program, SID.replace(ROOT, PUBLIC))

interface Witness {
  readonly name: string
  /** What must be in .cache. */
  readonly needs: string
  /** A shell script. It ends with status 0 exactly when the program did its work. */
  readonly script: () => string
  /** What the refused program says. */
  readonly refusal: RegExp
}

const attached = () => `${sid('ip')} link show dev lo | grep -q prog/xdp`

const WITNESSES: Witness[] = [
  {
    name: "this Debian's token-aware bpftool loads and pins",
    needs: 'host/usr/sbin/bpftool',
    script: () => `${HOST_BPFTOOL} prog load ${OBJECT} /sys/fs/bpf/pass && test -f /sys/fs/bpf/pass`,
    refusal: /Operation not permitted|EPERM/,
  },
  {
    name: 'the newest bpftool loads and pins',
    needs: 'sid/usr/sbin/bpftool',
    script: () => `${sid('bpftool')} prog load ${OBJECT} /sys/fs/bpf/pass && test -f /sys/fs/bpf/pass`,
    refusal: /Operation not permitted|EPERM/,
  },
  {
    name: 'iproute2 attaches',
    needs: 'sid/usr/sbin/xdp-loader',
    // ip reports success even when the program was refused: look at the device.
    script: () => `${sid('ip')} link set dev lo xdp obj ${OBJECT} sec xdp; ${attached()}`,
    refusal: /EPERM/,
  },
  {
    name: 'xdp-loader attaches',
    needs: 'sid/usr/sbin/xdp-loader',
    script: () => `${sid('xdp-loader')} load -m skb lo ${OBJECT} && ${attached()}`,
    refusal: /Operation not permitted|EPERM/,
  },
  {
    name: 'veristat verifies',
    needs: 'sid/usr/sbin/xdp-loader',
    script: () => `${sid('veristat')} -o csv ${OBJECT} | grep -q success`,
    refusal: /^/,
  },
]

describe('under bpftoken run', () => {
  const run = (policy: string, script: string) =>
    publicCli(['run', '--policy', policy, '--', 'sh', '-c', script])

  for (const { name, needs, script, refusal } of WITNESSES) {
    test(`${name} with the right to XDP`, needsProgram(needs), async () => {
      const result = await run(LENDS_XDP, script())
      assert.equal(result.status, 0, result.stderr)
    })

    test(`${name} not without the right to XDP`, needsProgram(needs), async () => {
      const result = await run(LENDS_NO_XDP, script())
      assert.notEqual(result.status, 0)
      assert.match(result.stderr, refusal)
    })
  }
})

describe('in a bubblewrap sandbox', () => {
  /**
   * Starts the script in a sandbox made by nobody, delegates as soon as its number is known, and lets
   * it run.
   */
  async function inBubblewrap(script: string, policy: string | undefined): Promise<Result> {
    const [command, args] = inPublic([
      ...asNobody([`${PUBLIC}/.cache/host/usr/bin/bwrap`]).flat(),
      ...['--unshare-user', '--uid', '0', '--gid', '0', '--unshare-net', '--bind', '/', '/', '--dev', '/dev'],
      ...['--ro-bind', '/sys', '/sys', '--cap-add', 'CAP_BPF', '--cap-add', 'CAP_NET_ADMIN'],
      ...['--die-with-parent', '--info-fd', '3', '--block-fd', '4', 'sh', '-c', script],
    ])
    const bwrap = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe', 'pipe', 'pipe'] })
    const ended = finish(bwrap)
    try {
      const pid = await childPid(bwrap.stdio[3] as Readable)
      if (policy !== undefined) {
        const refused = await cli(['delegate', '--pid', String(pid), '--policy', LENDS_XDP])
        assert.equal(refused.status, 3, refused.stderr)
        const delegated = await cli(['delegate', '--pid', String(pid), '--policy', policy])
        assert.equal(delegated.status, 0, delegated.stderr)
      }
      ;(bwrap.stdio[4] as Writable).end('x')
    } catch (error) {
      bwrap.kill('SIGKILL')
      throw error
    }
    return ended
  }

  /**
   * Read to its end: bubblewrap dies, and its child waits for ever, if it cannot write all of it.
   */
  async function childPid(info: Readable): Promise<number> {
    const said = await text(info)
    assert.match(said, /"child-pid"/)
    return JSON.parse(said)['child-pid']
  }

  const { name, needs, script, refusal } = WITNESSES[0]!

  test(`${name} with a delegation`, needsProgram(needs), async () => {
    const result = await inBubblewrap(script(), LENDS_XDP_ANYWHERE)
    assert.equal(result.status, 0, result.stderr)
  })

  test(`${name} not with one that lacks XDP`, needsProgram(needs), async () => {
    const result = await inBubblewrap(script(), LENDS_NO_XDP)
    assert.notEqual(result.status, 0)
    assert.match(result.stderr, refusal)
  })

  test(`${name} not without a delegation`, needsProgram(needs), async () => {
    const result = await inBubblewrap(script(), undefined)
    assert.notEqual(result.status, 0)
    assert.match(result.stderr, refusal)
  })
})
