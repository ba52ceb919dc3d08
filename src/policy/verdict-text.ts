/**
 * A verdict in lines for people: the decision, and for each entry that did not match the reason.
 */
import type { EntryTrace, FieldTrace, PolicyTrace, Verdict } from './decide.ts'

/** Longer texts are cut: they may come from the subject that was judged. */
const MAX_SHOWN = 160

/** The first line says what was decided, the others why. */
export function verdictLines(verdict: Verdict): string[] {
  return [headline(verdict), ...verdict.trace.flatMap(policyLines)]
}

function headline(verdict: Verdict): string {
  if (!verdict.allowed)
    return verdict.because === 'unsupported'
      ? 'Refused: every subject names what cannot be known here'
      : 'Refused: no subject matches'
  const by = `Allowed by policy ${quoted(verdict.policy)}`
  if (verdict.because === 'subject') return `${by}: ${verdict.entry} matches`
  return verdict.because === 'operator'
    ? `${by}: it states no subjects, so who names it decides`
    : `${by}: for any subject, as the operator says`
}

function policyLines({ policy, subjects, entries }: PolicyTrace): string[] {
  if (subjects === 'unstated') return [`policy ${quoted(policy)}: no subjects are stated`]
  if (subjects === 'nobody') return [`policy ${quoted(policy)}: the list of subjects is empty: nobody`]
  return [`policy ${quoted(policy)}:`, ...entries.map(entryLine)]
}

function entryLine({ path, matches, fields }: EntryTrace): string {
  const shown = matches ? fields : fields.filter(({ outcome }) => outcome !== 'matches')
  return `  ${path} ${matches ? 'matches' : 'does not match'}: ${shown.map(fieldText).join('; ')}`
}

function fieldText({ field, wanted, outcome, found }: FieldTrace): string {
  if (outcome === 'matches') return `${field} ${quoted(wanted)} matches ${quoted(found)}`
  if (outcome === 'differs') return `${field} is ${quoted(found)}, not ${quoted(wanted)}`
  return `${field}: ${found}`
}

/**
 * In quotes and in printable ASCII, whatever the text is: the subject that was judged may have
 * chosen it.
 */
function quoted(text: string): string {
  const short = text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}...` : text
  return JSON.stringify(short).replace(
    /[^\x20-\x7e]/g,
    char => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}
