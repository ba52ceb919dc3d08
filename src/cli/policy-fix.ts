/** One change of a policy file: prepared, with what it risks, and made. */
import type { Client } from '../client/client.ts'
import { FormatError, InputError } from '../errors.ts'
import { locatedPolicyFromText } from '../lending/policy-text.ts'
import { comparePolicies } from '../policy/diff.ts'
import { editedText, grants, type PolicyEdit } from '../policy/edit.ts'
import { type LintFinding, lintPolicy } from '../policy/lint.ts'
import type { Policy } from '../policy/policy.ts'
import { assessRisk, type RiskAssessment, type RiskLevel } from '../policy/risk.ts'
import type { Vocabulary } from '../policy/vocabulary.ts'
import { editText } from './edit-text.ts'
import { type OwnFile, readOwnFile, replaceOwnFile } from './own-file.ts'
import { MAX_POLICY_BYTES } from './policy-file.ts'
import { unifiedDiff } from './unified-diff.ts'

export interface PolicyFix {
  /** As it was read. */
  readonly file: OwnFile
  readonly text: string
  readonly policy: Policy
  readonly diff: readonly string[]
  readonly risk: {
    readonly before: RiskLevel
    readonly after: RiskLevel
    /** What the change adds. */
    readonly adds: RiskAssessment['items']
    readonly findings: readonly LintFinding[]
  }
}

/**
 * Reads the file, and makes the change in memory. `there`: the policy has it already. InputError:
 * the text is not such that one change comes out of it. Errors are also those of `readOwnFile`, and
 * PolicyError.
 */
export async function preparePolicyFix(
  name: string,
  edit: PolicyEdit,
  vocabulary: Vocabulary,
): Promise<PolicyFix | { readonly there: Policy; readonly file: OwnFile }> {
  const file = readOwnFile(name, MAX_POLICY_BYTES)
  const before = file.bytes.toString('utf8')
  if (!Buffer.from(before).equals(file.bytes)) throw new FormatError('policy', `"${name}" is no UTF-8`)
  const read = async (text: string): Promise<Policy> =>
    (await locatedPolicyFromText(text, file.path, vocabulary, { keep: false })).policy
  const policy = await read(before)
  if (grants(policy, edit, vocabulary)) return { there: policy, file }
  const text = editedText(before, edit)
  const changed = text === undefined ? undefined : await read(text)
  // Fail closed: what comes out must be this change and no other.
  const { differences } =
    changed === undefined ? { differences: [] } : comparePolicies(policy, changed, vocabulary)
  const [only] = differences
  const isIt = only?.path === edit.path && only.grants === 'more' && differences.length === 1
  if (changed === undefined || !isIt || !grants(changed, edit, vocabulary))
    throw new InputError(`"${file.path}" is not such that it can be changed in one place`, {
      context: { file: file.path, path: edit.path },
      hint: `Change it by hand: ${editText(edit)}`,
    })
  const risks = [assessRisk(policy, vocabulary), assessRisk(changed, vocabulary)] as const
  const isNew = <T>(before: readonly T[], keyOf: (one: T) => string) => {
    const known = new Set(before.map(keyOf))
    return (one: T) => !known.has(keyOf(one))
  }
  return {
    ...{ file, text: text!, policy: changed, diff: unifiedDiff(file.path, before, text!) },
    risk: {
      before: risks[0].level,
      after: risks[1].level,
      adds: risks[1].items.filter(
        isNew(risks[0].items, ({ domain, word, level }) => `${domain} ${word} ${level}`),
      ),
      findings: lintPolicy(changed, vocabulary).filter(
        isNew(lintPolicy(policy, vocabulary), ({ rule, path, message }) => `${rule} ${path} ${message}`),
      ),
    },
  }
}

/**
 * Replaces the file. A daemon that has it reads it again. True: it has; false: it is none of its
 * policies, or there is no daemon. InputError: the daemon does not take it. Errors are also those of
 * `replaceOwnFile`.
 */
export async function applyPolicyFix(
  { file, text }: PolicyFix,
  daemon: Client | undefined,
): Promise<boolean> {
  replaceOwnFile(file, Buffer.from(text))
  if (daemon === undefined) return false
  const { policies } = await daemon.listPolicies()
  if (!policies.some(one => one.file === file.path)) return false
  const { faults } = await daemon.reload()
  const fault = faults.find(one => one.file === file.path)
  if (fault === undefined) return true
  throw new InputError(`The daemon does not take "${file.path}": ${fault.message}`, {
    context: { file: file.path },
  })
}
