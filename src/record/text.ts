/** A recording as a policy of ours, with a comment for each right. Pure. */
import { printableName } from '../ebpf/printable.ts'
import { headerVocabulary } from '../needs/header-words.ts'
import { hexMask } from '../policy/mask-text.ts'
import { MASK_DOMAINS } from '../policy/vocabulary.ts'
import type { Asker, RecordedRight, Recording } from './recording.ts'

export interface TextFacts {
  /** What was watched, for people. */
  readonly what: string
  /** `metadata.name` of the policy. */
  readonly name: string
  /** A moment of CLOCK_MONOTONIC as a date. */
  readonly dateOf: (at: bigint) => Date
}

const SHOWN_ASKERS = 3
const SHOWN_NAMES = 4

/** A policy that reads back as exactly the recording's masks and capabilities. */
export function recordingText(recording: Recording, facts: TextFacts): string[] {
  const list = (name: string, items: readonly { word: string; askers: readonly Asker[] }[]): string[] =>
    items.length === 0
      ? [`    ${name}: []`]
      : [`    ${name}:`, ...items.map(({ word, askers }) => `      - ${word} # ${askersText(askers, facts)}`)]
  return [
    `# Least rights for what was seen of ${printableName(facts.what)}; see docs/record.md`,
    ...incompleteText(recording).map(line => `# ${line}`),
    'apiVersion: bpftoken.dev/v1',
    'kind: DelegationPolicy',
    'metadata:',
    `  name: "${facts.name}"`,
    'spec:',
    '  rights:',
    ...MASK_DOMAINS.flatMap(domain =>
      list(
        domain,
        recording.rights
          .filter(right => right.domain === domain)
          .map(right => ({ word: policyWord(right), askers: right.askers })),
      ),
    ),
    ...list(
      'capabilities',
      recording.capabilities.map(({ name, askers }) => ({ word: name, askers })),
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
  const { risk, leftOut, unserved, counted, rights, capabilities } = recording
  const plain = Object.entries(counted).map(([command, n]) => `${command} ${n}`)
  return [
    ...(rights.length === 0 ? ['Nothing was asked that a token is needed for.'] : []),
    `Risk: ${risk.level}, in a network of its own`,
    ...risk.items.map(({ level, domain, word, reason }) => `  ${level}: ${domain} ${word}: ${reason}`),
    ...leftOut.map(
      ({ domain, word, askers }) =>
        `Left out: ${domain} ${word}: no right would have helped: ${askersText(askers, facts)}`,
    ),
    ...unserved.map(
      ({ call, fails, why, askers }) =>
        `${fails ? 'Cannot be lent' : 'Not a matter of tokens'}: ${call}: ${why}: ${askersText(askers, facts)}`,
    ),
    ...(plain.length === 0 ? [] : [`Needs nothing: ${plain.join(', ')}`]),
    ...(rights.some(({ domain }) => domain === 'progs') &&
    !capabilities.some(({ name }) => name === 'perfmon')
      ? [
          'Note: root passes the verifier where others do not: if it says "pointer comparison prohibited", "pointer -= pointer prohibited" or "invalid read from stack", add capability perfmon',
        ]
      : []),
  ]
}

function policyWord({ domain, word, bit }: RecordedRight): string {
  return headerVocabulary()[domain].nameOfBit.has(bit) ? word : hexMask(1n << BigInt(bit))
}

/** `bpftool (pid 7): 2 ok, 1 EPERM, first 20:44:53.120 for counter, events`. */
function askersText(askers: readonly Asker[], { dateOf }: TextFacts): string {
  const shown = askers.slice(0, SHOWN_ASKERS).map(({ task, pid, first, outcomes, names }) => {
    const ended = Object.entries(outcomes).map(([outcome, n]) => `${n} ${outcome}`)
    const more = names.length > SHOWN_NAMES ? ` and ${names.length - SHOWN_NAMES} more` : ''
    const made = names.slice(0, SHOWN_NAMES).map(printableName).join(', ')
    const time = dateOf(first).toISOString().slice(11, 23)
    return `${printableName(task)} (pid ${pid}): ${ended.join(', ')}, first ${time}${made === '' ? '' : ` for ${made}${more}`}`
  })
  return askers.length > SHOWN_ASKERS
    ? `${shown.join('; ')}; and ${askers.length - SHOWN_ASKERS} more processes`
    : shown.join('; ')
}
