/** bpftoken explain --fix -- WORDS: the smallest change is made, and the call asked for again. */
import { basename } from 'node:path'
import type { Client } from '../../client/client.ts'
import { EXIT } from '../../errors.ts'
import type { Explanation } from '../../lending/explain.ts'
import { lentAnew } from '../../lending/lent-anew.ts'
import type { PolicyEdit } from '../../policy/edit.ts'
import type { Vocabulary } from '../../policy/vocabulary.ts'
import { requireAgreement } from '../agreed.ts'
import { changeText } from '../change-text.ts'
import { isPolicyFile, policyName } from '../daemon/policy-choice.ts'
import { daemonIfAny } from '../daemon/reach.ts'
import { type Again, type Fixed, fix, fixedLines, type Wanted } from '../fix.ts'
import { print, printJson, word } from '../output.ts'
import { loadVocabulary } from '../policy-file.ts'
import {
  documentOf,
  type ExplainCallOptions,
  type Explained,
  endText,
  explainedOf,
  explanationLines,
  tell,
} from './explain-call.ts'
import { ofCommand } from './explain-run.ts'

export const OLDER = 'what was lent is older, or of another policy'

/** Exit 3: it is refused still, as far as that is known. */
export async function fixWords(words: string[], options: ExplainCallOptions): Promise<number> {
  requireAgreement(options)
  const answer = await explainedOf(words, options)
  const { explained, process, status } = answer
  if (explained?.verdict !== 'refused') return tell(answer, options)
  if (options.json !== true) print(...explanationLines(explained, status))
  using daemon = await daemonIfAny(options)
  const vocabulary = await loadVocabulary()
  const { policy: line } = explained
  const edit: PolicyEdit | undefined =
    line === undefined ? explained.edit : { path: `spec.rights.${line.list}`, value: line.word }
  const loan = process === undefined ? undefined : await loanIn(daemon, process.situation.userNamespace)
  const fixed = await fixUnlessDone(
    status,
    {
      edit,
      change: changeText(explained),
      otherwise: line?.list === 'capabilities' ? changeText(explained) : OLDER,
      file: async () => fileOf(daemon, options.policy ?? (await policyNamedIn(words)), loan?.policy),
      run: file =>
        process === undefined ? [] : commandsFor(explained, process.situation.pid, file, loan?.id),
      again: async policy => {
        if (process === undefined) return saidOfRun(await ofCommand(words))
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
  if (options.json === true) printJson({ ...documentOf(explained, status), fix: fixed })
  else print(...fixedLines(fixed))
  return statusOf(fixed)
}

/** Nothing is changed for a command that has ended well. */
async function fixUnlessDone(
  status: number | undefined,
  wanted: Wanted,
  ...rest: [Client | undefined, Vocabulary, ExplainCallOptions]
): Promise<Fixed> {
  if (status !== 0 || wanted.edit === undefined) return await fix(wanted, ...rest)
  const what = `${endText(status)}. If it has not, change the policy by hand: ${wanted.change}`
  return { applied: false, ours: true, what, run: [] }
}

/** Exit 3 unless it was asked again and allowed. */
export function statusOf({ again }: Fixed): number {
  return again?.verdict === 'ok' ? EXIT.ok : EXIT.denied
}

function saidOfRun({ explained, status = 0 }: Explained): Again {
  if (explained !== undefined || status === 0) return said('run again', explained)
  const when = `run again, ${endText(status)}`
  return { when, call: 'every call', verdict: 'failed', cause: 'none', change: 'none' }
}

function said(when: string, explained: Explanation | undefined): Again {
  if (explained === undefined)
    return { when, call: 'every call', verdict: 'ok', cause: 'none', change: 'none' }
  const { call, verdict, cause } = explained
  return { when, call, verdict, cause, change: changeText(explained) }
}

/** `bpftoken run --policy FILE -- ...`: the file, as `run` itself reads these words. */
export async function policyNamedIn([name, command, ...words]: readonly string[]): Promise<
  string | undefined
> {
  if (basename(name ?? '') !== 'bpftoken' || command !== 'run') return undefined
  const { Command } = await import('../command.ts')
  const { runOptions } = await import('../tree/run-options.ts')
  const run = runOptions(new Command('run').exitOverride().configureOutput({ outputError: () => {} }))
  try {
    run.parseOptions(words)
  } catch {
    // It will not run.
    return undefined
  }
  const { policy } = run.opts<{ policy?: string }>()
  return policy !== undefined && policy !== '-' && isPolicyFile(policy) ? policy : undefined
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
