/**
 * Changes to the model, one at a time, and which of them no case has told from it yet. A mutant is
 * one rule inverted, one rule that always passes, one rule with another errno, one word on a list or
 * off it, or two rules that are neighbours in some case and change places.
 */
import type { Check, Decision, Mutation } from '../../../src/model/judge.ts'
import type { KernelFacts } from '../../../src/model/kernel.ts'
import { KERNEL_LISTS, KERNEL_RULES } from '../../../src/model/rules.ts'
import type { Vocabulary } from '../../../src/policy/vocabulary.ts'

export interface Mutant {
  readonly name: string
  readonly mutation: Mutation
}

/** What came of some mutants, by their names. */
export interface Fates {
  readonly noticed: readonly string[]
  readonly left: readonly string[]
  /** Neighbours that no case tells apart in the other order, since they fail with the same errno. */
  readonly sameErrno: readonly string[]
  /** Neighbours of which the second one is not asked where the first one fails. */
  readonly dependent: readonly string[]
}

function nameOf(mutation: Mutation): string {
  if (mutation.kind === 'member') return `${mutation.list}: ${mutation.word}`
  if (mutation.kind === 'swap') return `swap ${mutation.first} / ${mutation.second}`
  return `${mutation.kind} ${mutation.rule}`
}

function ofRules(): Mutation[] {
  return KERNEL_RULES.flatMap(({ name, errno }) =>
    (['invert', 'pass', 'errno'] as const)
      // A rule without an errno lets the call go on, or takes that of whoever refuses.
      .filter(kind => kind !== 'errno' || errno !== undefined)
      .map(kind => ({ kind, rule: name })),
  )
}

/** Each word taken off its list; and of map types and program types each other one put on it. */
function ofLists({ vocabulary }: KernelFacts): Mutation[] {
  const known = { map: words(vocabulary.maps), program: words(vocabulary.progs) }
  return KERNEL_LISTS.flatMap(list => {
    const kind = list.name.split(' ')[0]!
    const all = new Set([...list.words, ...(kind === 'map' || kind === 'program' ? known[kind] : [])])
    return [...all].map(word => ({ kind: 'member' as const, list: list.name, word }))
  })
}

function words({ bitOfName }: Vocabulary['maps']): string[] {
  return [...bitOfName.keys()].filter(word => word !== 'unspec').map(word => word.replace(/_deprecated$/, ''))
}

const ERRNO_OF = new Map(KERNEL_RULES.map(({ name, errno }) => [name, errno]))

function isSameErrno(mutation: Mutation): boolean {
  if (mutation.kind !== 'swap') return false
  const errno = ERRNO_OF.get(mutation.first)
  return errno !== undefined && errno === ERRNO_OF.get(mutation.second)
}

const saidBy = (decisions: readonly Decision[]): string => decisions.map(({ errno }) => errno ?? 'ok').join()

export class Mutants {
  readonly #open = new Map<string, Mutant>()
  readonly #noticed = new Set<string>()
  readonly #before: ReadonlySet<string>
  /** Names of rules that some check has told, and of those that have ended a call. */
  readonly #told = new Set<string>()
  readonly #ending = new Set<string>()
  readonly #followers = new Map<string, Set<string>>()
  /** Swaps of which the second rule was asked where the first one failed. */
  readonly #bothAsked = new Set<string>()

  /** `before`: those that were noticed elsewhere, and are not tried again. */
  constructor(kernel: KernelFacts, before: ReadonlySet<string>) {
    this.#before = before
    for (const mutation of [...ofRules(), ...ofLists(kernel)]) this.#add(mutation)
  }

  #add(mutation: Mutation): void {
    const name = nameOf(mutation)
    if (!this.#before.has(name)) this.#open.set(name, { name, mutation })
  }

  /**
   * Those that a case tells from the model, by both their words, but for those in `known`. It is
   * learnt from the case which rules are neighbours.
   */
  toldBy(model: (mutation?: Mutation) => readonly Decision[], known: ReadonlySet<Mutant>): Mutant[] {
    const decisions = model()
    this.#learn(decisions)
    const checks = decisions.flatMap(decision => decision.checks)
    const asked = new Set(checks.map(({ rule }) => rule.name))
    const failed = new Set(checks.filter(({ passed }) => !passed).map(({ rule }) => rule.name))
    const said = saidBy(decisions)
    const told: Mutant[] = []
    for (const mutant of this.#open.values()) {
      const { mutation } = mutant
      if (known.has(mutant) || !this.#mayTell(mutation, asked, failed)) continue
      const changed = model(mutation)
      if (mutation.kind === 'swap' && changed.some(({ checks }) => endsWithBoth(checks, mutation)))
        this.#bothAsked.add(mutant.name)
      if (saidBy(changed) !== said) told.push(mutant)
    }
    return told
  }

  #mayTell(mutation: Mutation, asked: ReadonlySet<string>, failed: ReadonlySet<string>): boolean {
    if (mutation.kind === 'member') return true
    if (mutation.kind === 'swap') return failed.has(mutation.first)
    // Parts of a test are told by no check.
    if (!this.#told.has(mutation.rule)) return true
    return (mutation.kind === 'invert' ? asked : failed).has(mutation.rule)
  }

  /** Rules that follow each other in some case are swapped where both can end a call. */
  #learn(decisions: readonly Decision[]): void {
    for (const { verdict, checks } of decisions) {
      const last = checks.at(-1)?.rule.name
      if (verdict === 'refused' && last !== undefined && !this.#ending.has(last)) {
        this.#ending.add(last)
        for (const [first, seconds] of this.#followers)
          for (const second of seconds) if (first === last || second === last) this.#addSwap(first, second)
      }
      for (const [i, { rule }] of checks.entries()) {
        this.#told.add(rule.name)
        if (i > 0) this.#follows(checks[i - 1]!.rule.name, rule.name)
      }
    }
  }

  #follows(first: string, second: string): void {
    let seconds = this.#followers.get(first)
    if (seconds === undefined) {
      seconds = new Set()
      this.#followers.set(first, seconds)
    }
    if (seconds.has(second)) return
    seconds.add(second)
    this.#addSwap(first, second)
  }

  #addSwap(first: string, second: string): void {
    if (first === second || !this.#ending.has(first) || !this.#ending.has(second)) return
    const mutation = { kind: 'swap', first, second } as const
    if (!this.#noticed.has(nameOf(mutation))) this.#add(mutation)
  }

  notice({ name }: Mutant): void {
    this.#open.delete(name)
    this.#noticed.add(name)
  }

  get openCount(): number {
    return this.#open.size
  }

  get fates(): Fates {
    const left: string[] = []
    const sameErrno: string[] = []
    const dependent: string[] = []
    for (const { name, mutation } of this.#open.values())
      if (isSameErrno(mutation)) sameErrno.push(name)
      else if (mutation.kind === 'swap' && !this.#bothAsked.has(name)) dependent.push(name)
      else left.push(name)
    return { noticed: [...this.#noticed], left, sameErrno, dependent }
  }
}

function endsWithBoth(checks: readonly Check[], { first, second }: Mutation & { kind: 'swap' }): boolean {
  return checks.at(-1)?.rule.name === second && checks.at(-2)?.rule.name === first
}
