/**
 * A Debian suite as if it were installed: a tree of scripts/fetch-containers.sh is the root of a
 * mount namespace of its own, and of a network namespace. Processes are those of this machine, so that numbers of
 * processes mean the same to all. What is written there is in memory.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, readlinkSync, rmdirSync } from 'node:fs'
import { join } from 'node:path'
import { execute, type Result } from './cli.ts'
import { eventually } from './eventually.ts'
import { CACHE, needsTokens, ROOT } from './machine.ts'

export type Suite = 'trixie' | 'sid'
export const SUITES: readonly Suite[] = ['trixie', 'sid']
/** What is unpacked of a suite: containerd, or Podman and Docker. */
export type TreeName = Suite | `${Suite}-engines`

/** Where programs lie in a tree. */
const PATH = '/usr/sbin:/usr/bin:/sbin:/bin'

export const treeOf = (name: TreeName): string => join(CACHE, 'containers', name)

/** `{ skip: reason }` where the tree, or this program of it, is missing. */
export function needsTree(name: TreeName, program: string): { skip?: string } {
  const machine = needsTokens()
  if (machine.skip !== undefined || existsSync(join(treeOf(name), program))) return machine
  const why = join(CACHE, 'containers', `why-not-${name}`)
  const reason = existsSync(why) ? readFileSync(why, 'utf8').trim() : 'run scripts/fetch-containers.sh'
  return { skip: `.cache/containers/${name}/${program} is missing: ${reason}` }
}

/** The first line that each program of the tree says of its version. */
export async function versionsIn(name: TreeName, programs: readonly string[]): Promise<string[]> {
  const lines: string[] = []
  for (const program of programs) {
    // crun says nothing without /proc.
    const script = 'mount -t proc proc "$0/proc" && exec chroot "$0" "/usr/$1" --version'
    const { stdout } = await execute('unshare', ['--mount', 'sh', '-c', script, treeOf(name), program])
    lines.push(stdout.split('\n')[0]!)
  }
  return lines
}

/** $1: the tree; the rest: directories that are seen at the same paths. */
const SETUP = `set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir /mnt/tree /mnt/upper /mnt/work /mnt/root
mount --bind "$1" /mnt/tree
shift
mount -t overlay -o lowerdir=/mnt/tree,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root
cd /mnt/root
mkdir -p old
for part in proc sys dev; do mount --rbind /$part $part; done
# crun refuses to have both versions of cgroups.
if mountpoint -q sys/fs/cgroup/unified; then umount sys/fs/cgroup/unified; fi
for part in run tmp var/lib; do mount -t tmpfs tmpfs $part; done
chmod 1777 var/tmp
for shown; do
  mkdir -p ".$shown"
  mount --rbind "$shown" ".$shown"
done
# Node, at its path; its libraries are the tree's.
mkdir -p ".$(dirname "$NODE")"
touch ".$NODE"
mount --bind "$NODE" ".$NODE"
pivot_root . old
/usr/bin/busybox umount -l /old
/sbin/ip link set lo up
`

export interface TreeOptions {
  /** Directories that are seen there at the same paths; this repository always is. */
  readonly shown?: readonly string[]
  /** Of its own, by default. */
  readonly network?: 'own' | 'host'
  /** A script that runs there before all else. */
  readonly prepare?: string
}

export class DebianTree implements AsyncDisposable {
  /** For whoever makes cgroups: the name of one, in each hierarchy, that goes with the tree. */
  readonly cgroup = `/bpftoken-test-${process.pid}-${Date.now().toString(36)}`
  /** Holds the namespaces. */
  readonly #holder: ChildProcess
  #log = ''

  private constructor(name: TreeName, { shown = [], network = 'own', prepare = '' }: TreeOptions) {
    const script = `${SETUP}${prepare}\necho ready\nexec /usr/bin/busybox cat\n`
    this.#holder = spawn(
      'unshare',
      [
        '--mount',
        ...(network === 'own' ? ['--net'] : []),
        'sh',
        '-c',
        script,
        'sh',
        treeOf(name),
        ...shown,
        ROOT,
      ],
      { stdio: ['pipe', 'pipe', 'pipe'], env: { PATH, NODE: process.execPath } },
    )
    this.#listen(this.#holder)
  }

  /** The caller disposes of it. */
  static async start(name: TreeName, options: TreeOptions = {}): Promise<DebianTree> {
    const tree = new DebianTree(name, options)
    await eventually(
      () => tree.#log.includes('ready\n') || hasEnded(tree.#holder),
      `its namespaces are ready: ${tree.#log}`,
    )
    if (!hasEnded(tree.#holder)) return tree
    await tree[Symbol.asyncDispose]()
    throw new Error(tree.#log)
  }

  /** What all that was started has said. */
  get log(): string {
    return this.#log
  }

  #listen({ stdout, stderr }: ChildProcess): void {
    for (const stream of [stdout!, stderr!])
      stream.setEncoding('utf8').on('data', text => {
        this.#log += text
      })
  }

  /** Words of nsenter(1), before a command. */
  get enter(): readonly string[] {
    return ['--target', String(this.#holder.pid), '--mount', '--net', '--']
  }

  /** Runs any program of the tree to its end. */
  execute(command: string, ...args: readonly string[]): Promise<Result> {
    return execute('nsenter', [...this.enter, command, ...args], { env: { PATH } })
  }

  /** Starts one that stays, and says what it has to say to the log. */
  spawn(command: string, ...args: readonly string[]): ChildProcess {
    const child = spawn('nsenter', [...this.enter, command, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { PATH },
    })
    this.#listen(child)
    return child
  }

  /** Ends all that runs there, such as shims, and removes the cgroup. */
  async [Symbol.asyncDispose](): Promise<void> {
    const mounts = mountNamespaceOf(this.#holder.pid!)
    // Where it did not come so far, the namespace is still ours.
    await eventually(() => {
      const left = mounts === mountNamespaceOf(process.pid) ? [] : processesIn(mounts)
      for (const pid of left) tryKill(pid)
      return left.length === 0
    }, 'all that runs there ends')
    this.#holder.kill('SIGKILL')
    await eventually(() => removeCgroups(this.cgroup), 'its cgroups are empty')
  }
}

export function hasEnded({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null
}

function mountNamespaceOf(pid: number | string): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/mnt`)
  } catch {
    return undefined
  }
}

function processesIn(mountNamespace: string | undefined): number[] {
  if (mountNamespace === undefined) return []
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name) && mountNamespaceOf(name) === mountNamespace)
    .map(Number)
}

function tryKill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It has ended.
  }
}

/** Of each hierarchy. False while a process is in one. */
function removeCgroups(name: string): boolean {
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8').matchAll(
    /^\S+ \S+ \S+ \S+ (\S+) .* - cgroup2? /gmu,
  )
  for (const [, mount] of mounts) {
    const path = join(mount!, name)
    try {
      if (existsSync(path)) removeTree(path)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EBUSY') return false
      throw error
    }
  }
  return true
}

function removeTree(path: string): void {
  for (const entry of readdirSync(path, { withFileTypes: true }))
    if (entry.isDirectory()) removeTree(join(path, entry.name))
  rmdirSync(path)
}
