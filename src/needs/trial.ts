/**
 * Which rights an object turns out to need when it is loaded: what the kernel refuses without is
 * added, and what it loads without is left out. Pure: how an object is loaded under just these
 * rights is the caller's business.
 *
 * Masks are known from the file, since each command asks for its bits. What the verifier wants
 * besides depends on the values that it finds on its way, so capabilities are what is tried.
 */

import { neededCapabilities, type Right } from '../ebpf/rights.ts'
import { CAPABILITIES, type Capability } from '../policy/policy.ts'
import type { Masks } from '../policy/vocabulary.ts'
import type { CapabilityName } from '../uapi/constants.ts'
import type { ObjectNeed } from './object.ts'

/** Exactly what is lent for one load. */
export interface TrialRights {
  readonly masks: Masks
  readonly capabilities: readonly Capability[]
}

/** How one load ended. */
export type TrialAnswer =
  | { readonly ok: true }
  | {
      readonly ok: false
      /** One line. */
      readonly message: string
      /** The verifier's own: the reason, and the instruction; where it was the verifier. */
      readonly verifier?: string
      /** The program that was refused. */
      readonly program?: string
      /** Bits that the token did not lend, where that was it. */
      readonly missing?: readonly Right[]
      /** Capabilities that the workload did not have, where that was it. */
      readonly capabilities?: readonly CapabilityName[]
      /** A module whose types could not be opened. */
      readonly module?: string
    }

/** Undefined: the time is over. */
export type TryLoad = (rights: TrialRights) => Promise<TrialAnswer | undefined>

/** What a load asked for beyond the plan, and in which words. */
export interface Evidence {
  readonly by: string
  readonly capability?: Capability
  readonly right?: Right
}

export interface Trial {
  /** Whether it loads, under the rights that come of this. */
  readonly outcome: 'loads' | 'refused' | 'unfinished'
  readonly loads: number
  readonly added: readonly Evidence[]
  /** Capabilities without which it loads, although the file looks as if it needed them. */
  readonly dropped: readonly Capability[]
  /** Why it does not load. */
  readonly why?: string
}

/** No object needs as many, unless each of its programs is refused for another reason. */
const MAX_LOADS = 24

/** In the order of what they let a workload do. */
const FOR_THE_VERIFIER: readonly Capability[] = ['perfmon', 'net_admin', 'sys_admin']

/** `perfmon` for CAP_PERFMON; undefined: no policy lends it. */
export function capabilityWord(name: CapabilityName): Capability | undefined {
  return CAPABILITIES.find(one => `CAP_${one.toUpperCase()}` === name)
}

/** Capabilities that the kernel asks for by type of program and map, before it looks further. */
export function capabilitiesByType(needs: readonly ObjectNeed[]): ReadonlySet<Capability> {
  const names = needs.flatMap(({ need }) => neededCapabilities(need))
  return new Set<Capability>(['bpf', ...names.flatMap(name => capabilityWord(name) ?? [])])
}

export interface TrialStart {
  readonly rights: TrialRights
  /** Not left out, since the kernel's own tables say so. */
  readonly proven: ReadonlySet<Capability>
  /** The right to open types by id, as the kernel numbers it. */
  readonly openTypes: Right
}

/** Loads until it knows. */
export async function tryRights(start: TrialStart, load: TryLoad): Promise<Trial> {
  return await new Trying(start, load).run()
}

/** The load that was asked for is not made any more. */
class OutOfTime extends Error {}

class Trying {
  readonly #start: TrialStart
  readonly #load: TryLoad
  #masks: Masks
  #capabilities: readonly Capability[]
  #loads = 0
  readonly #added: Evidence[] = []
  readonly #dropped: Capability[] = []
  /** It was refused without this one alone, and nothing has been added since. */
  #proven: Capability | undefined

  constructor(start: TrialStart, load: TryLoad) {
    this.#start = start
    this.#load = load
    this.#masks = start.rights.masks
    this.#capabilities = start.rights.capabilities
  }

  async run(): Promise<Trial> {
    try {
      const why = await this.#untilItLoads()
      if (why !== undefined) return { ...this.#soFar('refused'), added: [], why }
      await this.#leaveOut()
      return this.#soFar('loads')
    } catch (error) {
      if (!(error instanceof OutOfTime)) throw error
      return this.#soFar('unfinished')
    }
  }

  #soFar(outcome: Trial['outcome']): Trial {
    return { outcome, loads: this.#loads, added: this.#added, dropped: this.#dropped }
  }

  async #answer(capabilities: readonly Capability[] = this.#capabilities): Promise<TrialAnswer> {
    if (this.#loads === MAX_LOADS) throw new OutOfTime()
    this.#loads++
    const answer = await this.#load({ masks: this.#masks, capabilities })
    if (answer === undefined) throw new OutOfTime()
    return answer
  }

  /** Undefined once it loads; else why it does not. */
  async #untilItLoads(): Promise<string | undefined> {
    let answer = await this.#answer()
    while (!answer.ok) {
      const { missing = [], capabilities = [], module, verifier, message } = answer
      const words = capabilities.flatMap(name => capabilityWord(name) ?? [])
      if (module !== undefined && !this.#has(this.#start.openTypes)) {
        const by = `types of module ${JSON.stringify(module)}, which are opened by id (Linux 6.15)`
        this.#addRight(this.#start.openTypes, by)
        this.#addCapability('sys_admin', by)
        this.#proven = undefined
        answer = await this.#answer()
      } else if (missing.length > 0 || words.length > 0) {
        for (const right of missing) this.#addRight(right, `refused without: ${message}`)
        for (const word of words) this.#addCapability(word, `refused without: ${message}`)
        // Of several, one may stand in for another.
        this.#proven = missing.length === 0 && words.length === 1 ? words[0] : undefined
        answer = await this.#answer()
      } else {
        if (verifier === undefined) return message
        const next = await this.#afterCapability(answer)
        if (next === undefined) return message
        answer = next
      }
    }
    return undefined
  }

  /** The first capability with which the verifier comes further; undefined: none. */
  async #afterCapability(refused: Exclude<TrialAnswer, { ok: true }>): Promise<TrialAnswer | undefined> {
    for (const name of FOR_THE_VERIFIER) {
      if (this.#capabilities.includes(name)) continue
      const answer = await this.#answer([...this.#capabilities, name])
      if (!answer.ok && answer.verifier === refused.verifier && answer.program === refused.program) continue
      const program =
        refused.program === undefined ? 'a program' : `program ${JSON.stringify(refused.program)}`
      this.#addCapability(name, `${program}: the verifier says: ${refused.verifier}`)
      this.#proven = name
      return answer
    }
    return undefined
  }

  #has({ domain, bit }: Right): boolean {
    return ((this.#masks[domain] >> BigInt(bit)) & 1n) === 1n
  }

  #addRight(right: Right, by: string): void {
    if (this.#has(right)) throw new OutOfTime()
    const mask = this.#masks[right.domain] | (1n << BigInt(right.bit))
    this.#masks = { ...this.#masks, [right.domain]: mask }
    this.#added.push({ right, by })
  }

  #addCapability(capability: Capability, by: string): void {
    if (this.#capabilities.includes(capability)) return
    this.#capabilities = [...this.#capabilities, capability]
    this.#added.push({ capability, by })
  }

  /** One after the other, as often as one is found to be needless. */
  async #leaveOut(): Promise<void> {
    for (const name of this.#capabilities) {
      if (this.#start.proven.has(name)) continue
      if (this.#proven === name) continue
      const rest = this.#capabilities.filter(one => one !== name)
      if (!(await this.#answer(rest)).ok) continue
      this.#capabilities = rest
      const at = this.#added.findIndex(one => one.capability === name)
      if (at === -1) this.#dropped.push(name)
      else this.#added.splice(at, 1)
    }
  }
}
