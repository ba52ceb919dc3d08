/** The text of a scenario to its document, with line and column of whatever is wrong. */
import { PolicyError, type PolicyIssue } from '../../errors.ts'
import { type PlainDocument, readDocument } from '../../policy/document.ts'
import { pathText } from '../../policy/located.ts'
import { type ScenarioDocument, scenarioSchema } from './schema.ts'

export interface ParsedScenario {
  readonly document: ScenarioDocument
  /** Where a value stands in the text. */
  readonly plain: PlainDocument
}

/** PolicyError with every issue found. */
export function parseScenario(source: string, content: string): ParsedScenario {
  const plain = readDocument(content)
  if (plain.issues.length > 0) throw new PolicyError(source, plain.issues)
  const checked = scenarioSchema.safeParse(plain.value, { jitless: true })
  if (checked.success) return { document: checked.data, plain }
  const issues = checked.error.issues.flatMap((issue): PolicyIssue[] => {
    const path = issue.path as (string | number)[]
    if (issue.code === 'unrecognized_keys')
      return issue.keys.map(key => ({
        path: pathText([...path, key]),
        ...plain.keyAt([...path, key]),
        message: 'unknown field',
      }))
    const message = issue.message.replace(/^Invalid (input|option): /, '')
    return [{ path: pathText(path), ...plain.valueAt(path), message }]
  })
  throw new PolicyError(
    source,
    issues.sort((a, b) => a.line - b.line || a.col - b.col),
  )
}
