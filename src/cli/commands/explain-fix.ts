/** bpftoken explain --fix -- WORDS: the smallest change is made, and the call asked for again. */
import { basename } from 'node:path'
import type { Client } from '../../client/client.ts'
import { EXIT } from '../../errors.ts'
import type { Explanation } from '../../lending/explain.ts'
import { lentAnew } from '../../lending/lent-anew.ts'
import type { PolicyEdit } from '../../policy/edit.ts'
import { requireAgreement } from '../agreed.ts'
import { changeText } from '../change-text.ts'
import { isPolicyFile, policyName } from '../daemon/policy-choice.ts'
import { daemonIfAny } from '../daemon/reach.ts'
import { type Again, type Fixed, fix, fixedLines } from '../fix.ts'
import { print, printJson, word } from '../output.ts'
import { loadVocabulary } from '../policy-file.ts'
import { documentOf, type ExplainCallOptions, explainedOf, explanationLines, tell } from './explain-call.ts'
import { ofCommand } from './explain-run.ts'

export const OLDER = 'what was lent is older, or of another policy'

/** Exit 3: it is refused still, as far as that is known. */
export async function fixWords(words: string[], options: ExplainCallOptions): Promise<number> {
  requireAgreement(options)
  const { explained, process } = await explainedOf(words, options)
  if (explained?.verdict !== 'refused') return tell(explained, options)
  if (options.json !== true) print(...explanationLines(explained))
  using daemon = await daemonIfAny(options)
  const vocabulary = await loadVocabulary()
  const { policy: line } = explained
  const edit: PolicyEdit | undefined =
    line === undefined ? explained.edit : { path: `spec.rights.${line.list}`, value: line.word }
  const loan = process === undefined ? undefined : await loanIn(daemon, process.situation.userNamespace)
  const fixed = await fix(
    {
      edit,
      change: changeText(explained),
      otherwise: line?.list === 'capabilities' ? changeText(explained) : OLDER,
      file: () => fileOf(daemon, options.policy ?? policyNamedIn(words), loan?.policy),
      run: file =>
        process === undefined ? [] : commandsFor(explained, process.situation.pid, file, loan?.id),
      again: async policy => {
        if (process === undefined) return said('run again', await ofCommand(words))
        const anew = lentAnew(process.situation, policy, vocabulary, edit!)
        return said(
          line?.list === 'capabilities' ? 'once it is started with it' : 'once it is lent to anew',
          process.explain(anew),
        )
      },
    },
    daemon,
    vocabulary,
    options,
  )
  if (options.json === true) printJson({ ...documentOf(explained), fix: fixed })
  else print(...fixedLines(fixed))
  return statusOf(fixed)
}

/** Exit 3 unless it was asked again and allowed. */
export function statusOf({ again }: Fixed): number {
  return again?.verdict === 'ok' ? EXIT.ok : EXIT.denied
}

function said(when: string, explained: Explanation | undefined): Again {
  if (explained === undefined)
    return { when, call: 'every call', verdict: 'ok', cause: 'none', change: 'none' }
  const { call, verdict, cause } = explained
  return { when, call, verdict, cause, change: changeText(explained) }
}

/** `bpftoken run --policy FILE -- ...`: the file. Pure. */
export function policyNamedIn(words: readonly string[]): string | undefined {
  if (basename(words[0] ?? '') !== 'bpftoken') return undefined
  const end = words.indexOf('--')
  const own = end < 0 ? words : words.slice(0, end)
  const at = own.findIndex(one => one === '--policy' || one.startsWith('--policy='))
  if (at < 0) return undefined
  const name = own[at]!.startsWith('--policy=') ? own[at]!.slice('--policy='.length) : own[at + 1]
  return name !== undefined && name !== '-' && isPolicyFile(name) ? name : undefined
}

/** The daemon's loan to whoever is in that user namespace. */
async function loanIn(daemon: Client | undefined, userNamespace: string) {
  if (daemon === undefined) return undefined
  const { loans } = await daemon.listLoans({ query: { state: 'live' } })
  return loans.findLast(({ record }) => record?.recipient.userNamespace === userNamespace)
}

/** The file that was named, or where the daemon has the policy from that was named, or lent. */
export async function fileOf(
  daemon: Client | undefined,
  named: string | undefined,
  lent: string | undefined,
): Promise<string | undefined> {
  if (named !== undefined && isPolicyFile(named)) return named
  const name = named === undefined ? lent : policyName(named)
  if (daemon === undefined || name === undefined) return undefined
  const { policies } = await daemon.listPolicies()
  return policies.find(one => one.name === name)?.file
}

/** What a loan is lent anew by. */
function commandsFor(
  { cause, policy }: Explanation,
  pid: number,
  file: string | undefined,
  loan: string | undefined,
): string[] {
  const lend = `bpftoken delegate --pid ${pid} --policy ${file === undefined ? 'POLICY' : word(file)}`
  if (cause === 'no-delegation') return [lend]
  if (policy === undefined || policy.list === 'capabilities') return []
  return [loan === undefined ? `bpftoken undelegate --pid ${pid}` : `bpftoken revoke ${loan}`, lend]
}
