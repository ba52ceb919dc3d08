/** bpftoken-runc: another runtime, which calls our hook for bundles that ask, and for no others. */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { hookPath, runtimePath } from '../../../src/sys/prebuilt.ts'
import { execute, type Result } from '../../helpers/cli.ts'
import { ATTACH, type Config, ContainerLab } from '../../helpers/container-lab.ts'
import { needsProgram } from '../../helpers/machine.ts'
import { Scratch } from '../../helpers/scratch.ts'

const ASKS = { 'bpftoken.dev/policy': 'dev' }

describe('what bpftoken-runc makes of a bundle', () => {
  const scratch = new Scratch()
  after(() => scratch[Symbol.dispose]())

  /** Runs it with a runtime that shows its words, over a bundle with that config.json. */
  async function made(config: unknown, ...words: readonly string[]): Promise<{ ran: Result; after: string }> {
    const bundle = join(scratch.path, 'bundle')
    mkdirSync(bundle, { recursive: true })
    const file = join(bundle, 'config.json')
    writeFileSync(file, typeof config === 'string' ? config : JSON.stringify(config), { mode: 0o640 })
    const own = ['--bpftoken-runtime', '/bin/echo', '--bpftoken-socket=/run/x.sock']
    // Where the words name it, it is not where we are.
    const cwd = words.some(word => word.includes(bundle)) ? '/' : bundle
    const ran = await execute(runtimePath(), [...own, ...words], { cwd })
    assert.equal(statSync(file).mode & 0o777, 0o640)
    return { ran, after: readFileSync(file, 'utf8') }
  }
  const hook = {
    path: hookPath(),
    args: ['bpftoken-hook', '--socket', '/run/x.sock'],
  }

  test('one that asks gets the hook behind its own, and all else is as it was', async () => {
    const config = {
      annotations: ASKS,
      hooks: { prestart: [{ path: '/a' }], createRuntime: [{ path: '/b', env: ['x="y"\n'] }] },
      process: { args: ['é', '"', '\u0001'], user: { uid: 0 }, n: [1.5e3, true, null, {}, []] },
    }
    const { ran, after } = await made(
      config,
      '--root',
      '/run',
      '--log-format=json',
      'create',
      '--bundle',
      '.',
      'id',
    )
    assert.equal(ran.stdout, '--root /run --log-format=json create --bundle . id\n')
    assert.deepEqual(JSON.parse(after), {
      ...config,
      hooks: { prestart: [{ path: '/a' }], createRuntime: [{ path: '/b', env: ['x="y"\n'] }, hook] },
    })
    const { after: fresh } = await made({ annotations: ASKS }, 'run', 'id')
    assert.deepEqual(JSON.parse(fresh), { hooks: { createRuntime: [hook] }, annotations: ASKS })
  })

  test('one that has the hook already gets no second one, and keeps its own; another program is not it', async () => {
    const first = await made({ annotations: ASKS }, 'run', 'id')
    assert.deepEqual(JSON.parse(first.after).hooks.createRuntime, [hook])
    assert.equal((await made(first.after, 'run', 'id')).after, first.after)
    const theirs = { path: '/opt/bpftoken-hook', args: ['bpftoken-hook', '--socket', '/run/theirs.sock'] }
    const installed = JSON.stringify({
      annotations: ASKS,
      hooks: { createRuntime: [{ path: '/b' }, theirs, { path: '/c' }] },
    })
    const { ran, after } = await made(installed, 'create', 'id')
    assert.deepEqual([ran.status, after], [0, installed])
    for (const hooks of [
      { createRuntime: [{ path: '/opt/bpftoken-hook/other' }] },
      { createRuntime: [{ path: '/opt/my-bpftoken-hook', args: ['/opt/bpftoken-hook'] }] },
      { createRuntime: [{ args: ['bpftoken-hook'] }] },
      { poststop: [theirs], createRuntime: [] },
    ]) {
      const { after } = await made({ annotations: ASKS, hooks }, 'create', 'id')
      assert.deepEqual(JSON.parse(after).hooks, { ...hooks, createRuntime: [...hooks.createRuntime, hook] })
    }
  })

  test('however it is written that one asks, and whatever was left behind', async () => {
    const bundle = join(scratch.path, 'bundle')
    const left = join(bundle, 'config.json.bpftoken')
    for (const name of ['bpftoken.dev/policy', 'bpftoken.dev\\/policy', '\\u0062pftoken.dev\\u002fpolicy'])
      for (const words of [
        ['create', `--bundle=${bundle}`, 'id'],
        ['create', '-bundle', bundle, 'id'],
        ['restore', '-b', bundle, 'id'],
        // As crun's getopt_long(3) takes them.
        ['run', `-b${bundle}`, 'id'],
        ['run', '--bund', bundle, 'id'],
        ['run', `--b=${bundle}`, 'id'],
      ]) {
        mkdirSync(bundle, { recursive: true })
        writeFileSync(left, '')
        const { ran, after } = await made(`{"annotations":{"${name}":"dev"}}`, ...words)
        assert.equal(ran.status, 0, ran.stderr)
        assert.deepEqual(JSON.parse(after), { hooks: { createRuntime: [hook] }, annotations: ASKS })
      }
  })

  test('crun is not given another file than config.json', async () => {
    for (const words of [['--config=other.json'], ['--conf', 'other.json'], ['-f', 'other.json']]) {
      const { ran } = await made({ annotations: ASKS }, 'run', ...words, 'id')
      assert.equal(ran.status, 1)
      assert.match(ran.stderr, /a container is made of config\.json alone/)
    }
  })

  test('others are not touched, nor are other commands', async () => {
    const asks = JSON.stringify({ annotations: ASKS })
    for (const command of ['start', 'delete', 'exec', 'state', '--version'])
      assert.equal((await made(asks, '--root', 'create', command, 'id')).after, asks)
    for (const other of [
      '{}',
      '{"annotations":{"x":"bpftoken.dev/"}}',
      '{"a":{"bpftoken.dev/":""}}',
      'no JSON',
      '{"a":1,"a":2}',
      '{"a":"\\u0001","a":2}',
      '{"a":"\\u0001"}',
    ]) {
      const { ran, after } = await made(other, 'create', 'id')
      assert.deepEqual([ran.status, after], [0, other])
    }
  })

  test('one that asks and cannot be given it does not start', async () => {
    for (const odd of [
      '{"annotations":{"bpftoken.dev/policy":"a"},"a":1,"a":2}',
      '{"annotations":{"bpftoken.dev/policy":',
    ]) {
      const { ran, after } = await made(odd, 'create', 'id')
      assert.deepEqual([ran.status, ran.stdout, after], [1, '', odd])
      assert.match(ran.stderr, /is no JSON that is read in one way only/)
    }
  })
})

describe('bpftoken-runc with real runtimes', needsProgram('podman/usr/bin/podman'), () => {
  let lab: ContainerLab
  before(async () => {
    lab = await ContainerLab.open()
  })
  after(() => lab[Symbol.asyncDispose]())

  for (const runtime of ['runc', 'crun'] as const)
    test(`${runtime}: a container that asks attaches XDP, one that does not is as without us`, async () => {
      const run = async (name: string, edit: (config: Config) => void): Promise<Result> => {
        lab.bundle(name, ATTACH, config => {
          delete config.hooks
          edit(config)
        })
        return lab.podman.execute(
          runtimePath(),
          ...['--bpftoken-runtime', `/usr/bin/${runtime}`, '--bpftoken-socket', lab.socket],
          ...(runtime === 'crun' ? ['--cgroup-manager', 'disabled'] : []),
          ...['--root', `/run/oci-${runtime}`, 'run', '--bundle', join(lab.scratch.path, name), name],
        )
      }
      const lent = await run(`asks-${runtime}`, () => {})
      assert.equal(lent.status, 0, `${lent.stderr}\n${lab.daemon.log}`)
      assert.equal(lent.stdout, 'attached\n')
      // As Podman's hooks.d has written it, or the first run of a bundle.
      const twice = await run(`hooked-${runtime}`, config => {
        config.hooks = { createRuntime: [lab.hook] }
      })
      assert.equal(twice.status, 0, `${twice.stderr}\n${lab.daemon.log}`)
      assert.equal(twice.stdout, 'attached\n')
      const silent = await run(`silent-${runtime}`, config => {
        config.annotations = {}
      })
      assert.notEqual(silent.status, 0)
      assert.doesNotMatch(silent.stdout, /attached/)
      const refused = await run(`refused-${runtime}`, config => {
        config.annotations = { 'bpftoken.dev/policy': 'none' }
      })
      assert.notEqual(refused.status, 0)
      assert.match(lab.daemon.log, /There is no policy/)
    })
})
