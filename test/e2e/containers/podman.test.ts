/**
 * Containers of an unmodified Podman that ask by annotation: with the hook where Podman reads it,
 * lent to before their first instruction, and again each time that they start.
 */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import type { DocumentName } from '../../../src/api/names.ts'
import { CLI } from '../../helpers/cli.ts'
import { ABLE, ASKS, ATTACH, ContainerLab, RUNTIMES } from '../../helpers/container-lab.ts'
import { checkedDocument } from '../../helpers/documents.ts'
import { eventually } from '../../helpers/eventually.ts'
import { needsProgram } from '../../helpers/machine.ts'
import { ALICE, IMAGE } from '../../helpers/podman.ts'
import { shellBlocks } from '../../helpers/shell-blocks.ts'

interface Status {
  hook: { installed: boolean }
  podman?: string
  problems: string[]
}

describe('Podman', needsProgram('podman/usr/bin/podman'), () => {
  let lab: ContainerLab
  before(async () => {
    lab = await ContainerLab.open()
    await lab.installHook()
    lab.policy('named', '  subjects: [{ container: { name: web } }]\n')
    await lab.client.reload()
  })
  after(() => lab[Symbol.asyncDispose]())

  const refused = async (why: RegExp, ...options: readonly string[]): Promise<void> => {
    const log = lab.daemon.log.length
    const { status, stdout } = await lab.podmanRun('echo started', ...options)
    assert.notEqual(status, 0)
    assert.equal(stdout, '')
    await eventually(
      () => why.test(lab.daemon.log.slice(log)),
      `${why}: ${lab.daemon.log.slice(log)}`,
      10_000,
    )
  }

  for (const runtime of RUNTIMES) {
    const own = runtime === 'runc' ? ['--cgroup-manager=cgroupfs', '--runtime=runc'] : []
    test(`${runtime}: an unmodified loader attaches XDP with the annotation, and cannot without`, async () => {
      const lent = await lab.podmanRun(ATTACH, { global: own }, ...ABLE, ...ASKS)
      assert.equal(lent.status, 0, `${lent.stderr}\n${lab.daemon.log.slice(-2000)}`)
      assert.equal(lent.stdout, 'attached\n')
      const alone = await lab.podmanRun(ATTACH, { global: own }, ...ABLE)
      assert.notEqual(alone.status, 0)
      assert.doesNotMatch(alone.stdout, /attached/)
    })
  }

  test('what keeps it from the loan is refused with the flag to add', async () => {
    await refused(/--cap-add BPF/, '--userns=auto', '--security-opt=seccomp=unconfined', ...ASKS)
    await refused(/seccomp profile refuses bpf\(2\)/, '--userns=auto', '--cap-add=BPF,NET_ADMIN', ...ASKS)
    await refused(/user namespace of the host.*--userns=auto/s, '--cap-add=BPF,NET_ADMIN', ...ASKS)
    await refused(/shares the host's network/, ...ABLE, '--network=host', ...ASKS)
    await refused(/There is no policy/, ...ABLE, '--annotation=bpftoken.dev/policy=none')
    await refused(/There is no annotation/, ...ABLE, ...ASKS, '--annotation=bpftoken.dev/x=y')
    const { status, stderr } = await lab.podmanRun('echo started', ...ABLE, ...ASKS)
    assert.equal(status, 0, stderr)
  })

  test('also --privileged, read-only, and with the SYS_ADMIN that its seccomp profile asks for', async () => {
    for (const options of [
      ['--privileged', '--userns=auto'],
      [...ABLE, '--read-only'],
      ['--userns=auto', '--cap-add=BPF,NET_ADMIN,SYS_ADMIN'],
      ['--cap-add=BPF,NET_ADMIN', '--security-opt=seccomp=unconfined', '--uidmap=0:700000:65536'],
    ]) {
      const { status, stdout, stderr } = await lab.podmanRun(ATTACH, ...options, ...ASKS)
      assert.equal(status, 0, `${options}: ${stderr}\n${lab.daemon.log.slice(-2000)}`)
      assert.equal(stdout, 'attached\n')
    }
  })

  test('a policy by its name or image: what Podman says of the container counts, and what it is called', async () => {
    const asks = '--annotation=bpftoken.dev/policy=named'
    await refused(/container is .*"name.*db/, ...ABLE, asks, '--name=db')
    const { status, stdout, stderr } = await lab.podmanRun(ATTACH, ...ABLE, asks, '--name=web')
    assert.equal(status, 0, `${stderr}\n${lab.daemon.log.slice(-2000)}`)
    assert.equal(stdout, 'attached\n')
  })

  test('what it is called now counts, and not what it was called', async () => {
    const asks = '--annotation=bpftoken.dev/policy=named'
    for (const [made, name] of [
      ['web', 'other'],
      ['other', 'web'],
    ] as const) {
      await lab.podman.podman('create', `--name=${made}`, ...lab.options(...ABLE, asks), 'sleep', '1000')
      await lab.podman.podman('rename', made, name)
      const { status, stderr } = await lab.podman.execute('podman', 'start', name)
      assert.equal(status === 0, name === 'web', stderr)
      await lab.podman.remove(name)
    }
  })

  test('an image that asks by its own annotations has no policy without subjects; whoever starts it has', async () => {
    const annotate = `const fs = require('fs'), dir = '/run/oci/', blobs = dir + 'blobs/sha256/'
      const index = JSON.parse(fs.readFileSync(dir + 'index.json')), [one] = index.manifests
      const manifest = JSON.parse(fs.readFileSync(blobs + one.digest.slice(7)))
      manifest.annotations = { 'bpftoken.dev/policy': 'dev' }
      const text = JSON.stringify(manifest)
      const hash = require('crypto').createHash('sha256').update(text).digest('hex')
      fs.writeFileSync(blobs + hash, text)
      Object.assign(one, { digest: 'sha256:' + hash, size: text.length, annotations: undefined })
      fs.writeFileSync(dir + 'index.json', JSON.stringify(index))`
    // One of its own: what has the same configuration is the same image, and shares its annotations.
    await lab.podman.podman('create', '--name=base', IMAGE, 'true')
    await lab.podman.podman('commit', '--quiet', '--change=LABEL x=y', 'base', 'localhost/asks:1')
    await lab.podman.podman('save', '--format=oci-dir', '--output=/run/oci', 'localhost/asks:1')
    await lab.podman.podman('rmi', '--force', 'base', 'localhost/asks:1')
    const edited = await lab.podman.execute(process.execPath, '-e', annotate)
    assert.equal(edited.status, 0, edited.stderr)
    const image = await lab.podman.podman('pull', '--quiet', 'oci:/run/oci')
    for (const options of [ABLE, ['--userns=auto', '--privileged']]) {
      const words = [...lab.options(...options).slice(0, -1), image, 'true']
      const log = lab.daemon.log.length
      const { status } = await lab.podman.execute('podman', 'run', '--rm', ...words)
      assert.notEqual(status, 0)
      const said = () => lab.daemon.log.slice(log)
      await eventually(() => /no subjects are stated/.test(said()), said(), 10_000)
      assert.equal((await lab.podmanRun(ATTACH, ...options, ...ASKS)).stdout, 'attached\n')
    }
    const named = ['--name=web', '--annotation=bpftoken.dev/policy=named']
    const words = [...lab.options(...ABLE, ...named).slice(0, -1), image, 'true']
    const { status, stderr } = await lab.podman.execute('podman', 'run', '--rm', ...words)
    assert.equal(status, 0, stderr)
  })

  test('started again it is lent to again; exec sees the loan; removed, nothing is left', async () => {
    await lab.podman.podman('create', '--name=again', ...lab.options(...ABLE, ...ASKS), 'sleep', '1000')
    for (let i = 0; i < 2; i++) {
      await lab.podman.podman('start', 'again')
      assert.match(
        await lab.podman.podman('exec', 'again', 'cat', '/proc/mounts'),
        /\/sys\/fs\/bpf bpf .*delegate_cmds/,
      )
      const id = await lab.podman.podman('inspect', '--format={{.Id}}', 'again')
      const of = async () => (await lab.loans()).filter(({ record }) => record?.recipient.container === id)
      await eventually(async () => {
        const [loan, ...more] = await of()
        return more.length === 0 && loan?.status?.mounted === true && loan.status.drift.length === 0
      }, 'one loan of it, reached')
      await lab.podman.podman('stop', '--time=0', 'again')
      await eventually(async () => (await of()).length === 0, 'it has ended')
    }
    await lab.podman.remove('again')
  })

  test('docs/containers.md: what it says for Podman works as it stands', async () => {
    const setup = `set -e
mkdir -p /run/bpftoken /run/doc
ln -s "$1" /run/bpftoken/bpftokend.sock
printf '#!/bin/sh\\nexec "%s" "%s" "$@"\\n' "$2" "$3" >/run/doc/bpftoken
chmod 755 /run/doc/bpftoken
cat >/etc/containers/containers.conf <<'X'
[containers]
cgroups = "disabled"
netns = "none"
volumes = ["/usr:/usr:ro"]
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
X
cd /run/doc
bpftoken plan --format podman --seccomp-profile agent.json "$4" >/dev/null
`
    const [block, ...more] = shellBlocks('docs/containers.md').filter(({ name }) => name === 'podman')
    assert.equal(more.length, 0)
    const { status, stdout, stderr } = await lab.podman.execute(
      ...([
        'env',
        `IMAGE=${IMAGE}`,
        'bash',
        '-c',
        `PATH=/run/doc:$PATH\n${setup}${block!.script}`,
        'bash',
      ] as const),
      ...[lab.socket, process.execPath, CLI, `${lab.scratch.path}/pass.o`],
    )
    assert.equal(status, 0, `${stdout}${stderr}\n${lab.daemon.log.slice(-1500)}`)
    assert.match(stdout, /hook: .*50-bpftoken\.json calls/)
  })

  test('bpftoken containers: done again it changes nothing, says what is in the way, and removes', async () => {
    const containers = async (...words: string[]): Promise<{ status: number; found: Status }> => {
      const { status, stdout } = await lab.podman.cli('containers', ...words, '--json')
      return { status, found: checkedDocument(`containers-${words[0]}` as DocumentName, stdout) as Status }
    }
    const socket = ['--socket', lab.socket]
    for (const word of ['install', 'status']) {
      const { status, found } = await containers(word, ...socket)
      assert.deepEqual([status, found.problems, found.hook.installed], [0, [], true])
      assert.match(found.podman!, /podman version 4/)
    }
    const here = await containers('status', ...socket)
    const away = await containers('status', '--socket', '/run/none.sock')
    assert.equal(away.status, 1)
    assert.match(away.found.problems.join(), /No daemon answers/)
    assert.match(away.found.problems.join(), /has the hook ask at .*, not at \/run\/none\.sock/)
    // The one that the hook asks, when none is named.
    assert.deepEqual(await containers('status'), here)
    await lab.podman.execute(
      'sh',
      '-c',
      'printf "[engine]\\nhooks_dir = [\\"/etc/hooks\\"]\\n" >/etc/containers/containers.conf',
    )
    const elsewhere = await containers('status', ...socket)
    assert.equal(elsewhere.status, 1)
    assert.match(elsewhere.found.problems.join(), /Podman reads \/etc\/hooks/)
    const folder = '/etc/containers/containers.conf.d'
    const part = `${folder}/10.conf`
    await lab.podman.execute('mkdir', '-p', folder)
    await lab.podman.execute('mv', '/etc/containers/containers.conf', part)
    assert.match(
      (await containers('status', ...socket)).found.problems.join(),
      /10\.conf says.* \/etc\/hooks/,
    )
    await lab.podman.execute('rm', part)
    const gone = await containers('remove', ...socket)
    assert.deepEqual([gone.status, gone.found.hook.installed], [0, false])
    assert.equal((await containers('status', ...socket)).status, 1)
    await lab.installHook()
  })

  test('rootless: refused, with what to do instead, which works', async () => {
    const start = (...words: string[]) =>
      lab.podman.asAlice(
        'podman',
        ...[
          '--hooks-dir=/usr/share/containers/oci/hooks.d',
          'run',
          '--detach',
          '--network=none',
          '--cgroups=disabled',
        ],
        ...['--ulimit=nofile=1024:1024', '--ulimit=nproc=1000:1000', '--volume=/usr:/usr:ro', '--name=mine'],
        ...[...words, '--rootfs', `${ALICE.home}/rootfs`, 'sleep', '1000'],
      )
    // crun writes down what hooks say where it is told to, and hides it else.
    const said = `${ALICE.home}/said`
    const asked = await start('--cap-add=BPF,NET_ADMIN', `--annotation=run.oci.hooks.stderr=${said}`, ...ASKS)
    assert.notEqual(asked.status, 0)
    assert.match(
      (await lab.podman.execute('cat', said)).stdout,
      /may not start: it is rootless.*bpftoken delegate --container USER\/NAME/,
      asked.stderr,
    )
    await lab.podman.asAlice('podman', 'rm', '--force', 'mine')
    const plain = await start('--cap-add=BPF,NET_ADMIN')
    assert.equal(plain.status, 0, plain.stderr)
    lab.policy('anywhere', '', 'host')
    await lab.client.reload()
    const lent = await lab.podman.cli(
      ...['delegate', '--socket', lab.socket, '--container', `${ALICE.name}/mine`, '--policy', 'anywhere'],
    )
    assert.equal(lent.status, 0, lent.stderr)
    const seen = await lab.podman.asAlice('podman', 'exec', 'mine', 'cat', '/proc/mounts')
    assert.match(seen.stdout, /delegate_cmds/)
    await lab.podman.asAlice('podman', 'rm', '--force', '--time=0', 'mine')
  })
})
