/** What root alone is told: the audit, and what came of reading the policies again. */
import type { RouteAnswer, RouteRequest } from '../api/routes.ts'
import { DeniedError } from '../errors.ts'
import { type Asking, asking } from './lend.ts'
import type { Parts } from './parts.ts'
import type { Answered, Call } from './service.ts'

/** DeniedError: it is not root. */
export function requireRoot(who: Asking): Asking {
  if (who.isRoot) return who
  throw new DeniedError('Only root may do this', { context: { uid: who.facts.uid } })
}

/** `GET /v1/audit` */
export async function auditRoute(
  { audit }: Parts,
  { asker }: Call,
  { query: { since, after, loan, limit } }: RouteRequest<'audit'>,
): Promise<Answered<'audit'>> {
  requireRoot(await asking(asker))
  const { records, next } = await audit.query({
    since: since === undefined ? undefined : Date.parse(since),
    after,
    loan: loan === undefined ? undefined : Number(loan.slice('loan-'.length)),
    limit,
  })
  return {
    status: 200,
    body: { records: records.map(record => ({ ...record, facts: { ...record.facts } })), next },
  }
}

/** `POST /v1/audit/verify` */
export async function verifyAuditRoute({ audit }: Parts, { asker }: Call): Promise<Answered<'verifyAudit'>> {
  requireRoot(await asking(asker))
  return { status: 200, body: await audit.verify() }
}

export async function reloadPolicies({ policies, log, owed }: Parts): Promise<RouteAnswer<'reload'>> {
  const before = new Map([...policies.all()].map(({ policy, digest }) => [policy.name, digest]))
  await policies.reload()
  const after = new Map([...policies.all()].map(({ policy, digest }) => [policy.name, digest]))
  const changed = [...after].filter(([name, digest]) => before.get(name) !== digest).map(([name]) => name)
  const removed = [...before.keys()].filter(name => !after.has(name))
  const faults = policies.faults.map(({ file, message }) => ({ file, message }))
  for (const { file, message } of faults) log.error({ file }, `a policy could not be taken: ${message}`)
  if (changed.length > 0 || removed.length > 0) {
    const digests = Object.fromEntries(changed.slice(0, 200).map(name => [name, after.get(name)]))
    const facts = { digests, changed: changed.length, removed: removed.slice(0, 200), faults: faults.length }
    await owed.note({ event: 'policies.loaded', facts })
    log.info({ changed: changed.length, removed: removed.length }, 'the policies have changed')
  }
  return { loaded: after.size, faults }
}
