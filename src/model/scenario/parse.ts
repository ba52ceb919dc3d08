/** The text of a scenario to its document, with line and column of whatever is wrong. */
import { PolicyError, type PolicyIssue } from '../../errors.ts'
import { type PlainDocument, readDocument } from '../../policy/document.ts'
import { pathText } from '../../policy/located.ts'
import { type ScenarioDocument, scenarioSchema } from './schema.ts'

export interface ParsedScenario {
  /** Names the text in messages. */
  readonly source: string
  readonly document: ScenarioDocument
  /** Where a value stands in the text. */
  readonly plain: PlainDocument
}

/** PolicyError with every issue found. */
export function parseScenario(source: string, content: string): ParsedScenario {
  const plain = readDocument(content)
  if (plain.issues.length > 0) throw new PolicyError(source, plain.issues)
  const hidden = protoKeys(plain.value, []).map(
    (path): PolicyIssue => ({ path: pathText(path), ...plain.keyAt(path), message: 'unknown field' }),
  )
  if (hidden.length > 0) throw new PolicyError(source, hidden)
  const checked = scenarioSchema.safeParse(plain.value, { jitless: true })
  if (checked.success) return { source, document: checked.data, plain }
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

type Path = readonly (string | number)[]

/** Where a key is `__proto__`: zod leaves these out of records without a word. */
function protoKeys(value: unknown, path: Path): Path[] {
  if (typeof value !== 'object' || value === null) return []
  const entries = Array.isArray(value) ? value.entries() : Object.entries(value)
  return [...entries].flatMap(([key, inner]: [string | number, unknown]): Path[] =>
    key === '__proto__' ? [[...path, key]] : protoKeys(inner, [...path, key]),
  )
}
