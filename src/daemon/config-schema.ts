/** What the configuration may say. Loads yaml and zod. */
import { parseDocument } from 'yaml'
import { z } from 'zod'
import { account, strict } from '../api/basics.ts'
import { FormatError } from '../errors.ts'

const atMost = (max: number) => z.int().min(1).max(max).optional()

const schema = strict({
  limits: strict({
    openLoans: atMost(100_000).describe('Loans of one user that live at one time'),
    requestsPerMinute: atMost(1_000_000).describe('Of one user'),
    waitingRequests: atMost(1000).describe('Requests of one user that wait for approval'),
    connectionsPerUid: atMost(10_000),
    connections: atMost(10_000).describe('Of all users but root'),
  }).optional(),
  approval: strict({
    timeoutSec: atMost(30 * 86_400).describe('How long a request waits'),
  }).optional(),
  audit: strict({
    journal: z.boolean().optional().describe('Whether each record is handed on to journald, too'),
  }).optional(),
  metrics: strict({
    readers: z.array(account).max(64).optional().describe('Users besides root that may read /metrics'),
  }).optional(),
})

/** FormatError: it is no YAML, or says what there is not. */
export function parseConfig(path: string, text: string): z.output<typeof schema> {
  const document = parseDocument(text, { prettyErrors: true })
  const [fault] = [...document.errors, ...document.warnings]
  if (fault !== undefined) throw new FormatError(path, fault.message.split('\n')[0]!)
  const parsed = schema.safeParse(document.toJS({ maxAliasCount: 0 }) ?? {})
  if (parsed.success) return parsed.data
  const told = parsed.error.issues.map(({ path: at, message }) => `${at.join('.') || 'it'}: ${message}`)
  throw new FormatError(path, told.join('; '))
}
