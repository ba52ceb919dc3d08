/**
 * Pure: the text of a drop-in that lends to a unit of systemd. Since version 258 systemd delegates by
 * itself; an older one starts the unit's program by `bpftoken run`, as the user that the unit names.
 */
import { InputError, NotSupportedError } from '../errors.ts'
import { wordsOf } from '../policy/mask-text.ts'
import { CAPABILITIES, type Policy } from '../policy/policy.ts'
import { SYSTEMD_SETTINGS, systemdWord } from '../policy/systemd-words.ts'
import { MASK_DOMAINS, type Vocabulary } from '../policy/vocabulary.ts'

/** The first with PrivateBPF= and DelegateNamespaces=. */
export const NATIVE_SINCE = 258

const HEADER = (policy: string): string =>
  `# Written by bpftoken systemd dropin, for the policy "${policy}". It is written anew, and removed, by the
# same command; changes belong elsewhere.
`

/**
 * `user`: that of the unit, if it names one that is not root.
 * NotSupportedError: the policy has bits that have no word.
 */
export function nativeDropin(policy: Policy, vocabulary: Vocabulary, user: string | undefined): string {
  const delegated = MASK_DOMAINS.flatMap(domain => {
    const { words, leftover } = wordsOf(vocabulary, domain, policy.rights.masks[domain])
    const wordless = leftover ?? words.find(word => systemdWord(domain, word) === undefined)
    if (wordless !== undefined)
      throw new NotSupportedError(`systemd has no word for ${wordless} of ${domain}`, {
        hint: 'Lend to the unit when it runs, through bpftoken: bpftoken delegate --unit',
      })
    if (words.length === 0) return []
    const all = words[0] === 'any' ? words : words.map(word => systemdWord(domain, word))
    return [`${SYSTEMD_SETTINGS[domain]}=${all.join(',')}`]
  })
  const capabilities = policy.rights.capabilities.map(inUnits)
  const others = CAPABILITIES.filter(name => !policy.rights.capabilities.includes(name)).map(inUnits)
  return [
    `${HEADER(policy.name)}[Service]`,
    'PrivateUsers=yes',
    '# Without it the bpffs would belong to the user namespace of the host, and no token could be made.',
    'DelegateNamespaces=mnt',
    'PrivateBPF=yes',
    ...delegated,
    ...(policy.network === 'own' ? ['PrivateNetwork=yes'] : []),
    ...(user !== undefined && capabilities.length > 0
      ? [`AmbientCapabilities=${capabilities.join(' ')}`]
      : []),
    ...(others.length > 0
      ? [
          '# The token stands in for what the unit has in its user namespace: these the policy does not lend.',
          `CapabilityBoundingSet=~${others.join(' ')}`,
        ]
      : []),
    '',
  ].join('\n')
}

const inUnits = (name: string): string => `CAP_${name.toUpperCase()}`

/** `bpftoken`: the path of the command. */
export function runDropin(policy: string, commands: readonly string[], bpftoken: string): string {
  return [
    `${HEADER(policy)}[Service]`,
    'ExecStart=',
    ...commands.map(command => {
      const [, prefix, words] = /^([-:]*)(.*)$/s.exec(command)!
      return `ExecStart=${prefix}${bpftoken} run --policy ${policy} -- ${words}`
    }),
    '',
  ].join('\n')
}

/**
 * The commands that a unit starts, of what `systemctl cat` prints, without those of the file
 * `except`. InputError: there is none, or one whose user systemd changes after all.
 */
export function commandsOf(text: string, except: string): string[] {
  let commands: string[] = []
  let file = ''
  let section = ''
  for (const line of logicalLines(text)) {
    const path = /^# (\/.*)$/.exec(line)?.[1]
    if (path !== undefined) file = path
    section = /^\[(\w+)\]$/.exec(line.trim())?.[1] ?? section
    const value = /^\s*ExecStart\s*=\s*(.*?)\s*$/.exec(line)?.[1]
    if (value === undefined || section !== 'Service' || file === except) continue
    // An empty one takes back those before it.
    commands = value === '' ? [] : [...commands, value]
  }
  if (commands.length === 0) throw new InputError('The unit has no ExecStart=')
  for (const command of commands)
    if (/^[-:]*[@+!|]/.test(command))
      throw new InputError('The unit starts its program by ExecStart= with @, +, ! or |', {
        context: { command },
        hint: 'Write the drop-in by hand: ExecStart= with bpftoken run --policy NAME -- before the program',
      })
  return commands
}

/**
 * As systemd puts them together: a line that ends with a backslash, itself not escaped, goes on in
 * the next. Comments are left out within, and none of them goes on; `systemctl cat` has an empty line
 * between files, and ends with each what goes on.
 */
function logicalLines(text: string): string[] {
  const lines: string[] = []
  let begun: string | undefined
  for (const line of text.split('\n')) {
    if (/^\s*[#;]/.test(line)) {
      if (begun === undefined) lines.push(line)
      continue
    }
    const goesOn = /(?<!\\)(?:\\\\)*\\$/.test(line)
    const whole: string = (begun ?? '') + (goesOn ? `${line.slice(0, -1)} ` : line)
    begun = goesOn ? whole : undefined
    if (!goesOn) lines.push(whole)
  }
  return begun === undefined ? lines : [...lines, begun]
}
