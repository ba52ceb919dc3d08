/**
 * How a decision is reached and told: rules, the checks that were made by them, and the judge who
 * writes them down.
 *
 * A rule is one test of the kernel. Every test of the model goes through the judge by its rule. So
 * the whole chain is told, and a mutation (one rule turned round) can be tried: see docs/model.md.
 */

/** An errno by its name, as `errno.h` has it; ENOTSUPP is the kernel's own 524. */
export type ErrnoName = `E${string}`

/** One test that the kernel makes. */
export interface Rule {
  /** Unique, in the kernel's words: `MAP_CREATE: unprivileged_bpf_disabled`. */
  readonly name: string
  /** What the test wants, for people. A check may say it more precisely. */
  readonly needs: string
  /** The function of the kernel that makes it. */
  readonly source: string
  /** With what the call fails. Absent: the call goes on, and something else is decided. */
  readonly errno?: ErrnoName
}

/** One test that was made, with what was there. */
export interface Check {
  readonly rule: Rule
  readonly needed: string
  readonly found: string
  readonly passed: boolean
}

/** What was found or needed: made into words only when somebody reads it, since that takes the most time. */
export type Text = string | (() => string)

class Made implements Check {
  readonly rule: Rule
  readonly passed: boolean
  readonly #needed: Text
  readonly #found: Text

  constructor(rule: Rule, passed: boolean, found: Text, needed: Text) {
    this.rule = rule
    this.passed = passed
    this.#found = found
    this.#needed = needed
  }

  get needed(): string {
    return typeof this.#needed === 'string' ? this.#needed : this.#needed()
  }

  get found(): string {
    return typeof this.#found === 'string' ? this.#found : this.#found()
  }
}

/** What a call comes to. `checks` are in the kernel's order; of a refusal the last one failed. */
export interface Decision {
  readonly verdict: 'ok' | 'refused'
  /** Absent when the verdict is `ok`. */
  readonly errno?: ErrnoName
  readonly checks: readonly Check[]
}

/**
 * One change to the model, for tests. Of a rule: `invert` its outcome, always `pass` it, or let it
 * fail with another errno.
 */
export type Mutation =
  | { readonly kind: 'invert' | 'pass' | 'errno'; readonly rule: string }
  /** Two rules that are neighbours change places: of a call that fails by both, the other one decides. */
  | { readonly kind: 'swap'; readonly first: string; readonly second: string }
  /** One word taken out of a list of the model, or put in. */
  | { readonly kind: 'member'; readonly list: string; readonly word: string }

/** What the mutation `errno` fails with; no call of the kernel does. */
export const MUTANT_ERRNO: ErrnoName = 'EMUTANT'

/** Writes down the checks of one call. */
export class Judge {
  readonly checks: Check[] = []
  readonly #mutation: Mutation | undefined
  #errno: ErrnoName | undefined
  /** With what the first of two swapped rules fails, once the second one has been asked. */
  #later: ErrnoName | undefined

  constructor(mutation?: Mutation) {
    this.#mutation = mutation
  }

  /**
   * Whether the call fails here. The caller then returns. `errno` is given where the rule has none of
   * its own.
   */
  fails(
    rule: Rule,
    passed: boolean,
    found: Text,
    needed: Text = rule.needs,
    errno: ErrnoName | undefined = rule.errno,
  ): boolean {
    const mutation = this.#mutation
    if (mutation?.kind === 'swap') return this.#failsSwapped(mutation, rule, passed, found, errno)
    const passes = mutation === undefined ? passed : this.#mutated(rule, passed)
    this.checks.push(new Made(rule, passes, found, needed))
    if (passes) return false
    const other = mutation?.kind === 'errno' && mutation.rule === rule.name
    this.#errno = other ? MUTANT_ERRNO : (errno ?? 'EPERM')
    return true
  }

  #failsSwapped(
    { first, second }: Extract<Mutation, { kind: 'swap' }>,
    rule: Rule,
    passed: boolean,
    found: Text,
    errno: ErrnoName = 'EPERM',
  ): boolean {
    const later = this.#later
    const waits = later === undefined && !passed && rule.name === first
    this.checks.push(new Made(rule, passed || waits, found, rule.needs))
    if (waits) {
      this.#later = errno
      return false
    }
    if (passed && later === undefined) return false
    this.#errno = later === undefined || (!passed && rule.name === second) ? errno : later
    return true
  }

  /** A test that decides something else than the call's failure: whether a token is used. */
  holds(rule: Rule, passed: boolean, found: Text, needed: Text = rule.needs): boolean {
    const passes = this.#mutation === undefined ? passed : this.#mutated(rule, passed)
    this.checks.push(new Made(rule, passes, found, needed))
    return passes
  }

  /** Part of a test, that is not told by itself. */
  part(rule: Rule, passed: boolean): boolean {
    return this.#mutation === undefined ? passed : this.#mutated(rule, passed)
  }

  /** Whether a word is on a list. */
  isOn(list: WordList, word: string): boolean {
    const is = list.words.has(word)
    const mutation = this.#mutation
    return mutation?.kind === 'member' && mutation.list === list.name && mutation.word === word ? !is : is
  }

  /** Whether some check has ended the call. */
  get hasFailed(): boolean {
    return this.#errno !== undefined
  }

  decision(): Decision {
    const errno = this.#errno ?? this.#later
    return errno === undefined
      ? { verdict: 'ok', checks: this.checks }
      : { verdict: 'refused', errno, checks: this.checks }
  }

  #mutated(rule: Rule, passed: boolean): boolean {
    const mutation = this.#mutation
    if (mutation === undefined || mutation.kind === 'member' || mutation.kind === 'swap') return passed
    if (mutation.rule !== rule.name) return passed
    if (mutation.kind === 'invert') return !passed
    return mutation.kind === 'pass' ? true : passed
  }
}

/** A list of the kernel's words, such as the program types that need CAP_NET_ADMIN. */
export interface WordList {
  readonly name: string
  readonly words: ReadonlySet<string>
}

export function wordList(name: string, words: readonly string[]): WordList {
  return { name, words: new Set(words) }
}
