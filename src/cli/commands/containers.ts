/** bpftoken containers: has Podman call our hook, looks whether it does, and undoes that. */
import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { z } from 'zod'
import type { containersStatus } from '../../api/container.ts'
import { DEFAULT_SOCKET } from '../../client/client.ts'
import { BpftokenError, ConflictError, DeniedError, EXIT } from '../../errors.ts'
import { containerHook } from '../../lending/container-hook.ts'
import { systemProgram } from '../../lending/program-path.ts'
import { ask } from '../../lending/recipient/system-program.ts'
import { daemonIfAny, namedSocket, type SocketOptions } from '../daemon/reach.ts'
import { HOOK_FILE, HOOKS_D, hookDocument, hooksDirs, readIfThere, unsafeProgram } from '../hooks-d.ts'
import { note, print, printJson, warn } from '../output.ts'
import { isRoot } from '../privilege.ts'

interface Options extends SocketOptions {
  json?: boolean
  hooksDir?: string
}

type Status = z.output<typeof containersStatus>

function requireRoot(what: string): void {
  if (isRoot()) return
  throw new DeniedError(`containers ${what} needs root: it is about what root's runtimes call`, {
    hint: 'Run it with sudo',
  })
}

export async function install(options: Options): Promise<number> {
  requireRoot('install')
  const program = containerHook()
  const unsafe = unsafeProgram(program)
  if (unsafe !== undefined)
    throw new ConflictError(`Root's containers must not call ${program}: ${unsafe}`, {
      context: { program },
      hint: 'Install bpftoken where root alone may write: the Debian package, or npm install --global as root',
    })
  const folder = options.hooksDir ?? HOOKS_D
  const file = join(folder, HOOK_FILE)
  const text = hookDocument(program, options.socket ?? namedSocket())
  const before = readIfThere(file)
  if (before !== text) {
    mkdirSync(folder, { recursive: true, mode: 0o755 })
    // Whole or not at all, whenever Podman reads it. It takes names that end with .json alone.
    writeFileSync(`${file}.new`, text, { mode: 0o644 })
    renameSync(`${file}.new`, file)
  }
  if (options.json !== true)
    print(before === text ? `${file} is there already` : `${file} has Podman call ${program}`)
  return tell(await statusOf(options), options)
}

export async function remove(options: Options): Promise<number> {
  requireRoot('remove')
  const file = join(options.hooksDir ?? HOOKS_D, HOOK_FILE)
  const was = readIfThere(file) !== undefined
  rmSync(file, { force: true })
  if (options.json === true) printJson(await statusOf(options))
  else {
    print(was ? `${file} is gone` : `There is no ${file}`)
    note('Containers that ask by annotation start without a loan now; what is lent goes on')
  }
  return EXIT.ok
}

/** Exit 1: containers that ask would not be lent to, and why. */
export async function status(options: Options): Promise<number> {
  return tell(await statusOf(options), options)
}

function tell(found: Status, { json }: Options): number {
  if (json === true) printJson(found)
  else {
    const { hook, podman } = found
    print(
      `hook: ${hook.installed ? `${hook.file} calls ${hook.program}` : 'not installed'}`,
      `Podman: ${podman ?? 'none is found'}`,
    )
    for (const problem of found.problems) warn(problem)
  }
  return found.problems.length === 0 ? EXIT.ok : EXIT.failed
}

async function statusOf(options: Options): Promise<Status> {
  const folder = options.hooksDir ?? HOOKS_D
  const file = join(folder, HOOK_FILE)
  const text = readIfThere(file)
  const { program, socket } = calledIn(text)
  const podman = await podmanVersion()
  const problems = [
    ...hookProblems(file, text, program),
    ...(podman === undefined ? ['Podman is not installed, or does not answer'] : []),
    ...folderProblems(folder),
    ...socketProblems(file, program && (socket ?? DEFAULT_SOCKET), options.socket ?? namedSocket()),
    ...(await daemonProblems(options.socket ?? socket)),
  ]
  return {
    hook: { file, installed: text !== undefined, ...(program === undefined ? {} : { program }) },
    ...(podman === undefined ? {} : { podman }),
    problems,
  }
}

/** What the file has Podman call, and which daemon that asks. */
function calledIn(text: string | undefined): { program?: string; socket?: string } {
  try {
    const { hook } = JSON.parse(text ?? '{}') as { hook?: { path?: unknown; args?: unknown } }
    const args: unknown[] = Array.isArray(hook?.args) ? hook.args : []
    const socket = args.includes('--socket') ? args[args.indexOf('--socket') + 1] : undefined
    return {
      ...(typeof hook?.path === 'string' ? { program: hook.path } : {}),
      ...(typeof socket === 'string' ? { socket } : {}),
    }
  } catch {
    return {}
  }
}

function hookProblems(file: string, text: string | undefined, program: string | undefined): string[] {
  if (text === undefined)
    return [`There is no ${file}: containers that ask start without a loan (bpftoken containers install)`]
  if (program === undefined) return [`${file} is not as we write it: bpftoken containers install`]
  const unsafe = unsafeProgram(program)
  return [
    ...(unsafe === undefined ? [] : [`Root's containers must not call ${program}: ${unsafe}`]),
    ...(program === containerHook()
      ? []
      : [
          `${file} calls ${program}, not the hook of this version, ${containerHook()}: bpftoken containers install`,
        ]),
  ]
}

/** `asked`: where the hook asks, if there is one. */
function socketProblems(file: string, asked: string | undefined, named: string | undefined): string[] {
  return asked === undefined || named === undefined || asked === named
    ? []
    : [`${file} has the hook ask at ${asked}, not at ${named}: bpftoken containers install`]
}

/** Podman says nowhere which folders it reads; its configuration does, or else it is the usual one. */
function folderProblems(folder: string): string[] {
  const { configured } = hooksDirs()
  if (configured === undefined)
    return folder === HOOKS_D
      ? []
      : [`Podman reads ${HOOKS_D} alone, unless hooks_dir of containers.conf names ${folder}`]
  return configured.folders.includes(folder)
    ? []
    : [
        `${configured.file} says that Podman reads ${configured.folders.join(' and ') || 'no folder'}: name ${folder} in hooks_dir, or one of these with --hooks-dir`,
      ]
}

async function podmanVersion(): Promise<string | undefined> {
  const podman = systemProgram('podman')
  if (podman === undefined) return undefined
  try {
    return (await ask(podman, ['--version'])).trim()
  } catch (error) {
    if (error instanceof BpftokenError) return undefined
    throw error
  }
}

async function daemonProblems(socket: string | undefined): Promise<string[]> {
  try {
    using daemon = await daemonIfAny(socket === undefined ? {} : { socket })
    if (daemon !== undefined) return []
  } catch (error) {
    if (!(error instanceof BpftokenError)) throw error
    return [`${error.message}: containers that ask do not start`]
  }
  return ['No daemon answers: containers that ask do not start (systemctl enable --now bpftokend.socket)']
}
