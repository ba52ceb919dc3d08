/**
 * Asks a program of the system what it knows: without a shell and without our environment.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { lstatSync } from 'node:fs'
import { getPriority, setPriority } from 'node:os'
import { FormatError, NotSupportedError, TimeoutError } from '../../errors.ts'
import { passNothingOn } from '../../sys/inheritance.ts'
import { SYSTEM_PATH } from '../program-path.ts'
import type { Owner } from './found.ts'

const TIMEOUT_MS = 30_000
/** Ten thousand containers, as Podman lists them. */
const MAX_ANSWER_BYTES = 16 << 20
const MAX_COMPLAINT_BYTES = 4096

/**
 * What the program answers on its standard output. With `owner`, it runs as that user, in a session
 * of its own: it obeys that user's configuration, and must come neither to our terminal nor to our
 * keys and descriptors.
 * NotSupportedError: it fails; TimeoutError: it does not end; FormatError: it says too much.
 */
export function ask(program: string, args: readonly string[], owner?: Owner): Promise<string> {
  if (owner !== undefined) passNothingOn()
  const child = started(() =>
    spawn(program, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      cwd: '/',
      detached: true,
      env: { PATH: SYSTEM_PATH, LC_ALL: 'C', ...homeOf(owner) },
      ...(owner === undefined ? {} : { uid: owner.uid, gid: owner.gid }),
    }),
  )
  const context = { program }
  return new Promise((resolve, reject) => {
    const answer: Buffer[] = []
    let answerBytes = 0
    let complaint = ''
    const giveUp = (error: Error): void => {
      clearTimeout(timer)
      endGroup(child)
      child.stdout.destroy()
      child.stderr.destroy()
      reject(error)
    }
    const timer = setTimeout(
      () => giveUp(new TimeoutError(`${program} has not answered in ${TIMEOUT_MS / 1000} s`, { context })),
      TIMEOUT_MS,
    )
    child.stdout.on('data', (bytes: Buffer) => {
      answer.push(bytes)
      answerBytes += bytes.length
      if (answerBytes > MAX_ANSWER_BYTES)
        giveUp(new FormatError(program, `it answers with more than ${MAX_ANSWER_BYTES} bytes`, { context }))
    })
    child.stderr.on('data', (bytes: Buffer) => {
      complaint = (complaint + bytes.toString()).slice(-MAX_COMPLAINT_BYTES)
    })
    child.once('error', error => giveUp(failed(program, error.message)))
    child.once('close', (status, signal) => {
      clearTimeout(timer)
      if (status === 0) resolve(Buffer.concat(answer).toString())
      else reject(failed(program, complaint.trim().split('\n').at(-1) || `it ended with ${signal ?? status}`))
    })
  })
}

function failed(program: string, why: string): NotSupportedError {
  return new NotSupportedError(`${program} does not answer: ${why}`, {
    context: { program },
    reason: 'names-unavailable',
  })
}

/** What a rootless program finds its files by. Root has none: its files lie in fixed places. */
function homeOf(owner: Owner | undefined): NodeJS.ProcessEnv {
  if (owner === undefined) return { HOME: '/root' }
  const runtime = runtimeDirectory(owner)
  return {
    HOME: owner.home,
    USER: owner.name,
    LOGNAME: owner.name,
    ...(runtime === undefined ? {} : { XDG_RUNTIME_DIR: runtime }),
  }
}

/** Of a user who is logged in, or lingers; undefined where there is none of theirs. */
export function runtimeDirectory({ uid }: Owner): string | undefined {
  const path = `/run/user/${uid}`
  const found = lstatSync(path, { throwIfNoEntry: false })
  return found?.isDirectory() === true && found.uid === uid ? path : undefined
}

/**
 * It leads a group of its own. Once it has been waited for, its number may be that of another
 * group: what is left of its own can then be named by nobody, and is left alone.
 */
function endGroup({ pid, exitCode, signalCode }: ChildProcess): void {
  if (pid === undefined || exitCode !== null || signalCode !== null) return
  try {
    process.kill(-pid, 'SIGKILL')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

const UMASK = 0o022

/**
 * What `start` starts gets the usual umask, and no better precedence than users may give
 * themselves. Ours are as before afterwards, where we may raise our precedence again.
 */
function started<T>(start: () => T): T {
  const umask = process.umask(UMASK)
  const nice = getPriority()
  try {
    if (nice < 0) setPriority(0)
    return start()
  } finally {
    process.umask(umask)
    if (nice < 0) raiseAgain(nice)
  }
}

function raiseAgain(nice: number): void {
  try {
    setPriority(nice)
  } catch (error) {
    // Without CAP_SYS_NICE. Nothing here depends on it.
    const { code, info } = error as { code?: string; info?: { code?: string } }
    if (!['EACCES', 'EPERM'].includes(info?.code ?? code ?? '')) throw error
  }
}
