/**
 * Where what is native lies: `build/Release`, where it was compiled on this machine, else
 * `prebuilds/linux-ARCH`, which the package brings (scripts/prebuilds.sh). native/build.sh makes
 * both.
 */
import { existsSync } from 'node:fs'
import path from 'node:path'
import { NotSupportedError } from '../errors.ts'

const PACKAGE = path.resolve(__dirname, '../..')

/** The addon that suits this Node and its C library. NotSupportedError: there is none. */
export function loadAddon(): unknown {
  try {
    return require('node-gyp-build')(PACKAGE)
  } catch (error) {
    throw new NotSupportedError(`There is no addon for this Node (linux-${process.arch})`, {
      context: { arch: process.arch, node: process.versions.node, reason: (error as Error).message },
      hint: 'Run npm rebuild bpftoken: it is compiled, or what that takes is said',
    })
  }
}

/**
 * The program that becomes the workload of a sandbox, and watches over it.
 */
export function launcherPath(): string {
  return programPath('bpftoken-launch')
}

/**
 * The program that is `run` for an ordinary user, and the front of the command: native/run.
 */
export function frontPath(): string {
  return programPath('bpftoken-run')
}

/** The program that does what delegating takes, see executor.ts. */
export function executorPath(): string {
  return programPath('bpftoken-executor')
}

function programPath(name: string): string {
  const built = path.join(PACKAGE, 'build/Release', name)
  return existsSync(built) ? built : path.join(PACKAGE, `prebuilds/linux-${process.arch}`, name)
}
