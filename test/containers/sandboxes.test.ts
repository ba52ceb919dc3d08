/**
 * The recipes of docs/containers/sandboxes.md, each block as it stands, for sandboxes of Debian's
 * suites: unmodified programs in them load and attach, and without our line they are refused.
 */
import assert from 'node:assert/strict'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { eventually } from '../helpers/eventually.ts'
import { needsSandboxes, SANDBOX_SUITES, SandboxMachine } from '../helpers/sandbox-machine.ts'
import { shellBlocks } from '../helpers/shell-blocks.ts'

const BLOCKS = new Map(
  shellBlocks('docs/containers/sandboxes.md').map(({ name, script }) => [name, script] as const),
)

/** An unprivileged container, whose /srv is that directory. */
const lxcConfig = (root: string, shown: string): string => `lxc.include = /usr/share/lxc/config/common.conf
lxc.include = /usr/share/lxc/config/userns.conf
lxc.rootfs.path = dir:${root}
lxc.idmap = u 0 1000000 65536
lxc.idmap = g 0 1000000 65536
lxc.net.0.type = empty
lxc.mount.entry = /usr usr none bind,ro 0 0
lxc.mount.entry = ${shown} srv none bind,ro 0 0
lxc.init.cmd = /agent
lxc.uts.name = web`

/** Of a block without our line. */
const without = (script: string): string => script.replace(/^bpftoken .*\n/gm, '')

for (const suite of SANDBOX_SUITES)
  describe(`sandboxes of ${suite}`, needsSandboxes(suite), () => {
    let machine: SandboxMachine
    before(async () => {
      machine = await SandboxMachine.start(suite)
    })
    after(() => machine?.[Symbol.asyncDispose]())

    /** Runs the block, and gives what the container's agent leaves where `result` prints it. */
    async function outcome(name: string, result: string, isLent: boolean): Promise<string> {
      const script = BLOCKS.get(name) ?? assert.fail(`no block ${name}`)
      assert.match(script, /^bpftoken delegate /m)
      const said = await machine.run(isLent ? script : without(script))
      assert.equal(said.status, 0, `${said.stdout}${said.stderr}`)
      if (!isLent) machine.write('no-loan', '')
      let text = ''
      await eventually(async () => {
        const { status, stdout } = await machine.run(result)
        text = stdout
        return status === 0
      }, `the agent in a container of ${name} has come to an end`)
      rmSync(join(machine.path, 'no-loan'), { force: true })
      return text
    }

    describe(`LXC of ${suite}`, () => {
      const ROOT = '/var/lib/lxc/web/rootfs'
      before(async () => {
        await machine.rootDirectory(ROOT, 1_000_000)
        await machine.must(`chmod 755 /var/lib/lxc /var/lib/lxc/web
cat >/var/lib/lxc/web/config <<END
${lxcConfig(ROOT, machine.path)}
END`)
      })
      const end = `lxc-stop --kill --name web && rm ${ROOT}/result`

      test('the recipe lends to a container with an id map', async () => {
        assert.match(await outcome('lxc', `cat ${ROOT}/result`, true), /^attached$/m)
        await machine.must(end)
      })

      test('without our line it is refused', async () => {
        const text = await outcome('lxc', `cat ${ROOT}/result`, false)
        assert.match(text, /Operation not permitted|EPERM/)
        assert.doesNotMatch(text, /^attached$/m)
        await machine.must(end)
      })
    })

    describe(`LXC of ${suite}, started by an ordinary user`, () => {
      const HOME = '/home/alice'
      const ROOT = `${HOME}/.local/share/lxc/web/rootfs`
      /** Runs LXC as that user. */
      const asAlice = (words: string): string =>
        `HOME=${HOME} XDG_RUNTIME_DIR=/run/user/1000 busybox su -p -s /bin/sh alice -c "cd; ${words}"`
      const delegate = 'bpftoken delegate --pid "$(cat pid)" --policy'
      before(async () => {
        await machine.rootDirectory(ROOT, 1_000_000)
        await machine.must(`echo alice:x:1000:1000:alice:${HOME}:/bin/sh >>/etc/passwd
echo alice:1000000:65536 | tee /etc/subuid >/etc/subgid
chmod 755 /home ${HOME} ${HOME}/.local ${HOME}/.local/share ${HOME}/.local/share/lxc
cat >${ROOT}/../config <<END
${lxcConfig(ROOT, machine.path)}
END
chown 1000 ${HOME} ${HOME}/.local ${HOME}/.local/share ${HOME}/.local/share/lxc ${ROOT}/..
mkdir -p /run/user/1000 /sys/fs/cgroup/alice/session
# What a session of systemd has.
chown -R 1000 /run/user/1000 /sys/fs/cgroup/alice
sed 's/network: own/network: host/' policy.yaml >anywhere.yaml
echo $$ >/sys/fs/cgroup/alice/session/cgroup.procs
${asAlice('lxc-start --name web')}
${asAlice('lxc-info --name web --pid --no-humanize')} >pid`)
      })
      after(async () => {
        await machine.must(asAlice('lxc-stop --kill --name web'))
        await machine.must('echo root:1000000:1000000 | tee /etc/subuid >/etc/subgid')
      })

      test('whoever made its user namespace can enter it from the host: network: own is refused', async () => {
        const { status, stderr } = await machine.run(`${delegate} policy.yaml`)
        assert.equal(status, 3, stderr)
        assert.match(stderr, /user 1000, who made that user namespace, can enter it from the host's network/)
      })

      test('network: host lends', async () => {
        await machine.must(`${delegate} anywhere.yaml`)
        await eventually(
          async () => (await machine.run(`grep attached ${ROOT}/result`)).status === 0,
          'the agent has attached',
        )
      })
    })

    describe(`Incus of ${suite}`, () => {
      const result = 'incus exec web -- /bin/cat /result'
      before(async () => {
        await machine.must('mount --make-rshared / && mkdir -p /var/lib/incus /var/log/incus /run/incus')
        await machine.must('incusd --group root >incusd.log 2>&1 &')
        await eventually(async () => (await machine.run('incus query /1.0')).status === 0, 'incusd answers')
        await machine.rootDirectory('/tmp/root')
        await machine.must(`incus admin init --preseed <<END
storage_pools: [{ name: default, driver: dir }]
profiles: [{ name: default, devices: { root: { path: /, pool: default, type: disk } } }]
END
cd /tmp
# What an instance runs; its /usr is that of the tree.
printf '#!/bin/sh\nexec /agent\n' >/usr/sbin/init
chmod 755 /usr/sbin/init
echo "{ architecture: $(uname -m), creation_date: 1700000000, properties: { os: test } }" >metadata.yaml
tar -czf metadata.tar.gz metadata.yaml
tar -C root -czf root.tar.gz .
incus image import metadata.tar.gz root.tar.gz --alias test
incus init test web
incus config device add web usr disk source=/usr path=/usr readonly=true
incus config device add web srv disk source=${machine.path} path=/srv readonly=true`)
      })
      after(async () => {
        await machine.must('incus delete --force web; incus admin shutdown --timeout 10')
      })

      test('the recipe lends to an instance', async () => {
        assert.match(await outcome('incus', result, true), /^attached$/m)
        await machine.must('incus exec web -- /bin/rm /result && incus stop --force web')
      })

      test('without our line it is refused', async () => {
        const text = await outcome('incus', result, false)
        assert.match(text, /Operation not permitted|EPERM/)
        assert.doesNotMatch(text, /^attached$/m)
      })
    })

    describe(`bubblewrap of ${suite}`, () => {
      const TIMES = 20
      const script = BLOCKS.get('bubblewrap')!.replace('./agent', '/usr/bin/once')
      before(() =>
        machine.must(`cat >/usr/bin/once <<'END'
#!/bin/sh
exec bpftool prog load ${machine.path}/pass.o /sys/fs/bpf/pass
END
chmod 755 /usr/bin/once`),
      )

      test(`the recipe lends before the first instruction, ${TIMES} times`, async () => {
        for (let i = 0; i < TIMES; i++) {
          const { status, stderr } = await machine.run(`rm -f go info\n${script}`)
          assert.equal(status, 0, `${i}: ${stderr}`)
        }
      })

      test('without our line it is refused', async () => {
        const { status, stderr } = await machine.run(`rm -f go info\n${without(script)}`)
        assert.notEqual(status, 0)
        assert.match(stderr, /Operation not permitted|EPERM/)
      })
    })
  })
