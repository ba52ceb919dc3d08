/** The document that tells of a failure. Loads zod. */
import { z } from 'zod'
import { ERROR_CODES, type ErrorCode } from '../errors.ts'
import { strict, text } from './basics.ts'
import { issues, trace } from './policy.ts'

const failure = {
  code: z.enum(Object.keys(ERROR_CODES) as [ErrorCode, ...ErrorCode[]]),
  reason: text.optional().describe('Which of several next steps helps'),
  message: text,
  hint: text.optional(),
  context: z.record(text, z.union([text, z.number(), z.boolean()])).describe('Facts about it'),
  issues: issues.optional().describe('Of a policy that is not valid'),
  trace: trace.optional().describe('Of a refusal by policy: what was compared'),
}

export const error = strict({
  error: strict({
    ...failure,
    causes: z.array(z.union([text, strict({ ...failure, causes: z.array(text).optional() })])).optional(),
  }),
})
