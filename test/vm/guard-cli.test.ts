/** The guard by its commands, from a kernel without one to revoked delegations. Runs in a VM, after `make build`. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { CLI, cli, execute, startCli } from '../helpers/cli.ts'
import { Scratch } from '../helpers/scratch.ts'

const lsm = readFileSync('/sys/kernel/security/lsm', 'utf8')
const kernelHasTokens = readFileSync('/proc/kallsyms', 'utf8').includes(' bpf_token_create')
const skip =
  lsm.split(',').includes('bpf') && kernelHasTokens ? false : 'this kernel has no BPF LSM, or no tokens'

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
  return JSON.parse(await ok(...args, '--json')) as Record<string, unknown>
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

  test('delegate, show, revoke, and the event of what came after', async () => {
    const target = await sleeper()
    try {
      const { id } = await json('delegate', '--pid', String(target.pid), '--policy', limited)
      assert.equal(typeof id, 'number')
      assert.match(await ok('show', String(id)), /live for 59m/)
      const inside = (): ReturnType<typeof execute> =>
        execute('nsenter', [
          '-t',
          String(target.pid),
          '-U',
          '-m',
          '--preserve-credentials',
          process.execPath,
          CLI,
          'token',
          'show',
        ])
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
          `const n = require('node-gyp-build')(process.cwd()); const fd = n.fsopen('bpf', 0); n.fsconfig(fd, 1, 'delegate_cmds', '1', 0)`,
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

  test('remove', async () => {
    assert.match(await ok('guard', 'remove'), /^guard removed/)
    assert.equal((await cli(['guard', 'status'])).status, 1)
    assert.equal((await cli(['guard', 'remove'])).status, 1)
    await ok('run', '--policy', plain, '--', 'true')
  })
})
