/**
 * A plan as a policy of ours. Needs neither zod nor yaml, so that asking for a plan stays quick.
 * Pure.
 */
import { hexMask } from '../../policy/mask-text.ts'
import { MASK_DOMAINS } from '../../policy/vocabulary.ts'
import { headerVocabulary } from '../header-words.ts'
import type { PlannedRight, RightsPlan } from '../plan.ts'
import { riskOf } from '../risk.ts'
import { comments, fileOf, heading, LOADER_NAMES, reasons, remarks } from './comments.ts'

/** A policy that reads back as exactly the plan's masks and capabilities. */
export function policyText(plan: RightsPlan): string[] {
  const loaders = `      # asked by ${LOADER_NAMES[plan.loader]}'s own probes:`
  const list = (
    name: string,
    items: readonly { word: string; by: readonly string[]; forLoader: boolean; loses?: string }[],
  ) => {
    if (items.length === 0) return [`    ${name}: []`]
    const line = ({ word, by, loses }: (typeof items)[number]) =>
      `      - ${word} # ${reasons(by)}${loses === undefined ? '' : `; optional: without it, ${loses}`}`
    const probes = items.filter(one => one.forLoader).map(line)
    const own = items.filter(one => !one.forLoader).map(line)
    return [`    ${name}:`, ...own, ...(probes.length === 0 ? [] : [loaders, ...probes])]
  }
  const risk = riskOf(plan)
  return [
    ...comments([heading(plan)]),
    'apiVersion: bpftoken.dev/v1',
    'kind: DelegationPolicy',
    'metadata:',
    `  name: "${policyName(plan.objects)}"`,
    'spec:',
    '  rights:',
    ...MASK_DOMAINS.flatMap(domain =>
      list(
        domain,
        plan.rights
          .filter(right => right.domain === domain)
          .map(right => ({ ...right, word: policyWord(right) })),
      ),
    ),
    ...list(
      'capabilities',
      plan.capabilities.map(one => ({ ...one, word: one.name })),
    ),
    ...comments([
      `Risk: ${risk.level}, in a network of its own`,
      ...risk.items.map(({ level, domain, word, reason }) => `  ${level}: ${domain} ${word}: ${reason}`),
      ...remarks(plan),
    ]),
  ]
}

/** The word, or the bit as a number where our headers have none. */
function policyWord({ domain, word, bit }: PlannedRight): string {
  return headerVocabulary()[domain].nameOfBit.has(bit) ? word : hexMask(1n << BigInt(bit))
}

const MAX_NAME_CHARS = 63

/** A DNS label out of the files' names. */
function policyName(objects: readonly string[]): string {
  const files = new Set(objects.map(object => fileOf(object).replace(/^.*\//s, '').replace(/\.o$/, '')))
  const name = [...files]
    .join('-')
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+/, '')
    .slice(0, MAX_NAME_CHARS)
    .replace(/-+$/, '')
  return name === '' ? 'plan' : name
}
