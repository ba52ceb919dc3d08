/** Our commands, as the forms of a plan tell of them. */
import type { FormatWords } from '../needs/format/container.ts'

export const PLAN_WORDS: FormatWords = {
  plan: 'bpftoken plan',
  profile: 'bpftoken plan --seccomp-profile FILE',
  lend: (recipient, policy) => {
    const [[option, name]] = Object.entries(recipient) as [[string, string]]
    return `bpftoken delegate --${option} ${name} --policy ${policy}`
  },
  allow: 'bpftoken guard allow --help',
}
