/** bpftoken ls and show, of what the daemon knows. */
import type { Client, Loan } from '../../client/client.ts'
import { EXIT } from '../../errors.ts'
import { columns, print, printJson, styled, table, word } from '../output.ts'
import type { LoanName } from '../tree/options.ts'
import { loanOf } from './lend.ts'
import { loanRows, placeOf, recipientText, stateText } from './loan-text.ts'

export async function listThrough(
  client: Client,
  { tree = false, json = false }: { tree?: boolean; json?: boolean },
): Promise<number> {
  const answer = await client.listLoans({ query: { state: 'live' } })
  if (json) printJson(answer)
  else if (answer.loans.length === 0) print('nothing is lent')
  else if (tree) print(...treeLines(answer.loans), ...whereToSeeMore(answer.loans))
  else print(...table([TITLES.map(title => styled('heading', title)), ...answer.loans.map(row)]))
  return EXIT.ok
}

const TITLES = ['LOAN', 'STATE', 'POLICY', 'FOR', 'AT', 'ASKED BY', 'ID', 'RIGHTS']

function row(loan: Loan): string[] {
  const { id, policy, spec, record } = loan
  return [
    id,
    stateText(loan),
    word(policy),
    recipientText(loan),
    placeOf(loan),
    loan.kind === 'adopted' ? 'others' : String(spec.asker.uid),
    record?.delegation === undefined ? '-' : String(record.delegation),
    record?.mount?.options.map(option => option.replace('delegate_', '')).join(' ') ?? '-',
  ]
}

/** What was loaded under them is the guard's to say, and root's to ask. */
function whereToSeeMore(loans: readonly Loan[]): string[] {
  const isGuarded = loans.some(({ record }) => record?.delegation !== undefined)
  if (!isGuarded || process.geteuid?.() !== 0) return []
  return ['what was loaded under these: bpftoken ls --tree --direct']
}

/** By whom it is lent to, each with what is derived from it. */
function treeLines(loans: readonly Loan[]): string[] {
  const ids = new Set(loans.map(({ id }) => id))
  const roots = loans.filter(({ spec }) => spec.parent === undefined || !ids.has(spec.parent))
  const groups = new Map<string, Loan[]>()
  for (const loan of roots) {
    const name = [recipientText(loan), loan.record?.recipient.userNamespace].filter(Boolean).join('  ')
    groups.set(name, [...(groups.get(name) ?? []), loan])
  }
  const below = (loan: Loan, indent: string, how = ''): string[] => [
    `${indent}${how}${loan.id} of policy ${word(loan.policy)} at ${placeOf(loan)}, ${stateText(loan)}`,
    ...loans
      .filter(({ spec }) => spec.parent === loan.id)
      .flatMap(derived => below(derived, `${indent}  `, 'derived ')),
  ]
  return [...groups].flatMap(([name, lent]) => [name, ...lent.flatMap(loan => below(loan, '  '))])
}

export async function showThrough(client: Client, name: LoanName, json: boolean): Promise<number> {
  const loan = await client.showLoan({ params: { id: await loanOf(client, name) } })
  if (json) printJson(loan)
  else print(...columns(loanRows(loan)))
  return EXIT.ok
}
