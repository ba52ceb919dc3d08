/**
 * A plan as a policy of ours. Needs neither zod nor yaml, so that asking for a plan stays quick.
 * Pure.
 */
import { type Remark, remarksAsComments, rightsYaml } from '../../policy/policy-yaml.ts'
import { headerVocabulary } from '../header-words.ts'
import type { RightsPlan } from '../plan.ts'
import { riskOf } from '../risk.ts'
import { comments, fileOf, heading, LOADER_NAMES, reasons, remarks } from './comments.ts'

/** A policy that reads back as exactly the plan's masks and capabilities. */
export function policyText(plan: RightsPlan, name = policyName(plan.objects)): string[] {
  const risk = riskOf(plan)
  const rights = { masks: plan.masks, capabilities: plan.capabilities.map(({ name }) => name) }
  const vocabulary = headerVocabulary()
  return [
    ...comments([heading(plan)]),
    ...rightsYaml(name, rights, vocabulary, remarksAsComments(rightRemarks(plan), vocabulary)),
    ...comments([
      `Risk: ${risk.level}, in a network of its own`,
      ...risk.items.map(({ level, domain, word, reason }) => `  ${level}: ${domain} ${word}: ${reason}`),
      ...remarks(plan),
    ]),
  ]
}

function rightRemarks({ rights, capabilities, loader }: RightsPlan): Remark[] {
  const comment = ({ by, forLoader, loses }: { by: readonly string[]; forLoader: boolean; loses?: string }) =>
    [
      ...(loses === undefined ? [] : [`optional: without it, ${loses};`]),
      ...(forLoader ? [`${LOADER_NAMES[loader]}'s own probes:`] : []),
      reasons(by),
    ].join(' ')
  return [
    ...rights.map(one => ({ list: one.domain, right: one.bit, comment: comment(one) })),
    ...capabilities.map(one => ({ list: 'capabilities' as const, right: one.name, comment: comment(one) })),
  ]
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
