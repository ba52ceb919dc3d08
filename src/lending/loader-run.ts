/**
 * A loader's program, run once under exactly some rights: in user, mount and network namespaces of its
 * own, held before its first instruction until they are lent and whoever watches it has begun.
 */
import type { Readable } from 'node:stream'
import { delegate } from '../delegation/delegate.ts'
import { planCgroup } from '../delegation/rest.ts'
import { type Exit, Sandbox, type SandboxSpec } from '../delegation/sandbox.ts'
import { openTarget } from '../delegation/target.ts'
import { NotSupportedError } from '../errors.ts'
import type { Guard } from '../guard/guard.ts'
import type { Capability } from '../policy/policy.ts'
import type { Masks, Vocabulary } from '../policy/vocabulary.ts'
import { trialPolicy } from './trial-policy.ts'

export interface LoaderRun {
  readonly command: readonly [string, ...string[]]
  readonly env: NodeJS.ProcessEnv
  /** An ordinary user of the host. */
  readonly uid: number
  readonly gid: number
  readonly vocabulary: Vocabulary
  /** Undefined: none is installed. */
  readonly guard: Guard | undefined
  /** Aborting it ends what runs, and leaves nothing. */
  readonly signal: AbortSignal
  readonly masks: Masks
  readonly capabilities: readonly Capability[]
  readonly timeoutMs: number
}

export interface LoaderEnd {
  /** Undefined: it did not end in time, and was killed. */
  readonly exit: Exit | undefined
  /** What it said on standard error, the last of it. */
  readonly said: string
}

const MAX_SAID = 64 * 1024

/**
 * Runs it to its end; `held` gets its process number before it runs. Nothing of it is left then.
 * Errors are those of `Sandbox.start`, `delegate` and `Sandbox.release`; the signal's reason once it
 * is aborted.
 */
export async function runLoader(run: LoaderRun, held: (pid: number) => void): Promise<LoaderEnd> {
  const { command, env, uid, gid, masks, capabilities, guard, vocabulary, signal, timeoutMs } = run
  signal.throwIfAborted()
  using sandbox = await Sandbox.start({
    ...{ command, env, uid, gid, capabilities, network: 'own' },
    stdio: ['ignore', 'ignore', 'pipe'],
    ...ownCgroup({ uid, gid }),
  })
  using target = openTarget(sandbox.pid)
  const policy = trialPolicy(masks, capabilities)
  using lender = guard?.lend(policy, { executorOnly: true })
  await delegate(policy, target, vocabulary, { guard: lender, signal })
  try {
    const said = lastOf(sandbox.child.stderr!)
    held(sandbox.pid)
    await sandbox.release()
    const exit = await withinTime(sandbox.exited, timeoutMs, signal)
    signal.throwIfAborted()
    if (exit !== undefined) await sandbox.ended()
    return { exit, said: said() }
  } finally {
    lender?.revoke()
  }
}

/** So that nothing of it lives on, where that can be. */
function ownCgroup(user: { readonly uid: number; readonly gid: number }): Partial<SandboxSpec> {
  try {
    return { killRest: true, cgroup: planCgroup(user) }
  } catch (error) {
    if (error instanceof NotSupportedError) return {}
    throw error
  }
}

function lastOf(stream: Readable): () => string {
  let text = ''
  stream.setEncoding('utf8').on('data', (more: string) => {
    text = (text + more).slice(-MAX_SAID)
  })
  return () => text
}

/** Undefined: time is over, or the signal came. */
function withinTime(
  exited: Promise<Exit>,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<Exit | undefined> {
  return new Promise(resolve => {
    const done = (exit?: Exit): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', none)
      resolve(exit)
    }
    const none = (): void => done()
    const timer = setTimeout(none, timeoutMs)
    signal.addEventListener('abort', none)
    void exited.then(done)
  })
}
