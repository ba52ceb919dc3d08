/** Parts of a request, as the schemas of the routes take them. Pure. */
import type { z } from 'zod'
import { InputError } from '../../errors.ts'

const MAX_ISSUES = 20

interface Issue {
  /** Where, e.g. `body.recipient.pid`. */
  readonly path: string
  readonly message: string
}

/** Carries every issue that was found, up to twenty. */
export class InvalidRequest extends InputError {
  readonly issues: readonly Issue[]

  constructor(issues: readonly Issue[]) {
    super(issues.map(({ path, message }) => `${path}: ${message}`))
    this.issues = issues
  }

  override toJSON(): ReturnType<InputError['toJSON']> & { issues: readonly Issue[] } {
    return { ...super.toJSON(), issues: this.issues }
  }
}

type Part = 'params' | 'query' | 'body'

/**
 * What each part is by its schema; a part without a schema is not there, or empty. InvalidRequest
 * has the issues of all parts.
 */
export function validated(
  schemas: { readonly [P in Part]?: z.ZodType | undefined },
  parts: { readonly [P in Part]?: unknown },
): { [P in Part]?: unknown } {
  const result: { [P in Part]?: unknown } = {}
  const issues: Issue[] = []
  for (const part of ['params', 'query', 'body'] as const) {
    const schema = schemas[part]
    const value = parts[part]
    if (schema === undefined) {
      if (Object.keys(value ?? {}).length > 0)
        issues.push({ path: part, message: `this route takes no ${part}` })
      continue
    }
    const parsed = schema.safeParse(value)
    if (parsed.success) result[part] = parsed.data
    else issues.push(...parsed.error.issues.flatMap(issue => flat(issue as ZodIssue, part)))
  }
  if (issues.length > 0) throw new InvalidRequest(issues.slice(0, MAX_ISSUES))
  return result
}

interface ZodIssue {
  readonly code?: string
  readonly path: readonly PropertyKey[]
  readonly message: string
  readonly errors?: readonly (readonly ZodIssue[])[]
}

/** Of a choice of several forms, what is wrong with the one that is nearest. */
function flat(issue: ZodIssue, at: string): Issue[] {
  const path = [at, ...issue.path.map(String)].join('.')
  if (issue.code !== 'invalid_union' || issue.errors === undefined || issue.errors.length === 0)
    return [{ path, message: issue.message }]
  const [nearest] = [...issue.errors].sort((a, b) => a.length - b.length)
  return nearest!.flatMap(one => flat(one, path))
}
