/** bpftoken run: a program in its own namespaces, with a delegation in place before it starts. */
import { constants } from 'node:os'
import { describeAction } from '../../delegation/actions.ts'
import { delegate, planFor, requireGuard, requireNetworkAllowed } from '../../delegation/delegate.ts'
import { Sandbox } from '../../delegation/sandbox.ts'
import { subjectToRun } from '../../delegation/subject.ts'
import { openTarget } from '../../delegation/target.ts'
import { quoted } from '../../ebpf/printable.ts'
import { SyscallError } from '../../errors.ts'
import { accounts } from '../accounts.ts'
import { type AdmissionOptions, admit, recordOf } from '../admission.ts'
import { refuseLost, workloadEnvironment } from '../environment.ts'
import { reportError } from '../failure-report.ts'
import { installedGuard } from '../installed-guard.ts'
import { Interrupted } from '../interrupted.ts'
import { requirePath } from '../mount-path.ts'
import { note, print, printJson } from '../output.ts'
import { loadPolicy, loadVocabulary } from '../policy-file.ts'
import { requireRoot } from '../privilege.ts'
import { resolveUser } from '../user.ts'

export interface RunOptions extends AdmissionOptions {
  policy: string
  user?: string
  hostNet?: boolean
  path: string
  cap?: string[]
  identity?: boolean
  env?: string[]
  keepEnv?: boolean
  killRest?: boolean
  dryRun?: boolean
  json?: boolean
}

/**
 * Signals that are passed on. From a terminal that it shares SIGINT and SIGQUIT reach the program
 * without us.
 */
const FORWARDED = [
  'SIGINT',
  'SIGQUIT',
  'SIGTERM',
  'SIGHUP',
  'SIGUSR1',
  'SIGUSR2',
  'SIGCONT',
  'SIGWINCH',
] as const

export async function run(command: string[], options: RunOptions): Promise<number> {
  requireRoot('bpftoken run')
  const vocabulary = await loadVocabulary()
  const policy = await loadPolicy(options.policy, vocabulary)
  const installed = await installedGuard()
  using guard = installed?.guard
  const unenforced = requireGuard(policy, installed?.holds)
  const network = options.hostNet === true ? 'host' : 'own'
  if (network === 'host') requireNetworkAllowed(policy, vocabulary)
  const user = resolveUser(options.user, process.env)
  const subject = subjectToRun({ ...user, program: command[0]! }, policy, accounts)
  const record = recordOf(admit(policy, subject, options))
  const capabilities = [...new Set([...policy.rights.capabilities, ...(options.cap ?? [])])]
  requirePath(options.path)
  for (const [i, word] of command.entries())
    refuseLost(word, i === 0 ? 'the name of the program' : `its argument ${i}`)
  refuseLost(options.path, '--path')
  const env = workloadEnvironment(process.env, {
    user,
    tokenPath: options.path,
    named: options.env,
    keep: options.keepEnv,
  })

  // From here on a signal must not leave a half-made loan: it ends the sandbox, and all goes with
  // it.
  using signals = holdSignals()
  using sandbox = await Sandbox.start({
    command: command as [string, ...string[]],
    uid: user.uid,
    gid: user.gid,
    network,
    capabilities,
    identity: options.identity === true ? 'same' : 'root',
    killRest: options.killRest === true,
    stopTogether: true,
    env,
  })
  signals.toSandbox(sandbox)
  using target = openTarget(sandbox.pid)
  if (options.dryRun === true) {
    const actions = planFor(policy, target, options.path, guard && { ability: policy.name })
    if (options.json === true) printJson({ user, network, capabilities, command, actions, ...record })
    else {
      print(
        `as ${user.name} (${user.uid}:${user.gid}), ${network} network, capabilities inside: ${capabilities.join(', ')}`,
      )
      for (const action of actions) print(`  ${describeAction(action)}`)
      print(`  run ${command.join(' ')}`)
    }
    return 0
  }
  {
    using lender = guard?.lend(policy)
    await delegate(policy, target, vocabulary, {
      path: options.path,
      signal: signals.abort.signal,
      guard: lender,
    })
  }
  for (const path of unenforced) note(`without the guard nothing enforces ${path}`)
  // From here on signals are for the program; the launcher, until it has become it, dies of them.
  signals.abort.signal.throwIfAborted()
  signals.released = true
  try {
    const { inRoot } = await sandbox.release()
    if (inRoot) note(`${user.name} may not enter the working directory: the program starts in /`)
  } catch (error) {
    // As env(1) and shells do: 127 not found, 126 found but not executable.
    if (error instanceof SyscallError && error.call === 'execve') {
      const name = quoted(command[0]!)
      if (options.json === true) reportError(cannotRun(name, error), true)
      else note(`cannot run ${name}: ${error.errnoName}`)
      return error.errnoName === 'ENOENT' ? 127 : 126
    }
    throw error
  }
  const { code, signal } = await sandbox.ended()
  return code ?? 128 + constants.signals[signal!]
}

function cannotRun(name: string, { call, errno, errnoName, hint }: SyscallError): SyscallError {
  return new SyscallError({ call, errno, errnoName, object: name }, { hint })
}

export interface HeldSignals extends Disposable {
  readonly abort: AbortController
  /** Once the program runs, signals are its own business. */
  released: boolean
  toSandbox(sandbox: Sandbox): void
}

export function holdSignals(): HeldSignals {
  let target: Sandbox | undefined
  const handlers = FORWARDED.map(signal => {
    const handler = (): void => {
      if (!held.released && signal !== 'SIGCONT' && signal !== 'SIGWINCH')
        held.abort.abort(new Interrupted(signal))
      else if (target?.sharesTerminal !== true || !isTyped(signal)) target?.signal(signal)
    }
    process.on(signal, handler)
    return () => process.off(signal, handler)
  })
  const held: HeldSignals = {
    abort: new AbortController(),
    released: false,
    toSandbox(sandbox) {
      target = sandbox
    },
    [Symbol.dispose]() {
      for (const remove of handlers) remove()
    },
  }
  return held
}

/** The terminal sends these to the whole foreground group, of which the program is one. */
function isTyped(signal: NodeJS.Signals): boolean {
  return signal === 'SIGINT' || signal === 'SIGQUIT' || signal === 'SIGWINCH'
}
