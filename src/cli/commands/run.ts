/** bpftoken run: a program in its own namespaces, with a delegation in place before it starts. */

import { constants } from 'node:os'
import { describeAction } from '../../delegation/actions.ts'
import { quoted } from '../../ebpf/printable.ts'
import { EXIT, SyscallError, UsageError } from '../../errors.ts'
import { accounts } from '../../lending/accounts.ts'
import { HeldProgram, prepareRun } from '../../lending/run.ts'
import { tellVerdict } from '../admission.ts'
import { refuseLost, workloadEnvironment } from '../environment.ts'
import { reportError } from '../failure-report.ts'
import { installedGuard } from '../installed-guard.ts'
import { Interrupted } from '../interrupted.ts'
import { requirePath } from '../mount-path.ts'
import { note, print, printJson } from '../output.ts'
import { loadPolicy, loadVocabulary } from '../policy-file.ts'
import { isRoot } from '../privilege.ts'
import type { RunOptions } from '../run-options.ts'
import { type HostUser, resolveUser } from '../user.ts'
import { runAsUser } from './run-as-user.ts'

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
  if (!isRoot()) return runAsUser(command, options)
  // Fail closed: what the daemon was to do is not done without it. The front knows all that it does.
  if (options.socket !== undefined)
    throw new UsageError('No daemon is asked here, and --socket names one', {
      hint: 'Name a policy that the daemon has, and see that it runs; or leave out --socket',
    })
  if (options.apart === true)
    throw new UsageError('--apart is for ordinary users: what root runs is in namespaces of root already', {
      hint: 'Leave out --apart',
    })
  const vocabulary = await loadVocabulary()
  const policy = await loadPolicy(options.policy, vocabulary)
  using guard = await installedGuard()
  const user = resolveUser(options.user, process.env)
  const network = options.hostNet === true ? 'host' : 'own'
  const prepared = prepareRun({
    ...{ policy, vocabulary, accounts, guard },
    path: options.path,
    anySubject: options.anySubject,
    program: {
      command: command as [string, ...string[]],
      ...{ uid: user.uid, gid: user.gid, network },
      capabilities: options.cap ?? [],
      identity: options.identity === true ? 'same' : 'root',
      killRest: options.killRest === true,
      stopTogether: true,
      env: environmentFor(command, user, options),
    },
  })
  const record = tellVerdict(prepared.verdict)

  // From here on a signal must not leave a half-made loan: the signal ends the program, and
  // everything ends with the program.
  using signals = holdSignals()
  using program = await HeldProgram.start(prepared)
  signals.toProgram(program)
  if (options.dryRun === true) {
    const { capabilities } = prepared
    const actions = program.actions()
    if (options.json === true) printJson({ user, network, capabilities, command, actions, ...record })
    else {
      print(
        `as ${user.name} (${user.uid}:${user.gid}), ${network} network, capabilities inside: ${capabilities.join(', ')}`,
      )
      for (const action of actions) print(`  ${describeAction(action)}`)
      print(`  run ${command.join(' ')}`)
    }
    return EXIT.ok
  }
  await program.lend({ signal: signals.abort.signal })
  for (const path of prepared.unenforced) note(`without the guard nothing enforces ${path}`)
  // From here on signals are for the program. Until the launcher has become the program, they kill
  // the launcher.
  signals.abort.signal.throwIfAborted()
  signals.released = true
  try {
    const { inRoot } = await program.release()
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
  const { code, signal } = await program.ended()
  return code ?? 128 + constants.signals[signal!]
}

/** UsageError: a word or a variable cannot be passed on as it was given. */
function environmentFor(command: readonly string[], user: HostUser, options: RunOptions): NodeJS.ProcessEnv {
  const { path } = options
  requirePath(path)
  for (const [i, word] of command.entries())
    refuseLost(word, i === 0 ? 'the name of the program' : `its argument ${i}`)
  refuseLost(path, '--path')
  return workloadEnvironment(process.env, {
    user,
    tokenPath: path,
    named: options.env,
    keep: options.keepEnv,
  })
}

function cannotRun(name: string, { call, errno, errnoName, hint }: SyscallError): SyscallError {
  return new SyscallError({ call, errno, errnoName, object: name }, { hint })
}

export interface HeldSignals extends Disposable {
  readonly abort: AbortController
  /** Once the program runs, signals are its own business. */
  released: boolean
  toProgram(program: HeldProgram): void
}

export function holdSignals(): HeldSignals {
  let target: HeldProgram | undefined
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
    toProgram(program) {
      target = program
    },
    [Symbol.dispose]() {
      for (const remove of handlers) remove()
    },
  }
  return held
}

/** The terminal sends these to the whole foreground group, and the program is in it. */
function isTyped(signal: NodeJS.Signals): boolean {
  return signal === 'SIGINT' || signal === 'SIGQUIT' || signal === 'SIGWINCH'
}
