/**
 * bpftoken guard allow and disallow: which other programs may enable delegation, and how much of
 * it.
 */
import { EXIT, NotFoundError, UsageError } from '../../errors.ts'
import type { Delegator } from '../../guard/delegators.ts'
import { Guard } from '../../guard/guard.ts'
import { type Breadth, breadthOf } from '../../guard/program-names.ts'
import { requireNoApproval } from '../../lending/admission.ts'
import { type AdmissionOptions, requireNoSubjects } from '../admission.ts'
import { describeWho } from '../guard-text.ts'
import { note, print, printJson } from '../output.ts'
import { loadPolicy, loadVocabulary } from '../policy-file.ts'
import { requireRoot } from '../privilege.ts'

export interface DelegatorOptions {
  exe?: string
  cgroup?: string
  unit?: string
  json?: boolean
}

export interface AllowOptions extends DelegatorOptions, AdmissionOptions {
  policy?: string
  implicit?: boolean
}

export async function allow(options: AllowOptions): Promise<number> {
  requireRoot('bpftoken guard allow')
  const who = named(options)
  using guard = Guard.open()
  const policy =
    options.policy === undefined ? undefined : await loadPolicy(options.policy, await loadVocabulary())
  if (policy === undefined) note('without --policy it may delegate everything')
  else {
    requireNoApproval(policy, 'a delegator lends without asking')
    requireNoSubjects(policy, 'to whom a delegator lends is not compared with them', options)
  }
  const breadth = options.exe === undefined ? [] : breadthOrNone(options.exe)
  for (const { what } of breadth) note(`warning: ${what}`)
  const implicit = options.implicit === true
  guard.allow(who, { ...(policy && { policy }), implicit })
  if (options.json === true) printJson({ allowed: who, policy: policy?.name, implicit, warnings: breadth })
  else
    print(
      `${describeWho(who)} may delegate ${policy === undefined ? 'everything' : `within policy "${policy.name}"`}`,
    )
  return EXIT.ok
}

/** A file that cannot be looked at is refused by `allow`, which says why. */
function breadthOrNone(executable: string): Breadth[] {
  try {
    return breadthOf(executable)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === undefined) throw error
    return []
  }
}

export function disallow(options: DelegatorOptions): number {
  requireRoot('bpftoken guard disallow')
  const who = named(options)
  using guard = Guard.open()
  if (!guard.disallow(who))
    throw new NotFoundError(`${describeWho(who)} is not on the list of delegators`, {
      context: { ...who },
      hint: 'See bpftoken guard status for those that are',
    })
  if (options.json === true) printJson({ disallowed: who })
  else print(`${describeWho(who)} may delegate no more; what it has delegated goes on`)
  return EXIT.ok
}

function named({ exe, cgroup, unit }: DelegatorOptions): Delegator {
  const given: Delegator[] = []
  if (exe !== undefined) given.push({ executable: exe })
  if (cgroup !== undefined) given.push({ cgroup })
  if (unit !== undefined) given.push({ unit })
  const [who, ...more] = given
  if (who === undefined || more.length > 0)
    throw new UsageError('Name the delegator by one of --exe, --cgroup and --unit')
  return who
}
