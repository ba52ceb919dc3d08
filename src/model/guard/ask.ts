/** bpf(2) on a machine with the guard: the kernel's checks, with the guard asked where they ask it. */
import { hasBit } from '../../policy/vocabulary.ts'
import { type BpfCall, decide } from '../decide.ts'
import type { Decision, ErrnoName } from '../judge.ts'
import type { LsmHook, Machine } from '../machine.ts'
import type { MapCreate } from '../map-create.ts'
import type { ProgLoad } from '../prog-load.ts'
import { MODEL_CAPABILITIES, type ModelCapability } from '../task.ts'
import type { TokenCreate } from '../token.ts'
import type {
  Actor,
  Delegation,
  Guard,
  GuardCall,
  GuardMap,
  GuardProgram,
  GuardToken,
  LoadedProgram,
  MadeMap,
} from './guard.ts'
import type { GuardVerdict } from './verdict.ts'

/** What a call came to, and what the guard has on record of what it made. */
export interface Asked<Made> {
  readonly decision: Decision
  /** What the guard has refused on the way: the call itself, or the use of the token. */
  readonly said?: GuardVerdict & { readonly refused: true }
  /** Absent: nothing was made. */
  readonly made?: Made
}

/** What the calls have in common. */
export interface Asker {
  readonly guard: Guard
  readonly machine: Machine
  readonly actor: Actor
  /** The guard's record of the token that the call names, if it names one. */
  readonly token?: GuardToken
}

type Lsm = Partial<Record<LsmHook, ErrnoName>>
type Refusal = GuardVerdict & { readonly refused: true }

/** One call on its way. */
class Way {
  readonly #asker: Asker
  readonly #lsm: Lsm
  #lends: ReadonlySet<ModelCapability> | undefined
  said: Refusal | undefined

  constructor(asker: Asker) {
    this.#asker = asker
    this.#lsm = { ...asker.machine.lsm }
  }

  decide(call: BpfCall): Decision {
    const { machine, actor } = this.#asker
    const lends = this.#lends
    const lsm: Lsm =
      lends === undefined || this.#lsm.bpf_token_capable !== undefined
        ? this.#lsm
        : { ...this.#lsm, bpf_token_capable: 'EPERM' }
    const lsmLends = lends === undefined ? machine.lsmLends : lends
    return decide({ ...machine, lsm, ...(lsmLends === undefined ? {} : { lsmLends }) }, actor.task, call)
  }

  /** Writes down what the guard says at a hook. */
  at(hook: LsmHook, verdict: GuardVerdict): void {
    if (!verdict.refused) return
    this.said = verdict
    this.#lsm[hook] = verdict.errno
  }

  /** The hook `bpf`: each call passes it, unless seccomp has ended it. */
  begins(command: GuardCall): void {
    const { guard, actor } = this.#asker
    if (actor.task.seccomp === undefined) this.at('bpf', guard.command(actor, command))
  }

  /** Whether the token is used, and for which of the capabilities that the call needs it stands. */
  usesToken(call: BpfCall): GuardToken | undefined {
    const { guard, actor, token, machine } = this.#asker
    const file = 'token' in call && call.token?.flag === true ? call.token.file : undefined
    if (token === undefined || file?.kind !== 'token' || this.#lsm.bpf !== undefined) return undefined
    const bit = machine.kernel.vocabulary.cmds.bitOfName.get(call.op)!
    if (!hasBit(file.token.masks.cmds, bit)) return undefined
    this.at('bpf_token_cmd', guard.tokenCmd(token, actor))
    if (this.#lsm.bpf_token_cmd !== undefined) return undefined
    const all = new Set<ModelCapability>(MODEL_CAPABILITIES)
    const lent = new Set(all)
    for (const capability of MODEL_CAPABILITIES) {
      this.#lends = all
      const outcome = this.decide(call).errno
      this.#lends = new Set([...all].filter(one => one !== capability))
      // A capability that makes no difference is not asked for.
      if (this.decide(call).errno === outcome) continue
      const verdict = guard.tokenCapable(token, capability)
      if (!verdict.refused) continue
      lent.delete(capability)
      this.said = verdict
      break
    }
    this.#lends = lent
    return token
  }
}

function ends<Made>(way: Way, decision: Decision, made?: Made): Asked<Made> {
  const { said } = way
  const isWhy = said !== undefined && decision.errno !== undefined
  return {
    decision,
    ...(isWhy ? { said } : {}),
    ...(made === undefined || decision.errno !== undefined ? {} : { made }),
  }
}

/** Any other command, at the hook `bpf` alone. */
export function askCommand(asker: Asker, call: BpfCall, command: GuardCall): Asked<never> {
  const way = new Way(asker)
  way.begins(command)
  way.usesToken(call)
  return ends(way, way.decide(call))
}

/** `mount`, `place`: see Guard.tokenCreate. */
export function askToken(
  asker: Asker,
  call: TokenCreate,
  through: { readonly delegation?: Delegation; readonly mount: object; readonly place?: string },
  cmd: number,
): Asked<GuardToken> {
  const { guard, actor } = asker
  const way = new Way(asker)
  way.begins({ cmd })
  const first = way.decide(call)
  if (first.errno !== undefined || call.bpffs.kind !== 'bpffs') return ends(way, first)
  const ns = call.bpffs.instance.userNamespace
  const { verdict, token } = guard.tokenCreate(through.delegation, actor, ns, through.mount, through.place)
  way.at('bpf_token_create', verdict)
  return ends(way, way.decide(call), token)
}

export function askMap(asker: Asker, call: MapCreate, made: MadeMap, cmd: number): Asked<GuardMap> {
  const { guard, actor } = asker
  const way = new Way(asker)
  way.begins({ cmd })
  const token = way.usesToken(call)
  const first = way.decide(call)
  if (first.errno !== undefined) return ends(way, first)
  const { verdict, map } = guard.mapCreate(actor, isUsed(first.checks, token), made)
  way.at('bpf_map_create', verdict)
  const decision = way.decide(call)
  if (decision.errno !== undefined && !verdict.refused) guard.mapFreed(map)
  return ends(way, decision, map)
}

export function askProg(
  asker: Asker,
  call: ProgLoad,
  loaded: LoadedProgram,
  cmd: number,
): Asked<GuardProgram> {
  const { guard, actor } = asker
  const way = new Way(asker)
  way.begins({ cmd })
  const token = way.usesToken(call)
  const { verifier: _, ...unverified } = call
  const first = way.decide(unverified)
  if (first.errno !== undefined) return ends(way, first)
  const { verdict, program } = guard.progLoad(actor, isUsed(first.checks, token), loaded)
  way.at('bpf_prog_load', verdict)
  if (way.decide(call).errno === undefined) way.at('bpf_prog', guard.openProgram(actor, program))
  const decision = way.decide(call)
  // The kernel has put it on record before the verifier looked.
  if (decision.errno !== undefined && !verdict.refused) guard.programFreed(program)
  return ends(way, decision, program)
}

/** The token, where no check of the kernel's has dropped it: one without an errno of its own that failed. */
function isUsed(checks: Decision['checks'], token: GuardToken | undefined): GuardToken | undefined {
  const dropped = checks.some(
    ({ rule, passed }) =>
      !passed && (rule.source.startsWith('bpf_token_allow') || rule.name.startsWith('token:')),
  )
  return dropped ? undefined : token
}
