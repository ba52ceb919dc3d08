/**
 * The default seccomp profile of a container runtime on this machine, and the profile that we make
 * of it.
 */
import { randomBytes } from 'node:crypto'
import { existsSync, lstatSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { ConflictError, NotFoundError, UsageError } from '../errors.ts'
import type { SeccompFact } from '../needs/format/container.ts'
import type { RightsPlan } from '../needs/plan.ts'
import {
  allowing,
  letsThrough,
  neededCalls,
  parseSeccompProfile,
  type SeccompProfile,
} from '../needs/seccomp.ts'
import { hintFor } from '../uapi/hints.ts'
import { readInput } from './input-file.ts'

/**
 * Docker's own profile is inside its program and in no file. Docker accepts Podman's, which was
 * made of it. A daemon.json may name this file.
 */
const PLACES = {
  podman: ['/etc/containers/seccomp.json', '/usr/share/containers/seccomp.json'],
  docker: ['/etc/docker/seccomp.json', '/etc/containers/seccomp.json', '/usr/share/containers/seccomp.json'],
} as const

export type ProfileOwner = keyof typeof PLACES

const BOUNDS = { what: 'seccomp profile', maxBytes: 1 << 20, hint: 'Name a profile of Docker or Podman' }

interface Base {
  readonly file: string
  readonly profile: SeccompProfile
}

/** Undefined: there is none. */
function defaultProfile(owner: ProfileOwner): Base | undefined {
  const file = PLACES[owner].find(existsSync)
  return file === undefined ? undefined : readProfile(file)
}

function readProfile(file: string): Base {
  return { file, profile: parseSeccompProfile(readInput(file, BOUNDS).toString()) }
}

/** What the default profile of that runtime does with the plan's calls. */
export function seccompOf(plan: RightsPlan, owner: ProfileOwner): SeccompFact {
  const base = defaultProfile(owner)
  if (base === undefined) return { is: 'unknown' }
  const capabilities = plan.capabilities.map(({ name }) => name)
  const allowed = neededCalls(plan).every(call => letsThrough(base.profile, call, capabilities))
  return { is: allowed ? 'allowed' : 'refused', from: base.file }
}

/**
 * Writes a profile in `path`, out of `from` or of that runtime's default. A plain file there is
 * replaced. NotFoundError: there is none to make it of; UsageError: the path cannot be part of a
 * line; ConflictError: something else than a plain file is there.
 */
export function writeProfile(
  plan: RightsPlan,
  owner: ProfileOwner,
  { path, from }: { path: string; from?: string | undefined },
): SeccompFact {
  if (/\p{C}/u.test(path)) throw new UsageError('--seccomp-profile has characters that cannot be printed')
  const base = from === undefined ? defaultProfile(owner) : readProfile(from)
  if (base === undefined)
    throw new NotFoundError(`There is no default seccomp profile in ${PLACES[owner].join(', ')}`, {
      hint: "Name one with --seccomp-base; https://github.com/containers/common has Podman's in pkg/seccomp",
    })
  const made = resolve(path)
  try {
    replacePlain(made, `${JSON.stringify(allowing(base.profile, neededCalls(plan)), null, '\t')}\n`)
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code === undefined || code.startsWith('BPFTOKEN_')) throw cause
    throw new NotFoundError(`Cannot write the seccomp profile "${made}": ${code}`, {
      context: { file: made, errno: code },
      hint: hintFor('open', code) ?? 'Name a file in a directory that you may write to',
      cause,
    })
  }
  return { is: 'made', path: made, from: base.file }
}

/**
 * Writes all or nothing. Whatever is at the path is neither opened nor followed, and only a plain
 * file is replaced.
 */
function replacePlain(path: string, text: string): void {
  const there = lstatSync(path, { throwIfNoEntry: false })
  if (there !== undefined && !there.isFile())
    throw new ConflictError(`Cannot write the seccomp profile "${path}": it is no plain file`, {
      context: { file: path },
      hint: 'Name a file, or one that is not there yet',
    })
  const beside = `${path}.${randomBytes(8).toString('hex')}.new`
  try {
    writeFileSync(beside, text, { flag: 'wx' })
    renameSync(beside, path)
  } catch (error) {
    rmSync(beside, { force: true })
    throw error
  }
}
