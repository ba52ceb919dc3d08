/**
 * CO-RE: puts the offsets, sizes and numbers of the running kernel into a program's instructions.
 * Pure.
 *
 * A program is compiled against its own idea of the kernel's types. For each relocation the
 * kernel's types of the same name, without flavour, are candidates; those that have what is asked
 * for must agree on the number. Where none has it, the instruction becomes a call that no kernel
 * knows: harmless where the program looks first, and else refused. Rules: libbpf `src/relo_core.c`
 * (LGPL-2.1 or BSD-2-Clause). Start with `CoreResolver.apply`.
 */
import { ConflictError, FormatError } from '../../errors.ts'
import { bpf_core_relo_kind as KIND } from '../../uapi/bpf.ts'
import type { Btf, BtfType } from '../btf/btf.ts'
import { essentialName } from '../btf/names.ts'
import type { CoreRelo } from '../object/ext-info.ts'
import { type CoreAccess, describeAccess, matchFields, matchValue, parseAccess, subjectOf } from './access.ts'
import { CoreMatcher } from './match.ts'
import { POISON, patchInstruction } from './patch.ts'
import { CANDIDATE_WORK, CoreTypes, coreError, kindsFit } from './types.ts'
import { type CoreAnswer, type CoreValue, coreValue } from './value.ts'

/** Types to resolve against. */
export interface CoreTarget {
  /** `vmlinux` or a module's name. */
  readonly name: string
  readonly types: Btf
}

/** What became of one relocation. */
export interface CoreOutcome {
  /** Of the instruction in the code that was patched. */
  readonly slot: number
  readonly relo: CoreRelo
  /** `byte offset of struct task_struct___x::pid` */
  readonly what: string
  readonly poisoned: boolean
  /** Why it is poisoned, where it is not that the kernel has no such thing. */
  readonly reason?: string
}

interface Candidate {
  readonly name: string
  readonly types: CoreTypes
  readonly matcher: CoreMatcher
  readonly id: number
}

const ASPECTS: Readonly<Record<number, string>> = {
  [KIND.BPF_CORE_FIELD_BYTE_OFFSET]: 'byte offset',
  [KIND.BPF_CORE_FIELD_BYTE_SIZE]: 'byte size',
  [KIND.BPF_CORE_FIELD_EXISTS]: 'existence',
  [KIND.BPF_CORE_FIELD_SIGNED]: 'signedness',
  [KIND.BPF_CORE_FIELD_LSHIFT_U64]: 'left shift',
  [KIND.BPF_CORE_FIELD_RSHIFT_U64]: 'right shift',
  [KIND.BPF_CORE_TYPE_ID_LOCAL]: 'own type id',
  [KIND.BPF_CORE_TYPE_ID_TARGET]: 'type id',
  [KIND.BPF_CORE_TYPE_EXISTS]: 'existence',
  [KIND.BPF_CORE_TYPE_SIZE]: 'size',
  [KIND.BPF_CORE_TYPE_MATCHES]: 'match',
  [KIND.BPF_CORE_ENUMVAL_EXISTS]: 'existence',
  [KIND.BPF_CORE_ENUMVAL_VALUE]: 'value',
}

/** Resolves the relocations of one object; remembers candidates and answers between programs. */
export class CoreResolver {
  readonly #local: CoreTypes
  readonly #vmlinux: CoreTarget
  readonly #modules: () => readonly CoreTarget[]
  readonly #opened = new Map<Btf, { types: CoreTypes; matcher: CoreMatcher }>()
  readonly #candidates = new Map<number, readonly Candidate[]>()
  /** The same, by module, name and kind, before a relocation narrowed them. */
  readonly #namesakes = new Map<string, readonly Candidate[]>()
  readonly #answers = new Map<string, CoreAnswer>()

  /**
   * `local`: the object's types. `modules` is called when vmlinux has no type of a name that is
   * asked for.
   */
  constructor(local: Btf, vmlinux: CoreTarget, modules: () => readonly CoreTarget[] = () => []) {
    this.#local = new CoreTypes(local)
    this.#vmlinux = vmlinux
    this.#modules = modules
  }

  /**
   * Patches `code`, little-endian instructions, in place; `slotOff` is where the function of the
   * relocations begins in it. Throws FormatError where a relocation makes no sense or does not fit
   * its instruction, ConflictError where candidates disagree. `program` is for these messages.
   */
  apply(code: Uint8Array, relos: readonly CoreRelo[], program: string, slotOff = 0): CoreOutcome[] {
    return relos.map((relo, number) => {
      try {
        const answer = this.#answer(relo)
        const slot = relo.slot + slotOff
        const { poisoned, reason } = patchInstruction(code, slot, answer)
        const why = reason === undefined ? {} : { reason }
        return { slot, relo, what: answer.what, poisoned, ...why }
      } catch (error) {
        throw withPlace(error, program, number, relo)
      }
    })
  }

  #answer(relo: CoreRelo): CoreAnswer {
    const key = `${relo.kind} ${relo.typeId} ${relo.access}`
    let answer = this.#answers.get(key)
    if (answer === undefined) {
      answer = this.#resolve(relo)
      this.#answers.set(key, answer)
    }
    return answer
  }

  #resolve(relo: CoreRelo): CoreAnswer {
    const access = parseAccess(this.#local, relo)
    const what = `${ASPECTS[relo.kind]} of ${describeAccess(access)}`
    // There is a number wherever there is an access.
    const local = coreValue(relo.kind, access)!
    if (relo.kind === KIND.BPF_CORE_TYPE_ID_LOCAL) return { what, local, target: local, resizable: true }

    const candidates = this.#candidatesOf(relo.typeId)
    const found: { candidate: Candidate; access: CoreAccess; value: CoreValue }[] = []
    for (const candidate of candidates) {
      candidate.types.work(CANDIDATE_WORK)
      const matched = matchCandidate(relo.kind, access, candidate)
      const value = matched && coreValue(relo.kind, matched)
      if (matched === undefined || value === undefined) continue
      const one = { candidate, access: matched, value }
      const first = found[0]
      if (
        first !== undefined &&
        (first.access.bitOff !== matched.bitOff || first.value.value !== value.value)
      )
        throw ambiguous(what, first, one)
      found.push(one)
    }
    const first = found[0]
    if (first === undefined)
      return { what, local, target: coreValue(relo.kind, undefined), resizable: local.accessBytes === 0 }
    // As libbpf: later relocations of the type see only the candidates that had what the earlier
    // ones asked for.
    this.#candidates.set(
      relo.typeId,
      found.map(one => one.candidate),
    )
    const resizable =
      local.accessBytes === first.value.accessBytes ||
      keepsValue(access.types, local.accessType, first.access.types, first.value.accessType)
    return { what, local, target: first.value, resizable }
  }

  #candidatesOf(typeId: number): readonly Candidate[] {
    let candidates = this.#candidates.get(typeId)
    if (candidates === undefined) {
      const type = typeId === 0 ? undefined : this.#local.btf.type(typeId)
      if (type === undefined || type.name === '')
        throw coreError(`type id ${typeId} has no name to look for in the kernel`)
      candidates = this.#named(this.#vmlinux, type)
      if (candidates.length === 0) candidates = this.#modules().flatMap(target => this.#named(target, type))
      this.#candidates.set(typeId, candidates)
    }
    return candidates
  }

  /** Types of the same name in one BTF, without what it has from its base. */
  #named(target: CoreTarget, local: BtfType): readonly Candidate[] {
    let opened = this.#opened.get(target.types)
    if (opened === undefined) {
      const types = new CoreTypes(target.types)
      opened = { types, matcher: new CoreMatcher(this.#local, types) }
      this.#opened.set(target.types, opened)
    }
    const { types, matcher } = opened
    const name = essentialName(local.name)
    const key = `${target.name} ${local.kind} ${name}`
    let found = this.#namesakes.get(key)
    if (found === undefined) {
      found = target.types
        .findFlavours(name)
        .filter(id => kindsFit(local, target.types.type(id)))
        .map(id => ({ name: target.name, types, matcher, id }))
      this.#namesakes.set(key, found)
    }
    return found
  }
}

function matchCandidate(kind: number, local: CoreAccess, candidate: Candidate): CoreAccess | undefined {
  const { types, matcher, id } = candidate
  switch (subjectOf(kind)) {
    case 'field':
      return matchFields(local, types, id)
    case 'value':
      return matchValue(local, types, id)
    case 'type': {
      const fits =
        kind === KIND.BPF_CORE_TYPE_MATCHES
          ? matcher.matches(local.root, id)
          : matcher.compatible(local.root, id)
      return fits ? { types, root: id, steps: [], bitOff: 0 } : undefined
    }
  }
}

/**
 * Whether a value of another size, extended by zeroes to 64 bits, stays the same: pointers and
 * unsigned integers. As libbpf, which takes signed characters and booleans for unsigned.
 */
function keepsValue(local: CoreTypes, localId: number, target: CoreTypes, targetId: number): boolean {
  const a = local.resolve(localId)
  const b = target.resolve(targetId)
  if (a?.kind === 'ptr' && b?.kind === 'ptr') return true
  const isUnsigned = (type: BtfType | undefined) =>
    type?.kind === 'int' && !(type.signed && !type.char && !type.bool)
  return isUnsigned(a) && isUnsigned(b)
}

type Found = { candidate: Candidate; access: CoreAccess; value: CoreValue }

function ambiguous(what: string, a: Found, b: Found): ConflictError {
  const say = ({ candidate, access, value }: Found) =>
    `${value.value} by type ${candidate.id} of ${candidate.name} (at bit ${access.bitOff})`
  return new ConflictError(`${what} is ambiguous in this kernel: ${say(a)}, ${say(b)}`, {
    hint: 'Give the type of the program a member that only one of them has, or another name',
  })
}

function withPlace(error: unknown, program: string, number: number, relo: CoreRelo): unknown {
  const place = `program "${program}", CO-RE relocation ${number} at instruction ${relo.slot}`
  if (error instanceof FormatError) {
    const cause = error.message.replace(/^CO-RE: /, '')
    return new FormatError('CO-RE', `${place}: ${cause}`, { cause: error, hint: error.hint })
  }
  if (error instanceof ConflictError)
    return new ConflictError(`${place}: ${error.message}`, { cause: error, hint: error.hint })
  return error
}

/** `5: (85) call unknown#195896080`, `invalid func unknown#195896080`. */
const CALLED = /(?:^(\d+): \(85\) call|invalid func) unknown#(\d+)/

/**
 * For a verifier log that ended at a poisoned instruction: a sentence that names what the kernel
 * has not. Undefined: it ended elsewhere.
 */
export function explainPoison(log: readonly string[], outcomes: readonly CoreOutcome[]): string | undefined {
  const poisoned = outcomes.filter(outcome => outcome.poisoned)
  let slot: number | undefined
  let ended = false
  for (const line of log.flatMap(text => text.split('\n'))) {
    const [, at, helper] = CALLED.exec(line.trim()) ?? []
    if (helper === undefined) continue
    ended = Number(helper) === POISON
    if (at !== undefined) slot = Number(at)
  }
  if (!ended) return undefined
  // A constant takes two slots, and both were made invalid. Of a cut log, the slot may be missing.
  const outcome = poisoned.find(one => one.slot === slot || one.slot + 1 === slot) ?? poisoned[0]
  if (outcome === undefined) return undefined
  const [aspect, subject] = splitOnce(outcome.what, ' of ')
  if (outcome.reason !== undefined) return `"${subject}" cannot be accessed in this kernel: ${outcome.reason}`
  return `"${subject}" does not exist in this kernel, and the program needs its ${aspect} without asking for its existence first`
}

function splitOnce(text: string, by: string): [string, string] {
  const at = text.indexOf(by)
  return [text.slice(0, at), text.slice(at + by.length)]
}
