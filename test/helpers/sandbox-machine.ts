/**
 * A tree of scripts/fetch-containers.sh with sandboxes that call no hook (LXC, Incus, bubblewrap,
 * systemd-nspawn), as the first process of namespaces of its own, as if it were installed
 * on a machine. `bpftoken` there runs ours, with this machine's Node and that machine's processes.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { cgroupRoot } from '../../src/lending/recipient/cgroup.ts'
import { endCgroup } from './cgroup.ts'
import { CLI, execute, type Result } from './cli.ts'
import { eventually } from './eventually.ts'
import { CACHE, needsTokens, ROOT } from './machine.ts'
import { Scratch } from './scratch.ts'
import { xdpObject } from './xdp-object.ts'

export type SandboxSuite = 'trixie' | 'sid'
export const SANDBOX_SUITES: readonly SandboxSuite[] = ['sid', 'trixie']

export const sandboxTree = (suite: SandboxSuite): string => join(CACHE, 'containers', `${suite}-sandboxes`)

/** `{ skip: reason }` where the suite's tree is missing, or no cgroup2 can be had for it. */
export function needsSandboxes(suite: SandboxSuite): { skip?: string } {
  const machine = needsTokens()
  if (machine.skip !== undefined) return machine
  if (cgroupRoot() === undefined) return { skip: 'no cgroup2 is mounted' }
  const tree = sandboxTree(suite)
  if (existsSync(join(tree, 'usr/bin/lxc-start'))) return {}
  const why = `${join(CACHE, 'containers/why-not-')}${suite}-sandboxes`
  const reason = existsSync(why) ? readFileSync(why, 'utf8').trim() : 'run scripts/fetch-containers.sh'
  return { skip: `.cache/containers/${suite}-sandboxes is missing: ${reason}` }
}

/** Versions of what the trees have, by suite and by a word of the names of tests. */
export async function versionsOfSandboxes(): Promise<Map<string, Map<string, string>>> {
  const found = new Map<string, Map<string, string>>()
  for (const suite of SANDBOX_SUITES) {
    if (needsSandboxes(suite).skip !== undefined) continue
    const versions = new Map<string, string>()
    for (const [name, words] of Object.entries({
      nspawn: 'systemd-nspawn --version',
      lxc: 'lxc-start --version',
      incus: 'env HOME=/ incus --version',
      bubblewrap: 'bwrap --version',
    })) {
      const { stdout } = await execute('chroot', [sandboxTree(suite), ...words.split(' ')])
      versions.set(name, /\d[\w.]*/.exec(stdout)?.[0] ?? 'not there')
    }
    found.set(suite, versions)
  }
  return found
}

/** $1: the tree, $2: a scratch directory that is seen at the same path, $3: a cgroup. */
const SETUP = `set -e
echo $$ >"$3/cgroup.procs"
exec unshare --mount --pid --fork --kill-child --net --cgroup sh -ec '
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir /mnt/tree /mnt/upper /mnt/work /mnt/root
mount --bind "$1" /mnt/tree
mount -t overlay -o lowerdir=/mnt/tree,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root
cd /mnt/root
mkdir -p outside
mount -t proc proc proc
mount --rbind /dev dev
mount -t sysfs sysfs sys
mount -t tmpfs tmpfs sys/fs/cgroup
mount -t cgroup2 cgroup2 sys/fs/cgroup
for part in run tmp var/lib; do mount -t tmpfs tmpfs $part; done
mkdir -p ".$2"
mount --bind "$2" ".$2"
pivot_root . outside
# What packages would have made as they were installed.
echo ID=test >/usr/lib/os-release
ln -sf ../usr/lib/os-release /etc/os-release
echo 0123456789abcdef0123456789abcdef >/etc/machine-id
echo root:1000000:1000000 | tee /etc/subuid >/etc/subgid
# It needs a service that does not run here.
rm -f /usr/share/lxc/config/common.conf.d/00-lxcfs.conf
ip link set lo up
echo ready
# What its children leave running is waited for by nobody else.
while read -r _; do :; done
' sh "$@"
`

/**
 * What a container runs: it waits for the loan, or to be told that there will be none, loads and
 * attaches with unmodified programs, and leaves what came of it in /result.
 */
export const AGENT = (there: string): string => `#!/bin/sh
export PATH=/usr/sbin:/usr/bin
until grep -q delegate_cmds /proc/mounts || [ -e ${there}/no-loan ]; do sleep 0.1; done
{
  bpftool prog load ${there}/pass.o /sys/fs/bpf/pass &&
  /sbin/ip link set dev lo xdp obj ${there}/pass.o sec xdp &&
  /sbin/ip link show dev lo | grep -q prog/xdp && echo attached
} >/result.new 2>&1
mv /result.new /result
exec sleep 100000
`

export class SandboxMachine implements AsyncDisposable {
  readonly #scratch = new Scratch()
  readonly #cgroup: string
  readonly #holder: ChildProcess
  #log = ''

  private constructor(suite: SandboxSuite) {
    const { path } = this.#scratch
    this.#cgroup = join(cgroupRoot() ?? assert.fail('no cgroup2 is mounted'), `bpftoken-test-${process.pid}`)
    mkdirSync(this.#cgroup)
    const policy = readFileSync(join(ROOT, 'examples/policies/libbpf-xdp.yaml'))
    this.write('policy.yaml', policy)
    this.write('pass.o', xdpObject())
    // A tree cannot run this machine's Node.
    const inside = `mount -t proc proc /proc && cd "${path}" && exec "${process.execPath}" "${CLI}" "$@"`
    const ours = `#!/bin/sh\nexec unshare -m chroot /outside sh -c '${inside}' sh "$@"\n`
    this.write('bpftoken', ours, 0o755)
    this.write('agent', AGENT('/srv'), 0o755)
    this.#holder = spawn('sh', ['-c', SETUP, 'sh', sandboxTree(suite), path, this.#cgroup], {
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    for (const stream of [this.#holder.stdout!, this.#holder.stderr!])
      stream.setEncoding('utf8').on('data', text => {
        this.#log += text
      })
  }

  static async start(suite: SandboxSuite): Promise<SandboxMachine> {
    const machine = new SandboxMachine(suite)
    const hasEnded = (): boolean => machine.#holder.exitCode !== null
    await eventually(() => machine.#log.includes('ready\n') || hasEnded(), 'the tree is the root')
    if (hasEnded()) {
      await machine[Symbol.asyncDispose]()
      throw new Error(machine.#log)
    }
    return machine
  }

  /** A directory that is seen at the same path there; recipes run in it. */
  get path(): string {
    return this.#scratch.path
  }

  write(name: string, content: string | Uint8Array, mode?: number): string {
    return this.#scratch.write(name, content, mode)
  }

  /** Runs a script of the tree's shell to its end. What it leaves running ends with the machine. */
  run(script: string): Promise<Result> {
    const { pid } = this.#holder
    const first = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim()
    const there = ['--target', first, '--mount', '--pid', '--net', '--cgroup', '--']
    const variables = [`PATH=${this.path}:/usr/sbin:/usr/bin:/usr/libexec/incus`, 'HOME=/root']
    // Who waits for its output is not to wait for services that it leaves.
    const shell = `echo $$ >/sys/fs/cgroup/cgroup.procs && cd "$0" && exec sh -c "$1" >stdout 2>stderr </dev/null`
    return execute('nsenter', [
      ...there,
      ...['/usr/bin/busybox', 'env', '-i', ...variables, 'sh', '-c', shell, this.path, script],
    ]).then(({ status, signal }) => ({
      status,
      signal,
      stdout: readFileSync(join(this.path, 'stdout'), 'utf8'),
      stderr: readFileSync(join(this.path, 'stderr'), 'utf8'),
    }))
  }

  /** The same; throws when it fails. */
  async must(script: string): Promise<string> {
    const { status, stdout, stderr } = await this.run(script)
    assert.equal(status, 0, `${stdout}${stderr}`)
    return stdout
  }

  /** Makes a root directory for a container in which that id is root: the agent, and links into /usr. */
  async rootDirectory(path: string, firstId = 0): Promise<void> {
    await this.must(`mkdir -p ${path} && cd ${path}
mkdir -p usr proc sys dev etc run tmp var srv root
for link in bin sbin lib lib64; do ln -s usr/$link $link; done
cp /etc/passwd /etc/group etc
echo ID=test >etc/os-release
cp "$OLDPWD/agent" agent
busybox chown -hR ${firstId}:${firstId} .`)
  }

  /** Ends all that runs there. */
  async [Symbol.asyncDispose](): Promise<void> {
    await endCgroup(this.#cgroup)
    this.#scratch[Symbol.dispose]()
  }
}
