/**
 * The file system of a VM, in three layers: programs of this machine (kept in .cache/vm until one
 * changes), the repository with its TypeScript translated, and the modules and the job of one boot.
 *
 * The repository is at the same path as here. Nothing is compressed: to unpack costs the emulated
 * processor more than to copy.
 */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writevSync,
} from 'node:fs'
import { basename, join } from 'node:path'
import { type BuildFailure, buildSync, type OutputFile } from 'esbuild'
import { compiled } from '../compiled.ts'
import { CACHE, ROOT } from '../tree.ts'
import { Cpio } from './cpio.ts'

export const VM = join(CACHE, 'vm')
/** Of the repository: a file system with a systemd. */
export const SYSTEMD = '.cache/vm/systemd'
/** The same: a runtime of containers. */
export const CRUN = '.cache/vm/crun'
const BUSYBOX = join(VM, 'tools/bin/busybox')

/** Programs whose busybox namesakes can less. Taken from this machine, with their libraries. */
const PROGRAMS = ['bash', 'setpriv', 'unshare', 'nsenter', 'mount', 'umount', 'prlimit', 'script', 'ip', 'tc']

/** Drivers that tests may want; the kernel asks modprobe for them. */
const MODULES = [
  'veth',
  'dummy',
  'tun',
  'bridge',
  'overlay',
  'sch_ingress',
  'cls_bpf',
  'act_bpf',
  'nf_tables',
  // For their types: functions, variables and tracepoints of modules.
  'nf_nat',
  'nf_flow_table',
  'x_tables',
  'softdog',
]

const PASSWD = 'root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n'
const GROUP = 'root:x:0:\nnogroup:x:65534:\n'

/** Which program a name means here. */
function find(name: string): string | undefined {
  return ['/usr/sbin', '/usr/bin', '/sbin', '/bin'].map(dir => join(dir, name)).find(path => existsSync(path))
}

/** The libraries that programs are linked with, by the paths at which the loader looks for them. */
function libraries(programs: readonly string[]): string[] {
  const text = execFileSync('ldd', programs, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
  return [...new Set([...text.matchAll(/(\/\S+) \(0x/g)].map(match => match[1]!))].sort()
}

interface Copied {
  readonly from: string
  readonly to: string
}

/** As on Debian, whose /bin, /sbin, /lib and /lib64 are links into /usr. */
const MERGED = ['bin', 'sbin', 'lib', 'lib64']

function merged(path: string): string {
  const top = path.split('/')[1]!
  return MERGED.includes(top) ? `/usr${path}` : path
}

/** Everything in the base layer that comes from files of this machine, except for folders. */
function baseFiles(): Copied[] {
  const programs: Copied[] = [{ from: realpathSync(process.execPath), to: '/usr/bin/node' }]
  for (const name of PROGRAMS) {
    const from = find(name)
    if (from !== undefined) programs.push({ from: realpathSync(from), to: `/usr/bin/${name}` })
  }
  const host = join(CACHE, 'host/usr')
  for (const dir of ['bin', 'sbin'].map(name => join(host, name)).filter(existsSync))
    for (const name of readdirSync(dir)) programs.push({ from: join(dir, name), to: join(dir, name) })
  const needed = libraries(programs.map(({ from }) => from))
  return [
    { from: BUSYBOX, to: '/usr/bin/busybox' },
    ...programs,
    ...needed.map(path => ({ from: realpathSync(path), to: merged(path) })),
  ]
}

/**
 * Packages that the built commands need, or their sources, or tests; without what only developers
 * read.
 */
function addPackages(archive: Cpio): void {
  const { dependencies } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
    dependencies: Record<string, string>
  }
  for (const name of [...Object.keys(dependencies), 'commander', 'yaml', 'fast-check', 'pure-rand'])
    archive.copy(
      join(ROOT, 'node_modules', name),
      undefined,
      path => !/\.(map|md|[cm]?ts|flow)$|\/zod\/(src|v4\/locales\/.*\.js)|\/esm\//.test(path),
    )
}

function makeBase(files: readonly Copied[]): Buffer[] {
  const archive = new Cpio()
  for (const name of ['proc', 'sys', 'dev', 'run', 'root', 'mnt', 'var/tmp']) archive.folder(`/${name}`)
  archive.folder('/tmp', 0o1777)
  for (const name of MERGED) {
    archive.folder(`/usr/${name}`)
    archive.link(`/${name}`, `usr/${name}`)
  }
  const applets = execFileSync(BUSYBOX, ['--list'], { encoding: 'utf8' }).trim().split('\n')
  const better = new Set([...files.map(({ to }) => basename(to))])
  for (const name of applets.filter(applet => !better.has(applet)))
    archive.link(`/usr/bin/${name}`, 'busybox')
  archive.link('/usr/sbin/modprobe', '/bin/busybox')
  archive.link('/usr/sbin/bpftool', join(CACHE, 'host/usr/sbin/bpftool'))
  archive.file('/etc/passwd', PASSWD)
  archive.file('/etc/group', GROUP)
  archive.file('/etc/hosts', '127.0.0.1 localhost vm\n::1 localhost\n')
  for (const { from, to } of files) archive.file(to, readFileSync(from), 0o755)
  addPackages(archive)
  return archive.finish()
}

/** The path of the base layer, made anew when what it is made of has changed. */
export function baseLayer(progress: (text: string) => void): string {
  const files = baseFiles()
  const hash = createHash('sha256')
  for (const path of [...files.map(({ from }) => from), join(ROOT, 'package-lock.json'), __filename]) {
    const { size, mtimeMs } = statSync(path)
    hash.update(`${path} ${size} ${mtimeMs}\n`)
  }
  const path = join(VM, `base-${hash.digest('hex').slice(0, 16)}.cpio`)
  if (existsSync(path)) return path
  progress('collecting the programs of this machine')
  // Not what another VM is making right now.
  for (const name of readdirSync(VM))
    if (/^base-.*\.cpio$/.test(name)) rmSync(join(VM, name), { force: true })
  const partial = `${path}.${process.pid}`
  write(partial, makeBase(files))
  renameSync(partial, path)
  return path
}

function write(path: string, parts: Buffer[]): void {
  const fd = openSync(path, 'wx')
  // The kernel takes no more than 1024 pieces at once.
  for (let i = 0; i < parts.length; i += 1000) writevSync(fd, parts.slice(i, i + 1000))
  closeSync(fd)
}

function filesUnder(path: string): string[] {
  if (!statSync(path).isDirectory()) return [path]
  return readdirSync(path).flatMap(name => filesUnder(join(path, name)))
}

/** Translated to JavaScript, but with the names they had. */
function addTypeScript(archive: Cpio, files: string[]): void {
  // Somebody may be writing one of them right now: then it is missing inside, and only there.
  const broken = new Set<string>()
  for (let outputFiles = translated(files); ; outputFiles = translated(files.filter(f => !broken.has(f)))) {
    if (!(outputFiles instanceof Error)) {
      for (const { path, contents } of outputFiles) archive.file(path.replace(/\.js$/, '.ts'), contents)
      return
    }
    for (const { location, text } of outputFiles.errors) {
      if (location === null) throw outputFiles
      console.error(`vm: ${location.file}:${location.line} is left out: ${text}`)
      broken.add(join(process.cwd(), location.file))
    }
  }
}

function translated(files: string[]): OutputFile[] | BuildFailure {
  try {
    return buildSync({
      entryPoints: files,
      outbase: ROOT,
      outdir: ROOT,
      write: false,
      format: 'cjs',
      platform: 'node',
      target: 'node20',
      // Node itself would take import() for a module of the other kind, and not know the ending.
      supported: { 'dynamic-import': false },
      logLevel: 'silent',
    }).outputFiles
  } catch (error) {
    if (error instanceof Error && 'errors' in error) return error as BuildFailure
    throw error
  }
}

/**
 * The repository as it is now, and `extra` paths of it that are not in git, such as parts of
 * .cache.
 */
export function repositoryLayer(extra: readonly string[]): Buffer[] {
  const archive = new Cpio()
  const files = ['src', 'test', 'scripts', 'examples'].flatMap(name => filesUnder(join(ROOT, name)))
  const isTypeScript = (path: string): boolean => path.endsWith('.ts')
  addTypeScript(archive, files.filter(isTypeScript))
  for (const name of readdirSync(join(__dirname, 'tsx')))
    archive.file(join(ROOT, 'node_modules/tsx', name), readFileSync(join(__dirname, 'tsx', name)))
  const built = [
    'bpftoken.node',
    'bpftoken-launch',
    'bpftoken-executor',
    'bpftoken-run',
    'bpftoken-hook',
    'bpftoken-launchd',
    'bpftoken-hold',
  ].map(name => join(ROOT, 'build/Release', name))
  const others = [
    join(ROOT, 'package.json'),
    join(ROOT, 'SECURITY.md'),
    ...built,
    ...extra.map(path => join(ROOT, path)),
  ]
  const guard = join(ROOT, 'bpf')
  if (existsSync(guard)) others.push(guard)
  for (const path of [...files.filter(path => !isTypeScript(path)), ...others]) archive.copy(path)
  archive.copy(join(ROOT, 'dist'), undefined, path => path.endsWith('.js'))
  // A VM has no compiler.
  for (const path of files.filter(file => /\/test\/(kernel|vm)\/.*\.c$/.test(file)))
    archive.copy(compiled(path))
  archive.link('/repository', ROOT)
  return archive.finish()
}

function moduleName(path: string): string {
  return basename(path).replace(/\.ko$/, '').replaceAll('-', '_')
}

function addModules(archive: Cpio, kernel: string): void {
  const from = join(VM, `kernel-${kernel}/modules/lib/modules`)
  const version = readdirSync(from)[0]!
  const dir = join(from, version)
  const lines = readFileSync(join(dir, 'modules.dep'), 'utf8').trim().split('\n')
  const needs = new Map(lines.map(line => [line.slice(0, line.indexOf(':')), line]))
  const taken = new Set<string>()
  const take = (path: string): void => {
    if (taken.has(path)) return
    taken.add(path)
    for (const needed of needs.get(path)!.split(/:?\s+/).slice(1).filter(Boolean)) take(needed)
  }
  for (const path of needs.keys()) if (MODULES.includes(moduleName(path))) take(path)
  const names = new Set([...taken].map(moduleName))
  const aliases = readFileSync(join(dir, 'modules.alias'), 'utf8').split('\n')
  const to = `/usr/lib/modules/${version}`
  for (const path of taken) archive.copy(join(dir, path), join(to, path))
  archive.file(join(to, 'modules.dep'), `${[...taken].map(path => needs.get(path)).join('\n')}\n`)
  archive.file(
    join(to, 'modules.alias'),
    `${aliases.filter(line => names.has(line.split(' ').at(-1)!.replaceAll('-', '_'))).join('\n')}\n`,
  )
}

export interface Job {
  readonly kernel: string
  /** A shell script that runs as root in the repository. */
  readonly script: string
  /** What begins each word of the VM's own in its output. */
  readonly mark: string
  /** The first process becomes systemd, which `SYSTEMD` is a tree of. */
  readonly systemd: boolean
}

export function jobLayer(job: Job): Buffer[] {
  const archive = new Cpio()
  addModules(archive, job.kernel)
  const dir = join(VM, `kernel-${job.kernel}`)
  archive.file(
    `/boot/config-${readFileSync(join(dir, 'version'), 'utf8').trim()}`,
    readFileSync(join(dir, 'config')),
  )
  archive.file('/init', readFileSync(join(__dirname, 'init.sh')), 0o755)
  archive.file('/job/mark', job.mark)
  if (job.systemd) {
    archive.file('/job/systemd', readFileSync(join(__dirname, 'systemd.sh')))
    archive.file('/job/first', `exec /bin/sh /job/systemd ${quoted(join(ROOT, SYSTEMD))} ${quoted(ROOT)}\n`)
  }
  archive.file(
    '/job/run',
    [
      `export HOME=/root LANG=C.UTF-8 BPFTOKEN_TEST_VM=${quoted(job.kernel)}`,
      `export NODE_OPTIONS=${quoted(`--require "${join(ROOT, 'node_modules/tsx/require.cjs')}"`)}`,
      `cd ${quoted(ROOT)}`,
      `${job.script}\n`,
    ].join('\n'),
  )
  return archive.finish()
}

/** A word of a shell. */
export function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`
}
