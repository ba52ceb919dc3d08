/**
 * Running: a program is started in namespaces of its own, with a loan in place before its first
 * instruction.
 */
import type { Writable } from 'node:stream'
import type { Action } from '../delegation/actions.ts'
import { planFor } from '../delegation/delegate.ts'
import { type Exit, type Released, Sandbox, type SandboxSpec } from '../delegation/sandbox.ts'
import { type Accounts, subjectToRun } from '../delegation/subject.ts'
import { openTarget, type Target } from '../delegation/target.ts'
import type { Guard } from '../guard/guard.ts'
import { requireGuard, requireNetworkAllowed } from '../policy/conditions.ts'
import type { Allowed } from '../policy/decide.ts'
import type { Policy } from '../policy/policy.ts'
import type { Vocabulary } from '../policy/vocabulary.ts'
import { type AdmissionOptions, admit } from './admission.ts'
import type { Loan } from './journal.ts'
import { type Making, makeLoan } from './loan.ts'

export interface RunRequest extends AdmissionOptions {
  readonly policy: Policy
  readonly vocabulary: Vocabulary
  readonly accounts: Accounts
  /** Undefined: none is installed. */
  readonly guard: Guard | undefined
  /** Where the loan is mounted inside. */
  readonly path: string
  /** As in a SandboxSpec; its capabilities are those of the policy, and these. */
  readonly program: SandboxSpec
}

/** A program that may be run so. */
export interface PreparedRun {
  readonly request: RunRequest
  readonly verdict: Allowed
  readonly capabilities: readonly string[]
  /** Fields of the policy that nobody holds to: there is no guard, and the policy goes without. */
  readonly unenforced: readonly string[]
}

/**
 * Judges, and does nothing. DeniedError: the policy is not for this program, or not for the host's
 * network. NotSupportedError: it needs a guard.
 */
export function prepareRun(request: RunRequest): PreparedRun {
  const { policy, vocabulary, accounts, guard, program } = request
  const unenforced = requireGuard(policy, guard !== undefined)
  if (program.network === 'host') requireNetworkAllowed(policy, vocabulary)
  const { uid, gid, command } = program
  const subject = subjectToRun({ uid, gid, program: command[0] }, policy, accounts)
  const verdict = admit(policy, subject, request)
  const capabilities = [...new Set([...policy.rights.capabilities, ...program.capabilities])]
  return { request, verdict, capabilities, unenforced }
}

/** A program that waits before its first instruction, then runs. The caller disposes of it. */
export class HeldProgram implements Disposable {
  readonly #prepared: PreparedRun
  readonly #sandbox: Sandbox
  readonly #target: Target

  private constructor(prepared: PreparedRun, sandbox: Sandbox, target: Target) {
    this.#prepared = prepared
    this.#sandbox = sandbox
    this.#target = target
  }

  /** Makes its namespaces. Errors are those of `Sandbox.start`. */
  static async start(prepared: PreparedRun): Promise<HeldProgram> {
    const { capabilities, request } = prepared
    const sandbox = await Sandbox.start({ ...request.program, capabilities })
    try {
      return new HeldProgram(prepared, sandbox, openTarget(sandbox.pid))
    } catch (error) {
      sandbox[Symbol.dispose]()
      throw error
    }
  }

  /** Whether the program stays in the session of our terminal, whose Ctrl-C it gets without us. */
  get sharesTerminal(): boolean {
    return this.#sandbox.sharesTerminal
  }

  /** Its standard input, where the request says that it is a pipe. */
  get stdin(): Writable | null {
    return this.#sandbox.stdin
  }

  /** What `lend` would do, as data. */
  actions(): Action[] {
    const { policy, path, guard } = this.#prepared.request
    return planFor(policy, this.#target, path, guard && { ability: policy.name })
  }

  /** Puts the loan in place: before `release`, or the program runs without. */
  lend(how: Making = {}): Promise<Loan> {
    const { request, verdict, capabilities } = this.#prepared
    const { policy, vocabulary, guard, path, program } = request
    const { command, uid, gid, network } = program
    const facts = {
      target: this.#target.facts,
      place: { path },
      ...{ policy, verdict, guarded: guard !== undefined },
      program: { command, uid, gid, network, capabilities },
    }
    return makeLoan({ facts, target: this.#target, vocabulary, guard }, how)
  }

  /**
   * Lets it run; resolves once it does. SyscallError `execve`: it cannot be executed; ENOENT: there
   * is none.
   */
  release(): Promise<Released> {
    return this.#sandbox.release()
  }

  /** Resolves once it has ended: see `Sandbox.ended`. */
  ended(): Promise<Exit> {
    return this.#sandbox.ended()
  }

  /** Passes a signal on to it: see `Sandbox.signal`. */
  signal(signal: NodeJS.Signals): void {
    this.#sandbox.signal(signal)
  }

  /** Kills it if it still runs; the loan goes with its namespaces. */
  [Symbol.dispose](): void {
    this.#target[Symbol.dispose]()
    this.#sandbox[Symbol.dispose]()
  }
}
