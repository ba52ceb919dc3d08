/**
 * The file by which Podman, and whatever reads the same folder, calls our hook: oci-hooks(5). And what
 * keeps it from doing that.
 */
import { existsSync, lstatSync, readdirSync, readFileSync, realpathSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { ANNOTATIONS } from '../api/container-words.ts'

/** Podman reads this folder by default, and no folder of the same name in /etc. */
export const HOOKS_D = '/usr/share/containers/oci/hooks.d'
export const HOOK_FILE = '50-bpftoken.json'

/** `socket`: where the daemon listens, where that is not its usual place. */
export function hookDocument(program: string, socket: string | undefined): string {
  const document = {
    version: '1.0.0',
    hook: {
      path: program,
      args: ['bpftoken-hook', ...(socket === undefined ? [] : ['--socket', socket])],
    },
    // Containers that ask for nothing are not looked at.
    when: { annotations: { [`^${ANNOTATIONS.replace('.', '\\.')}`]: '.*' } },
    stages: ['createRuntime'],
  }
  return `${JSON.stringify(document, null, 2)}\n`
}

/** Undefined: there is no such file. */
export function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

/**
 * Why root's runtime must not run this program: there is none, or somebody else could put another in
 * its place. Undefined: it may.
 */
export function unsafeProgram(path: string): string | undefined {
  // Where a link leads, whoever may change a folder there decides, too.
  if (existsSync(path) && realpathSync(path) !== path)
    return `a symbolic link leads to it; it is ${realpathSync(path)}`
  for (let at = path; ; at = dirname(at)) {
    const facts = at === path ? statSync(at, { throwIfNoEntry: false }) : lstatSync(at)
    if (facts === undefined) return `there is no ${at}`
    if (facts.uid !== 0) return `${at} belongs to user ${facts.uid}, not to root`
    const open = (facts.mode & 0o022) !== 0
    const sticky = facts.isDirectory() && (facts.mode & 0o1000) !== 0
    if (open && !sticky) return `others than root may write to ${at}`
    if (at === path && (facts.mode & 0o111) === 0) return `${at} is not executable`
    if (at === '/') return undefined
  }
}

/** Where it is configured, later files count before earlier ones: containers.conf(5). */
const CONFIGURATIONS = ['/usr/share/containers/containers.conf', '/etc/containers/containers.conf'] as const

export interface HooksDirs {
  /** Undefined: Podman reads the folder that it reads by default. */
  readonly configured: { readonly file: string; readonly folders: readonly string[] } | undefined
}

/** By its configuration; `root` is where that lies, for tests. */
export function hooksDirs(root = '/'): HooksDirs {
  const files = CONFIGURATIONS.flatMap(file => [file, ...partsOf(root, `${file}.d`)])
  for (const file of files.reverse()) {
    const text = readIfThere(join(root, file))
    const folders = text === undefined ? undefined : hooksDirIn(text)
    if (folders !== undefined) return { configured: { file, folders } }
  }
  return { configured: undefined }
}

/** In the order of their names. */
function partsOf(root: string, folder: string): string[] {
  if (!existsSync(join(root, folder))) return []
  const names = readdirSync(join(root, folder)).filter(name => name.endsWith('.conf'))
  return names.sort().map(name => join(folder, name))
}

/** The list `hooks_dir` of the configuration's TOML; a comment is none. Undefined: it is not set. */
export function hooksDirIn(text: string): string[] | undefined {
  const plain = text.split('\n').filter(line => !line.trimStart().startsWith('#'))
  const [, list] = /\n[ \t]*hooks_dir\s*=\s*\[([^\]]*)\]/.exec(`\n${plain.join('\n')}`) ?? []
  if (list === undefined) return undefined
  return [...list.matchAll(/"([^"]*)"|'([^']*)'/g)].map(([, double, single]) => double ?? single!)
}
