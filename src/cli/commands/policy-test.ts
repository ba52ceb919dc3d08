/**
 * bpftoken policy test: who would get a delegation, and why. Reads the policy and the accounts, and
 * does nothing.
 */
import { EXIT, UsageError } from '../../errors.ts'
import { accounts } from '../../lending/accounts.ts'
import { decide } from '../../policy/decide.ts'
import { nearest } from '../../policy/nearest.ts'
import type { Policy } from '../../policy/policy.ts'
import { type Fact, type Identity, namesIn, type SubjectFacts, unitOfCgroup } from '../../policy/subject.ts'
import { verdictLines } from '../../policy/verdict-text.ts'
import { parseWithin, USER_IDS } from '../../uapi/number-range.ts'
import { print, printJson } from '../output.ts'
import { loadPolicy } from '../policy-file.ts'
import { type KernelName, policyWords } from '../policy-words.ts'

export interface TestOptions {
  as: string
  kernel?: KernelName
  json?: boolean
}

export async function test(file: string, options: TestOptions): Promise<number> {
  const given = parseFacts(options.as)
  const policy = await loadPolicy(file, await policyWords(options.kernel))
  const verdict = decide(factsOf(given, policy), { by: 'operator' }, [policy], new Date())
  if (options.json === true) printJson(verdict)
  else print(...verdictLines(verdict))
  return verdict.allowed ? EXIT.ok : EXIT.denied
}

const KEYS = ['user', 'group', 'cgroup', 'unit', 'executable', 'label'] as const
type Key = (typeof KEYS)[number]

/**
 * `user=alice,unit=x.service`: a comma ends a value where a key follows, since labels have commas.
 */
function parseFacts(text: string): Map<Key, string[]> {
  const given = new Map<Key, string[]>()
  for (const part of text.split(/,(?=[A-Za-z]+=)/)) {
    const [, key, value] = /^([^=]*)=(.+)$/s.exec(part) ?? []
    if (key === undefined || value === undefined)
      throw new UsageError(`"${part}" is not of the form KEY=VALUE`, { hint: HINT })
    if (!isKey(key)) {
      const meant = nearest(key, KEYS)
      throw new UsageError(
        `There is no fact "${key}"${meant === undefined ? '' : `; did you mean "${meant}"?`}`,
        {
          hint: ['container', 'kubernetes'].includes(key)
            ? `${key} is what a runtime says of a container: it cannot be given here yet`
            : HINT,
        },
      )
    }
    if ((key === 'cgroup' || key === 'executable') && !isResolved(value))
      throw new UsageError(`${key} "${value}" is not an absolute path as the kernel gives it`, {
        hint: 'Leave out empty components, "." and "..", and a slash at the end',
      })
    if (key === 'unit' && (value.includes('/') || unitOfCgroup(`/${value}`) !== value))
      throw new UsageError(`unit "${value}" is none that processes are in`, {
        hint: 'Name a .service, .scope, .socket, .mount or .swap',
      })
    const before = given.get(key) ?? []
    if (before.length > 0 && key !== 'group') throw new UsageError(`A subject has only one ${key}`)
    given.set(key, [...before, value])
  }
  const [unit] = given.get('unit') ?? []
  const [cgroup] = given.get('cgroup') ?? []
  if (unit !== undefined && cgroup !== undefined && unitOfCgroup(cgroup) !== unit)
    throw new UsageError(`unit "${unit}" is not that of cgroup "${cgroup}"`, {
      hint: 'Leave out the unit: the cgroup tells it',
    })
  return given
}

/** One path of each thing, as /proc gives it. */
function isResolved(path: string): boolean {
  if (path === '/') return true
  const [root, ...components] = path.split('/')
  return root === '' && components.every(one => !['', '.', '..'].includes(one) && !/[\0\n]/.test(one))
}

const HINT = `Give facts such as user=alice,unit=agent.service; there are ${KEYS.join(', ')}`

function isKey(key: string): key is Key {
  return (KEYS as readonly string[]).includes(key)
}

function factsOf(given: ReadonlyMap<Key, string[]>, policy: Policy): SubjectFacts {
  const names = namesIn(policy)
  const text = (key: Key): Fact<string> => {
    const value = given.get(key)?.[0]
    return value === undefined ? { unknown: 'it is not given' } : { is: value }
  }
  const user = given.get('user')?.[0]
  const cgroup = text('cgroup')
  return {
    user:
      user === undefined
        ? { unknown: 'it is not given' }
        : { is: identity(user, names.users, accounts.uidOf) },
    groups:
      given.get('group') === undefined
        ? { unknown: 'it is not given' }
        : { is: given.get('group')!.map(group => identity(group, names.groups, accounts.gidOf)) },
    cgroup,
    unit: given.has('unit') ? text('unit') : unitFrom(cgroup),
    executable: text('executable'),
    label: text('label'),
  }
}

/** A cgroup says which unit it is of, as it does for a process. */
function unitFrom(cgroup: Fact<string>): Fact<string> {
  const unit = 'is' in cgroup ? unitOfCgroup(cgroup.is) : undefined
  return unit === undefined ? { unknown: 'it is not given' } : { is: unit }
}

/**
 * A number is an id. A name need not exist on this machine, because the policy may be for another
 * machine.
 */
function identity(
  given: string,
  names: ReadonlySet<string>,
  idOf: (name: string) => number | undefined,
): Identity {
  if (!/^\d+$/.test(given)) {
    const id = idOf(given)
    return { names: [given], ...(id === undefined ? {} : { id }) }
  }
  const id = parseWithin(USER_IDS, given)
  if (id === undefined)
    throw new UsageError(`${given} is no id: they go from ${USER_IDS.min} to ${USER_IDS.max}`)
  return { id, names: [...names].filter(name => idOf(name) === id) }
}
