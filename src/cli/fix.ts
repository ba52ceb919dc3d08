/**
 * explain --fix: makes the smallest change where it is a line of a policy, and says what is to be
 * run where it is not.
 */
import type { Client } from '../client/client.ts'
import { UsageError } from '../errors.ts'
import type { PolicyEdit } from '../policy/edit.ts'
import type { Policy } from '../policy/policy.ts'
import type { Vocabulary } from '../policy/vocabulary.ts'
import { type AgreeOptions, agreed } from './agreed.ts'
import { editText } from './edit-text.ts'
import { print, warn } from './output.ts'
import { applyPolicyFix, type PolicyFix, preparePolicyFix } from './policy-fix.ts'

/** What is said when it is asked again. */
export interface Again {
  /** Under which condition it is so: `now`, or what must happen before. */
  readonly when: string
  readonly call: string
  readonly verdict: string
  readonly cause: string
  readonly change: string
}

export interface Wanted {
  /** Undefined: it is no matter of a policy. */
  readonly edit: PolicyEdit | undefined
  /** The change in words. */
  readonly change: string
  /** What to do where the policy has it already. */
  readonly otherwise: string
  /** The file of the policy; undefined: it is not known. */
  readonly file: () => Promise<string | undefined>
  /** Commands by which the change comes to hold; `file`: the policy's. */
  readonly run: (file: string | undefined) => readonly string[]
  readonly again: (policy: Policy) => Promise<Again | undefined>
}

export interface Fixed {
  readonly applied: boolean
  /** Whether it was a change that can be made here. */
  readonly ours: boolean
  readonly what: string
  readonly file?: string
  readonly diff?: string
  readonly risk?: PolicyFix['risk']
  /** The daemon has read it. */
  readonly reloaded?: boolean
  /** What is to be run, so that the change holds. */
  readonly run: readonly string[]
  readonly again?: Again
}

export interface FixOptions extends AgreeOptions {
  json?: boolean
}

/** UsageError: the policy's file is not known. Errors are also those of `preparePolicyFix`. */
export async function fix(
  wanted: Wanted,
  daemon: Client | undefined,
  vocabulary: Vocabulary,
  options: FixOptions,
): Promise<Fixed> {
  const { edit, change, run } = wanted
  if (edit === undefined) return { applied: false, ours: false, what: change, run: run(undefined) }
  const name = await wanted.file()
  if (name === undefined)
    throw new UsageError(`Which policy is to be changed is not known: ${editText(edit)}`, {
      hint: 'Name its file: --policy FILE',
    })
  const prepared = await preparePolicyFix(name, edit, vocabulary)
  const file = prepared.file.path
  const again = async (policy: Policy) => {
    const said = await wanted.again(policy)
    return said === undefined ? {} : { again: said }
  }
  if ('there' in prepared) {
    const what = `${file} has it already: ${wanted.otherwise}`
    return { applied: false, ours: true, what, file, run: run(file), ...(await again(prepared.there)) }
  }
  const { diff, risk } = prepared
  const tell = options.json === true ? warn : print
  if (options.json !== true || options.yes !== true)
    for (const line of [`fix: ${editText(edit)}`, ...diff, ...riskLines(risk)]) tell(line)
  const shown = { what: editText(edit), file, diff: `${diff.join('\n')}\n`, risk }
  if (!(await agreed(`Change ${file}?`, options))) return { applied: false, ours: true, ...shown, run: [] }
  const reloaded = await applyPolicyFix(prepared, daemon)
  return { applied: true, ours: true, ...shown, reloaded, run: run(file), ...(await again(prepared.policy)) }
}

function riskLines({ before, after, adds, findings }: PolicyFix['risk']): string[] {
  return [
    before === after ? `risk: ${after}, as before` : `risk: ${before} before, ${after} after`,
    ...adds.map(({ level, domain, word, reason }) => `  adds ${level}: ${domain} ${word}: ${reason}`),
    ...findings.map(({ severity, path, message }) => `  ${severity}: ${path}: ${message}`),
  ]
}

/** Pure. */
export function fixedLines(fixed: Fixed): string[] {
  const { run, again } = fixed
  const isRefused = again?.verdict === 'refused'
  return [
    headline(fixed),
    ...run.map(command => `  run   ${command}`),
    ...(again === undefined
      ? []
      : [`${again.when}: ${again.call}: ${isRefused ? `refused: ${again.cause}` : 'allowed'}`]),
    ...(isRefused ? [`  change  ${again!.change}`] : []),
  ]
}

function headline({ applied, ours, what, file, reloaded }: Fixed): string {
  if (!applied) return `nothing is changed: ${ours ? '' : 'it is no line of a policy: '}${what}`
  if (file === undefined) return `done: ${what}`
  return `changed ${file}${reloaded === true ? ', and the daemon has read it' : ''}`
}
