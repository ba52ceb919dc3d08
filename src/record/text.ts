/** A recording as a policy of ours, with a comment for each right. Pure. */
import { printableName } from '../ebpf/printable.ts'
import { headerVocabulary } from '../needs/header-words.ts'
import { remarksAsComments, rightsYaml } from '../policy/policy-yaml.ts'
import type { Asker, Recording } from './recording.ts'

export interface TextFacts {
  /** What was watched, for people. */
  readonly what: string
  /** `metadata.name` of the policy. */
  readonly name: string
  /** False: the running kernel has no tokens, so that nothing can be lent here. */
  readonly hasTokens: boolean
  /** A moment of CLOCK_MONOTONIC as a date. */
  readonly dateOf: (at: bigint) => Date
}

const SHOWN_ASKERS = 3
const SHOWN_NAMES = 4

/** A policy that reads back as exactly the recording's masks and capabilities. */
export function recordingText(recording: Recording, facts: TextFacts): string[] {
  const { masks, rights, capabilities } = recording
  const vocabulary = headerVocabulary()
  const said = [
    ...rights.map(one => ({ list: one.domain, right: one.bit, askers: one.askers })),
    ...capabilities.map(one => ({ list: 'capabilities' as const, right: one.name, askers: one.askers })),
  ].map(({ askers, ...one }) => ({ ...one, comment: askersText(askers, facts) }))
  return [
    `# Least rights for what was seen of ${printableName(facts.what)}; see docs/record.md`,
    ...incompleteText(recording).map(line => `# ${line}`),
    ...rightsYaml(
      facts.name,
      { masks, capabilities: capabilities.map(({ name }) => name) },
      vocabulary,
      remarksAsComments(said, vocabulary),
    ),
    ...remarks(recording, facts).map(line => `# ${line}`),
  ]
}

/** Empty where nothing was lost. */
export function incompleteText({ complete, lost }: Recording): string[] {
  if (complete) return []
  return [
    `INCOMPLETE: ${lost.calls} calls and ${lost.processes} processes were not seen, for want of room. More may be needed.`,
  ]
}

function remarks(recording: Recording, facts: TextFacts): string[] {
  const { risk, leftOut, unserved, withoutToken, counted, rights, capabilities } = recording
  const plain = Object.entries(counted).map(([command, n]) => `${command} ${n}`)
  return [
    ...(facts.hasTokens
      ? []
      : [
          'Note: this kernel has no BPF tokens: the policy is for Linux 6.9 or newer, and lends nothing here',
        ]),
    ...(rights.length === 0 ? ['Nothing was asked that a token is needed for.'] : []),
    `Risk: ${risk.level}, in a network of its own`,
    ...risk.items.map(({ level, domain, word, reason }) => `  ${level}: ${domain} ${word}: ${reason}`),
    ...leftOut.map(
      ({ domain, word, askers }) =>
        `Left out: ${domain} ${word}: ${whyLeftOut(askers)}: ${askersText(askers, facts)}`,
    ),
    ...unserved.map(
      ({ call, fails, why, askers }) =>
        `${fails ? 'Cannot be lent' : 'Not a matter of tokens'}: ${call}: ${why}: ${askersText(askers, facts)}`,
    ),
    ...(withoutToken.length === 0
      ? []
      : [
          `Note: no attempt at a token was seen of ${askersText(withoutToken, facts)}: a loader that makes none where a bpffs is lent is refused whatever the policy says`,
        ]),
    ...(plain.length === 0 ? [] : [`Needs nothing: ${plain.join(', ')}`]),
    ...(rights.some(({ domain }) => domain === 'progs') &&
    !capabilities.some(({ name }) => name === 'perfmon')
      ? [
          'Note: root passes the verifier where others do not: if it says "pointer comparison prohibited", "pointer -= pointer prohibited" or "invalid read from stack", add capability perfmon',
        ]
      : []),
  ]
}

/** Of calls that had a token nobody is refused for want of a right alone. */
function whyLeftOut(askers: readonly Asker[]): string {
  const isRefused = askers.some(({ outcomes }) => outcomes['EPERM'] !== undefined)
  return isRefused
    ? 'the calls did not name the token that their process has, so that no right would have helped'
    : 'no right would have helped'
}

/** `bpftool (pid 7, inside 2): 2 ok, 1 EPERM, first 20:44:53.120 for counter, events`. */
function askersText(askers: readonly Asker[], { dateOf }: TextFacts): string {
  const shown = askers.slice(0, SHOWN_ASKERS).map(({ task, pid, innerPid, first, outcomes, names }) => {
    const ended = Object.entries(outcomes).map(([outcome, n]) => `${n} ${outcome}`)
    const more = names.length > SHOWN_NAMES ? ` and ${names.length - SHOWN_NAMES} more` : ''
    const made = names.slice(0, SHOWN_NAMES).map(printableName).join(', ')
    const time = dateOf(first).toISOString().slice(11, 23)
    const number = pid === 0 ? `pid unknown here, inside ${innerPid}` : `pid ${pid}`
    const inner = pid === 0 || innerPid === pid ? '' : `, inside ${innerPid}`
    return `${printableName(task)} (${number}${inner}): ${ended.join(', ')}, first ${time}${made === '' ? '' : ` for ${made}${more}`}`
  })
  return askers.length > SHOWN_ASKERS
    ? `${shown.join('; ')}; and ${askers.length - SHOWN_ASKERS} more processes`
    : shown.join('; ')
}
