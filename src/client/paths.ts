/**
 * The routes as a client needs them: method, path, and what can be repeated or followed. The types
 * hold it to the table of src/api/routes.ts, which loads zod; a client starts without.
 */
import type { ROUTES, RouteEvent, RouteName } from '../api/routes.ts'

type Routes = typeof ROUTES

export const PATHS: { readonly [N in RouteName]: `${Routes[N]['method']} ${Routes[N]['path']}` } = {
  status: 'GET /v1/status',
  listPolicies: 'GET /v1/policies',
  showPolicy: 'GET /v1/policies/{name}',
  reload: 'POST /v1/reload',
  decide: 'POST /v1/decide',
  lend: 'POST /v1/loans',
  listLoans: 'GET /v1/loans',
  showLoan: 'GET /v1/loans/{id}',
  derive: 'POST /v1/loans/{id}/derive',
  renew: 'POST /v1/loans/{id}/renew',
  revoke: 'POST /v1/revoke',
  listRequests: 'GET /v1/requests',
  showRequest: 'GET /v1/requests/{id}',
  approve: 'POST /v1/requests/{id}/approve',
  deny: 'POST /v1/requests/{id}/deny',
  withdraw: 'POST /v1/requests/{id}/withdraw',
  events: 'GET /v1/events',
  audit: 'GET /v1/audit',
  verifyAudit: 'POST /v1/audit/verify',
  ociHook: 'POST /v1/hooks/oci',
  announceContainers: 'POST /v1/containers',
  listContainers: 'GET /v1/containers',
}

/** What takes an Idempotency-Key, so that it is done once however often it is asked for. */
export const KEYED: {
  readonly [N in RouteName as Routes[N] extends { readonly idempotent: true } ? N : never]: true
} = { lend: true, derive: true }

/** What can be followed as a stream. */
export type StreamName = { [N in RouteName]: [RouteEvent<N>] extends [never] ? never : N }[RouteName]
