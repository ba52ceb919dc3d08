/**
 * Two policies as one: the least that allows what each of them allows. Pure.
 *
 * Rights and lists add up. What else differs (whom, how much, on which terms) is a question for
 * people: to allow both would give the laxer terms of one to the rights of the other. So it is told,
 * unless the caller chooses a side.
 */
import { comparePolicies, type Difference } from './diff.ts'
import { type AllowList, CAPABILITIES, type Policy } from './policy.ts'
import type { Masks, Vocabulary } from './vocabulary.ts'

export type Side = 'a' | 'b'

/** What may differ, besides rights and lists. */
export const CHOICES = ['subjects', 'limits', 'terms'] as const
export type MergeChoices = { readonly [K in (typeof CHOICES)[number]]?: Side | undefined }

export interface Conflict extends Pick<Difference, 'path' | 'before' | 'after'> {
  readonly choice: (typeof CHOICES)[number]
}

export type Merge = { readonly policy: Policy } | { readonly conflicts: readonly Conflict[] }

const MAX_NAME_CHARS = 63

export function mergePolicies(a: Policy, b: Policy, choices: MergeChoices, vocabulary: Vocabulary): Merge {
  const conflicts = comparePolicies(a, b, vocabulary).differences.flatMap(({ path, before, after }) => {
    const choice = choiceAbout(path, a, b)
    return choice === undefined || choices[choice] !== undefined ? [] : [{ path, before, after, choice }]
  })
  if (conflicts.length > 0) return { conflicts }
  const [subjects, limits, terms] = CHOICES.map(choice => (choices[choice] === 'b' ? b : a)) as [
    Policy,
    Policy,
    Policy,
  ]
  const { subjects: _, description: __, ...rest } = terms
  return {
    policy: {
      ...rest,
      name: mergedName(a.name, b.name),
      ...(a.description === undefined || a.description !== b.description
        ? {}
        : { description: a.description }),
      ...(subjects.subjects === undefined ? {} : { subjects: subjects.subjects }),
      rights: {
        masks: mergedMasks(a.rights.masks, b.rights.masks),
        capabilities: CAPABILITIES.filter(name =>
          [a, b].some(({ rights }) => rights.capabilities.includes(name)),
        ),
      },
      limits: limits.limits,
      programs: { digests: mergedList(a.programs.digests, b.programs.digests, terms.programs.digests) },
      targets: {
        functions: mergedList(a.targets.functions, b.targets.functions, terms.targets.functions),
      },
    },
  }
}

/** What somebody must choose where the two differ there; undefined: both can be had. */
function choiceAbout(path: string, a: Policy, b: Policy): Conflict['choice'] | undefined {
  if (path.startsWith('metadata.') || path.startsWith('spec.rights.')) return undefined
  if (path === 'spec.subjects') return 'subjects'
  if (path.startsWith('spec.limits.')) return 'limits'
  // Two lists add up; a list beside none does not.
  const areLists = (lists: readonly AllowList[]): boolean => lists.every(list => list !== 'any')
  if (path === 'spec.programs.digests' && areLists([a.programs.digests, b.programs.digests])) return undefined
  if (path === 'spec.targets.functions' && areLists([a.targets.functions, b.targets.functions]))
    return undefined
  return 'terms'
}

function mergedMasks(a: Masks, b: Masks): Masks {
  return {
    cmds: a.cmds | b.cmds,
    maps: a.maps | b.maps,
    progs: a.progs | b.progs,
    attachs: a.attachs | b.attachs,
  }
}

function mergedList(a: AllowList, b: AllowList, chosen: AllowList): AllowList {
  return a === 'any' || b === 'any' ? chosen : [...new Set([...a, ...b])].sort()
}

/** A DNS label, as the names of policies are. */
function mergedName(a: string, b: string): string {
  if (a === b) return a
  return `${a}-${b}`.slice(0, MAX_NAME_CHARS).replace(/-+$/, '')
}
