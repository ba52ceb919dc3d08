/** bpftoken policy diff: what one policy grants and another does not, side by side. */
import { EXIT } from '../../errors.ts'
import { comparePolicies, type Difference, type PolicyDifferences } from '../../policy/diff.ts'
import { print, printJson, styled, table } from '../output.ts'
import { loadPolicy } from '../policy-file.ts'
import { type KernelName, policyWords } from '../policy-words.ts'
import { levelText } from '../risk-text.ts'

export interface DiffOptions {
  kernel?: KernelName
  json?: boolean
}

/** Exit 0: they are the same; 1: they differ; as diff(1). */
export async function diff(before: string, after: string, options: DiffOptions): Promise<number> {
  const vocabulary = await policyWords(options.kernel)
  const found = comparePolicies(
    await loadPolicy(before, vocabulary),
    await loadPolicy(after, vocabulary),
    vocabulary,
  )
  const same = found.differences.length === 0
  if (options.json === true) printJson({ before, after, same, ...found })
  else if (same) print(`${before} and ${after} grant the same`)
  else describe(before, after, found)
  return same ? EXIT.ok : EXIT.failed
}

function describe(before: string, after: string, { differences, risk }: PolicyDifferences): void {
  const rows = differences.map(one => [one.path, one.before ?? '-', one.after ?? '-', grantsText(one)])
  print(
    ...table([
      ['FIELD', before, after, ''].map(title => styled('heading', title)),
      ...rows,
      ['risk', levelText(risk.before), levelText(risk.after), ''],
    ]),
    summary(before, after, differences),
  )
}

function grantsText({ grants }: Difference) {
  if (grants === 'other') return ''
  return grants === 'more' ? styled('bad', 'more') : styled('good', 'less')
}

function summary(before: string, after: string, differences: readonly Difference[]): string {
  const count = (grants: Difference['grants']) => differences.filter(one => one.grants === grants).length
  const parts = (['more', 'less'] as const).filter(grants => count(grants) > 0)
  if (parts.length === 0) return `${after} grants the same as ${before}, under other words`
  const text = parts.map(grants => `${grants} (${count(grants)})`).join(' and ')
  return `${after} grants ${text}, compared with ${before}`
}
