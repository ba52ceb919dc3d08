/**
 * A machine with the newest systemd, on which bpftokend is installed as its package installs it:
 * with exactly its units. Node and this build are shown there.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { PACKAGE } from '../../scripts/installed.ts'
import { CLI, type Result } from './cli.ts'
import { ROOT } from './machine.ts'
import { SidSystemd } from './sid-systemd.ts'

export const UNIT = 'bpftokend.service'
export const UNITS = join(ROOT, 'packaging/systemd')
/** Where the package lies on that machine. */
const LIBRARY = 'usr/lib/bpftoken'

const program = (main: string): string => `#!/bin/busybox sh\nexec /usr/bin/node /${LIBRARY}/${main} "$@"\n`

export const PROGRAMS = ['usr/sbin/bpftokend', 'usr/bin/bpftoken']

/** The units, and programs that start what lies in /usr/lib/bpftoken. */
export function installedFiles(): Record<string, string | Uint8Array> {
  return {
    'usr/sbin/bpftokend': program('dist/daemon/main.js'),
    'usr/bin/bpftoken': program('dist/cli/main.js'),
    ...Object.fromEntries(
      ['bpftokend.service', 'bpftokend.socket'].map(name => [
        `etc/systemd/system/${name}`,
        readFileSync(join(UNITS, name)),
      ]),
    ),
  }
}

export interface DaemonMachine {
  readonly systemd: SidSystemd
  /** Runs a command of this machine there. It reaches the daemon by its socket. */
  bpftoken(...words: readonly string[]): Promise<Result>
}

/**
 * Starts it with these files. `shown` are paths of this machine that are visible there. The caller
 * awaits `systemd.stop`.
 */
export async function daemonMachine({
  files = {},
  programs = [],
  shown = {},
}: {
  readonly files?: Readonly<Record<string, string | Uint8Array>>
  /** Those of the files that are programs. */
  readonly programs?: readonly string[]
  readonly shown?: Readonly<Record<string, string>>
} = {}): Promise<DaemonMachine> {
  const systemd = await SidSystemd.start(
    { ...installedFiles(), ...files },
    {
      programs: [...PROGRAMS, ...programs],
      shown: { [LIBRARY]: PACKAGE, 'usr/bin/node': process.execPath, ...shown },
    },
  )
  return { systemd, bpftoken: (...words) => systemd.execute(process.execPath, CLI, ...words) }
}
