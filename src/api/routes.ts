/**
 * The routes of the daemon: one table for the server that validates by it, the client that is typed
 * by it, and the OpenAPI document. Loads zod.
 */
import { z } from 'zod'
import { strict } from './basics.ts'
import * as container from './container.ts'
import * as loans from './loan.ts'
import * as service from './service.ts'

export type Method = 'GET' | 'POST'

export interface Route {
  readonly method: Method
  /** With `{name}` for what `params` has. */
  readonly path: string
  readonly summary: string
  readonly params?: z.ZodObject
  /** Values are text; the schema turns them into what they mean. */
  readonly query?: z.ZodObject
  readonly body?: z.ZodType
  /** By status: the schema of the answer. */
  readonly answers: Readonly<Record<number, z.ZodType>>
  /** Also as a stream of server-sent events, each with such data. */
  readonly stream?: z.ZodType
  /** Root alone; else who asks sees, and may do, what is its own. */
  readonly root?: true
  /** Takes the header Idempotency-Key. */
  readonly idempotent?: true
}

const number = (max: number) =>
  z
    .string()
    .regex(/^(0|[1-9][0-9]{0,15})$/)
    .transform(Number)
    .pipe(z.int().min(0).max(max))
const limit = number(10_000).optional()
const after = number(Number.MAX_SAFE_INTEGER).optional()
const uid = number(0xffff_fffe).optional()
const name = z.string().min(1).max(255).optional()
const loanParams = strict({ id: loans.loanId })
const requestParams = strict({ id: loans.requestId })
const since = z.iso.datetime({ offset: true }).optional()

export const ROUTES = {
  status: {
    method: 'GET',
    path: '/v1/status',
    summary: 'How the daemon is',
    answers: { 200: service.status },
  },
  listPolicies: {
    method: 'GET',
    path: '/v1/policies',
    summary: 'The policies that whoever asks may have; for root all',
    answers: { 200: service.policies },
  },
  showPolicy: {
    method: 'GET',
    path: '/v1/policies/{name}',
    summary: 'A policy as it is written',
    params: strict({ name: loans.policyName }),
    answers: { 200: service.policyText },
  },
  reload: {
    method: 'POST',
    path: '/v1/reload',
    summary: 'Read the policies again; of a bad file the old policy holds',
    root: true,
    answers: { 200: service.reloaded },
  },
  decide: {
    method: 'POST',
    path: '/v1/decide',
    summary: 'Whether whoever asks would get a delegation, and why; nothing is done',
    body: loans.decideBody,
    answers: { 200: service.decision },
  },
  lend: {
    method: 'POST',
    path: '/v1/loans',
    summary: 'Lend to a user namespace',
    body: loans.lendBody,
    idempotent: true,
    answers: { 200: loans.wouldLend, 201: loans.lent, 202: loans.waiting },
  },
  listLoans: {
    method: 'GET',
    path: '/v1/loans',
    summary: 'The loans of whoever asks; for root all',
    query: strict({
      state: z.enum(['live', 'ended', 'all']).optional(),
      uid,
      policy: loans.policyName.optional(),
      container: name,
      unit: name,
      limit,
    }),
    stream: loans.loans,
    answers: { 200: loans.loans },
  },
  showLoan: {
    method: 'GET',
    path: '/v1/loans/{id}',
    summary: 'One loan',
    params: loanParams,
    answers: { 200: loans.loan },
  },
  derive: {
    method: 'POST',
    path: '/v1/loans/{id}/derive',
    summary: 'Lend a part of a loan on; it falls with its origin',
    params: loanParams,
    body: loans.deriveBody,
    idempotent: true,
    answers: { 201: loans.lent },
  },
  renew: {
    method: 'POST',
    path: '/v1/loans/{id}/renew',
    summary: 'Let a loan live as long again from now, within its policy',
    params: loanParams,
    body: loans.renewBody,
    answers: { 200: loans.loan },
  },
  revoke: {
    method: 'POST',
    path: '/v1/revoke',
    summary: 'Take loans back, with what is derived from them',
    body: loans.revokeBody,
    answers: { 200: loans.revoked },
  },
  listRequests: {
    method: 'GET',
    path: '/v1/requests',
    summary: 'What waits to be approved, or was; for root all',
    query: strict({ state: z.enum(['waiting', 'all']).optional(), limit }),
    stream: loans.requests,
    answers: { 200: loans.requests },
  },
  showRequest: {
    method: 'GET',
    path: '/v1/requests/{id}',
    summary: 'One request; with ?wait=SECONDS the answer comes once it is decided, or then',
    params: requestParams,
    query: strict({ wait: number(60).optional() }),
    answers: { 200: loans.approvalRequest },
  },
  approve: {
    method: 'POST',
    path: '/v1/requests/{id}/approve',
    summary: 'Lend what was asked for, if whoever asked still is who may have it',
    params: requestParams,
    body: service.decideRequestBody,
    root: true,
    answers: { 200: loans.approvalRequest },
  },
  deny: {
    method: 'POST',
    path: '/v1/requests/{id}/deny',
    summary: 'Do not lend it',
    params: requestParams,
    body: service.decideRequestBody,
    root: true,
    answers: { 200: loans.approvalRequest },
  },
  withdraw: {
    method: 'POST',
    path: '/v1/requests/{id}/withdraw',
    summary: 'Whoever asked does not want it any more',
    params: requestParams,
    answers: { 200: loans.approvalRequest },
  },
  events: {
    method: 'GET',
    path: '/v1/events',
    summary: "What the guard refused, and let through, of the asker's loans; for root all",
    query: strict({ since, after, delegation: number(0xffff_ffff).optional(), uid, reason: name, limit }),
    stream: service.guardEvent,
    answers: { 200: service.guardEvents },
  },
  audit: {
    method: 'GET',
    path: '/v1/audit',
    summary: 'Who asked for what, what was decided, what was made and how it ended',
    query: strict({ since, after, loan: loans.loanId.optional(), limit }),
    root: true,
    answers: { 200: service.auditRecords },
  },
  verifyAudit: {
    method: 'POST',
    path: '/v1/audit/verify',
    summary: 'Whether the chain of the audit records is whole',
    root: true,
    answers: { 200: service.auditVerdict },
  },
  ociHook: {
    method: 'POST',
    path: '/v1/hooks/oci',
    summary:
      'Root alone, and whoever else tries is written down: lend to a container that is being made, if it asks by annotation; its runtime waits',
    body: container.ociHookBody,
    answers: { 200: container.ociHookAnswer },
  },
  announceContainers: {
    method: 'POST',
    path: '/v1/containers',
    summary: 'What a runtime knows of containers, for policies that name them',
    body: container.announceBody,
    root: true,
    answers: { 200: container.announcedAnswer },
  },
  listContainers: {
    method: 'GET',
    path: '/v1/containers',
    summary: 'What is known of containers, and by whom',
    root: true,
    answers: { 200: container.containers },
  },
} as const satisfies Record<string, Route>

export type RouteName = keyof typeof ROUTES

type Of<R, K extends string> = R extends { readonly [P in K]: infer T extends z.ZodType } ? T : never

/** What a caller gives for a route: its parameters, query and body, before they are validated. */
export type RouteInput<N extends RouteName> = InputPart<N, 'params'> &
  InputPart<N, 'query'> &
  InputPart<N, 'body'>
type InputPart<N extends RouteName, K extends 'params' | 'query' | 'body'> = (typeof ROUTES)[N] extends {
  readonly [P in K]: infer T extends z.ZodType
}
  ? { readonly [P in K]: z.input<T> }
  : unknown

/** The same, validated. */
export type RouteRequest<N extends RouteName> = RequestPart<N, 'params'> &
  RequestPart<N, 'query'> &
  RequestPart<N, 'body'>
type RequestPart<N extends RouteName, K extends 'params' | 'query' | 'body'> = (typeof ROUTES)[N] extends {
  readonly [P in K]: infer T extends z.ZodType
}
  ? { readonly [P in K]: z.output<T> }
  : unknown

/** What a route answers, whatever its status. */
export type RouteAnswer<N extends RouteName> = {
  [S in keyof (typeof ROUTES)[N]['answers']]: (typeof ROUTES)[N]['answers'][S] extends infer T extends
    z.ZodType
    ? z.output<T>
    : never
}[keyof (typeof ROUTES)[N]['answers']]

/** The data of one event of its stream. */
export type RouteEvent<N extends RouteName> = z.output<Of<(typeof ROUTES)[N], 'stream'>>

/** What `problem+json` has. */
export type Problem = z.output<typeof service.problem>
