/**
 * The first success that README promises, by its own commands: an agent in a container of an
 * unmodified Podman, and whoever looks at what is lent and takes it back. The developer's is in
 * try.test.ts.
 */
import assert from 'node:assert/strict'
import { copyFileSync, cpSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { residue, snapshot } from '../../scripts/residue.ts'
import { asNobody, CLI, inPublic, PUBLIC_CLI, type Result } from '../helpers/cli.ts'
import { type DaemonMachine, daemonMachine } from '../helpers/daemon-machine.ts'
import { needsProgram, ROOT } from '../helpers/machine.ts'
import { Podman } from '../helpers/podman.ts'
import { Scratch } from '../helpers/scratch.ts'
import { commandsOf, shellBlocks } from '../helpers/shell-blocks.ts'
import { xdpObject } from '../helpers/xdp-object.ts'

const untouched = snapshot()

/** What this machine wants of every container; people have it from their distribution. */
const CONTAINERS_CONF = `[containers]
netns = "none"
cgroups = "disabled"
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
volumes = ["/usr:/usr:ro"]
`

describe('README', needsProgram('podman/usr/bin/podman'), () => {
  const scratch = new Scratch()
  let podman: Podman
  before(async () => {
    podman = await Podman.start()
    scratch.write('containers.conf', CONTAINERS_CONF)
    scratch.write('agent.bpf.o', xdpObject())
    cpSync(join(ROOT, 'examples/policies'), join(scratch.path, 'examples/policies'), { recursive: true })
    mkdirSync(join(scratch.path, 'bin'))
    scratch.write('bin/bpftoken', `#!/bin/sh\nexec "${process.execPath}" "${CLI}" "$@"\n`, 0o755)
    copyFileSync(join(ROOT, '.cache/host/usr/sbin/bpftool'), join(scratch.path, 'bpftool'))
    const image = `podman import --quiet --change 'CMD ["sleep", "1000"]' - localhost/agent:1`
    const made = await podman.execute('sh', '-c', `tar -C /run/rootfs -c . | ${image}`)
    assert.equal(made.status, 0, made.stderr)
  })
  after(async () => {
    await podman.end()
    scratch[Symbol.dispose]()
    assert.deepEqual(await residue(untouched), [])
  })

  /** One line of it, in a directory where its files are. */
  function shell(line: string): Promise<Result> {
    const script = `cd ${scratch.path} && PATH=${scratch.path}/bin:$PATH && ${line}`
    const variables = [`CONTAINERS_CONF=${scratch.path}/containers.conf`, 'IMAGE=localhost/agent:1']
    return podman.execute('env', ...variables, 'sh', '-c', script)
  }

  async function succeeds(line: string): Promise<string> {
    const { status, stdout, stderr } = await shell(line)
    assert.equal(status, 0, `${line}: ${stderr}`)
    return stdout
  }

  /** bpftool, inside: it finds the token by itself. */
  const load = (): Promise<Result> =>
    shell(
      'podman cp --pause=false bpftool agent:/tmp/ && podman cp --pause=false agent.bpf.o agent:/tmp/ && podman exec agent /tmp/bpftool prog load /tmp/agent.bpf.o /sys/fs/bpf/agent',
    )

  test('an agent in a container loads its program after three commands, and not before', async () => {
    const [plan, run, delegate, ...rest] = commandsOf('README.md', 'platform')
    assert.deepEqual(rest, [])
    const planned = (await succeeds(plan!)).replaceAll(`${scratch.path}/`, '')
    await succeeds(run!)
    for (const flag of run!.split(/\s+/).filter(word => /^--(?:userns|cap-add|security-opt)/.test(word)))
      assert.ok(planned.includes(flag), `the plan does not print ${flag}`)
    assert.notEqual((await load()).status, 0)
    await succeeds(delegate!)
    const { status, stderr } = await load()
    assert.equal(status, 0, stderr)
  })

  test('what is lent is listed by container, and is taken back', async () => {
    const [tree, undelegate, list, ...rest] = commandsOf('README.md', 'security')
    assert.deepEqual(rest, [])
    // Others may lend on this machine meanwhile.
    const agent = new RegExp(`\\b${await podman.pid('agent')}\\b.*map_create`)
    assert.match(await succeeds(tree!), /map_create/)
    assert.match(await succeeds(list!), agent)
    await succeeds(undelegate!)
    assert.doesNotMatch(await succeeds(list!), agent)
    await shell('podman exec agent rm -f /sys/fs/bpf/agent')
    assert.notEqual((await load()).status, 0)
  })
})

describe('README, as an ordinary user', needsProgram('sid/usr/bin/systemctl'), () => {
  let scratch: Scratch
  let machine: DaemonMachine
  before(async () => {
    // Not earlier: what is there when the first suite ends, it takes for its own.
    scratch = new Scratch()
    scratch.write('bpftoken', `#!/bin/sh\nexec "${process.execPath}" "${PUBLIC_CLI}" "$@"\n`, 0o755)
    const example = readFileSync(join(ROOT, 'examples/policies/packet-counter.yaml'), 'utf8')
    const terms = '  network: host\n  subjects: [{ user: 65534 }]'
    const policy = example.replace('packet-counter', 'dev').replace('  network: own', terms)
    machine = await daemonMachine({ files: { 'etc/bpftoken/policies/dev.yaml': policy } })
    await machine.systemd.systemctl('start', 'bpftokend.socket')
  })
  after(async () => {
    await machine?.systemd.stop()
    scratch?.[Symbol.dispose]()
    assert.deepEqual(await residue(untouched), [])
  })

  test('who is named by a policy borrows, and sees it', async () => {
    const [block] = shellBlocks('README.md').filter(({ name }) => name === 'user')
    const script = `PATH=${scratch.path}:$PATH\n${block!.script}\ngrep -o delegate_progs=xdp /proc/$!/mountinfo\nkill $!`
    const [command, words] = inPublic(asNobody(['bash', '-euc', script]).flat())
    const { status, stdout, stderr } = await machine.systemd.execute(command, ...words)
    assert.equal(status, 0, stderr)
    assert.match(stdout, /^loan-1: lent to process \d+ at /m)
    assert.match(stdout, /^loan-1 .*dev/m)
    assert.match(stdout, /^delegate_progs=xdp$/m)
  })
})
