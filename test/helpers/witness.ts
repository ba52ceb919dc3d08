/** Programs on other people's libraries, which scripts/build-witnesses.sh builds into .cache. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { execute } from './cli.ts'
import { CACHE, needsProgram, needsTokens } from './machine.ts'
import { SID, sidCommand } from './sid.ts'

export const WITNESSES = join(CACHE, 'witnesses')

/** `{ skip: reason }` where it could not be built. */
export function needsWitness(name: string): { skip?: string } {
  const machine = needsTokens()
  if (machine.skip !== undefined || existsSync(join(WITNESSES, name))) return machine
  const why = join(WITNESSES, 'why-not')
  const reason = existsSync(why) ? readFileSync(why, 'utf8').trim() : 'run scripts/build-witnesses.sh'
  return { skip: `.cache/witnesses/${name} is missing: ${reason}` }
}

/** Versions of the unmodified programs that tests run in containers, by name. */
export async function versionsOfPrograms(): Promise<Map<string, string>> {
  const found = new Map<string, string>()
  if (needsProgram('sid/usr/sbin/xdp-loader').skip === undefined) {
    const { stdout } = await execute('sh', ['-c', `${sidCommand('bpftool')} version`])
    found.set('bpftool', /\d+\.\d+[\w.]*/.exec(stdout)?.[0] ?? 'of sid')
    // It does not say its version itself.
    const changes = gunzipSync(readFileSync(join(SID, 'usr/share/doc/xdp-tools/changelog.Debian.gz')))
    found.set('xdp-loader', /\(([^)]+)\)/.exec(changes.toString())?.[1] ?? 'of sid')
  }
  if (needsWitness('versions').skip === undefined)
    for (const line of readFileSync(join(WITNESSES, 'versions'), 'utf8').trim().split('\n')) {
      const [name, version] = line.split(' ')
      found.set(name!, version!)
    }
  return found
}

/**
 * A shell script that runs such a program, which stays until it can read no more, and looks at the
 * loopback device meanwhile and after it. It ends with 0 if the program has attached, and took it
 * off as it ended. `command` and `ip` are words of a shell; /tmp must be writable.
 */
export function untilAttached(command: string, ip: string): string {
  return `mkfifo /tmp/stay
{ ${command} </tmp/stay >/tmp/said; echo ended >>/tmp/said; } &
exec 3>/tmp/stay
until grep -Eq 'attached|ended' /tmp/said; do sleep 0.05; done
grep -q attached /tmp/said || exit 1
${ip} link show dev lo | grep -q prog/xdp || { echo 'nothing is on the device' >&2; exit 2; }
exec 3>&-
wait
! ${ip} link show dev lo | grep -q prog/xdp || { echo 'it stays on the device' >&2; exit 3; }
echo attached
`
}
