/**
 * Where native code lies: in `build/Release` if it was compiled on this machine, else in
 * `prebuilds/linux-ARCH`, which the package brings (scripts/prebuilds.sh). native/build.sh makes
 * both.
 *
 * No variable of the environment has a say in it: this process may be root's, and whoever set the
 * variable need not be.
 */
import { existsSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { NotSupportedError } from '../errors.ts'

const PACKAGE = path.resolve(__dirname, '../..')
const BUILT = path.join(PACKAGE, 'build/Release')
const PREBUILT = path.join(PACKAGE, `prebuilds/linux-${process.arch}`)

/** The addon that suits this Node and its C library. NotSupportedError: there is none. */
export function loadAddon(): unknown {
  try {
    return require(addonPath())
  } catch (error) {
    const [reason] = (error as Error).message.split('\n')
    throw new NotSupportedError(`There is no addon for this Node (linux-${process.arch})`, {
      context: { arch: process.arch, node: process.versions.node, reason },
      hint: 'Run npm rebuild bpftoken: it is compiled, or what that takes is said',
    })
  }
}

function addonPath(): string {
  const built = path.join(BUILT, 'bpftoken.node')
  if (existsSync(built)) return built
  return path.join(PREBUILT, `node.napi.${cLibrary(ownMaps())}.node`)
}

function ownMaps(): string {
  try {
    return readFileSync('/proc/self/maps', 'utf8')
  } catch {
    return '' // A sandbox without /proc: most systems have glibc.
  }
}

/** The C library that a process is linked with, by the files that are mapped in it. Pure. */
export function cLibrary(maps: string): 'glibc' | 'musl' {
  return /\/ld-musl-[\w-]+\.so/.test(maps) ? 'musl' : 'glibc'
}

/** The program that becomes the workload of a sandbox, and watches over it. */
export function launcherPath(): string {
  return programPath('bpftoken-launch')
}

/**
 * The program that is `run` for an ordinary user, and the front of the command: native/run.
 */
export function frontPath(): string {
  return programPath('bpftoken-run')
}

/** What starts programs of users for the daemon, in namespaces of root's: native/launchd. */
export function launchdPath(): string {
  return programPath('bpftoken-launchd')
}

/** What a container runtime calls while it makes a container: native/hook. */
export function hookPath(): string {
  return programPath('bpftoken-hook')
}

/** The runtime that has another one call that hook, for engines that know no hooks: native/runc. */
export function runtimePath(): string {
  return programPath('bpftoken-runc')
}

/** What a command is run by whose processes are to be looked at: see record/held-command.ts. */
export function holderPath(): string {
  return programPath('bpftoken-hold')
}

/** The program that makes delegations, see executor/executor.ts. */
export function executorPath(): string {
  return programPath('bpftoken-executor')
}

function programPath(name: string): string {
  const built = path.join(BUILT, name)
  return existsSync(built) ? built : path.join(PREBUILT, name)
}
