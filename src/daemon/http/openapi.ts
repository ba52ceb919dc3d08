/** The OpenAPI document, from the table of routes. Loads zod-openapi. */
import { z } from 'zod'
import { createDocument, type ZodOpenApiOperationObject, type ZodOpenApiPathsObject } from 'zod-openapi'
import * as container from '../../api/container.ts'
import * as loan from '../../api/loan.ts'
import { ROUTES, type Route, type RouteName } from '../../api/routes.ts'
import * as service from '../../api/service.ts'
import { JSON_TYPE } from './answer.ts'
import { PROBLEM_TYPE } from './problem.ts'
import { STREAM_TYPE } from './stream.ts'

/** Schemas that stand in more than one place, or that a client wants to name. */
const COMPONENTS: Readonly<Record<string, z.ZodType>> = {
  Problem: service.problem,
  Loan: loan.loan,
  LoanList: loan.loans,
  LoanId: loan.loanId,
  Lent: loan.lent,
  WouldLend: loan.wouldLend,
  Waiting: loan.waiting,
  Revoked: loan.revoked,
  Asker: loan.asker,
  Recipient: loan.recipient,
  PolicyChoice: loan.policyChoice,
  LendBody: loan.lendBody,
  DeriveBody: loan.deriveBody,
  RenewBody: loan.renewBody,
  RevokeBody: loan.revokeBody,
  DecideBody: loan.decideBody,
  DecideRequestBody: service.decideRequestBody,
  ApprovalRequest: loan.approvalRequest,
  ApprovalRequestList: loan.requests,
  RequestId: loan.requestId,
  Status: service.status,
  Policies: service.policies,
  PolicyText: service.policyText,
  Decision: service.decision,
  GuardEvent: service.guardEvent,
  GuardEvents: service.guardEvents,
  AuditRecord: service.auditRecord,
  AuditRecords: service.auditRecords,
  AuditVerdict: service.auditVerdict,
  Reloaded: service.reloaded,
  OciHookAnswer: container.ociHookAnswer,
  Concern: loan.concern,
  AnnounceBody: container.announceBody,
  AnnouncedContainer: container.announced,
  Pod: container.pod,
  KnownContainer: container.knownContainer,
  KnownContainers: container.containers,
}

/** By status: what an answer without a body of its own means. */
const FAILURES = {
  400: 'The request is not valid',
  403: 'Refused by policy, or it is not yours',
  404: 'There is no such thing, or it is not yours to see',
  409: 'In conflict with what is there',
  429: 'Asked for too much at once',
  500: 'It failed',
  503: 'The daemon stops',
} as const

export interface OpenApiDocument {
  readonly openapi: string
  readonly paths: Readonly<Record<string, Readonly<Record<string, unknown>>>>
  readonly components: { readonly schemas: Readonly<Record<string, Readonly<Record<string, unknown>>>> }
}

export function openApiDocument(version: string): OpenApiDocument {
  const paths: Record<string, Record<string, ZodOpenApiOperationObject>> = {}
  for (const [name, route] of Object.entries(ROUTES) as [RouteName, Route][]) {
    paths[route.path] ??= {}
    paths[route.path]![route.method.toLowerCase()] = operation(name, route)
  }
  return createDocument(
    {
      openapi: '3.1.1',
      info: {
        title: 'bpftokend',
        version,
        description:
          'Lends eBPF to unprivileged programs: precisely, with audit, and revocably. It answers on a Unix socket, /run/bpftoken/bpftokend.sock; who asks is known by the kernel, so there are no credentials.',
        license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
      },
      servers: [{ url: 'http://localhost', description: 'By the Unix socket; the host is not looked at' }],
      paths: paths as ZodOpenApiPathsObject,
      components: { schemas: COMPONENTS as Record<string, z.ZodType & { _zod: z.ZodType['_zod'] }> },
    },
    { override: ({ jsonSchema }) => withoutDefaults(jsonSchema) },
  ) as unknown as OpenApiDocument
}

/** zod says of each whole number that it is no larger than a number can be exactly. */
function withoutDefaults(schema: { minimum?: number; maximum?: number }): void {
  if (schema.maximum === Number.MAX_SAFE_INTEGER) delete schema.maximum
  if (schema.minimum === Number.MIN_SAFE_INTEGER) delete schema.minimum
}

function operation(name: RouteName, route: Route): ZodOpenApiOperationObject {
  const { params, query, body, stream } = route
  const headers = {
    ...(route.idempotent && {
      'Idempotency-Key': z
        .string()
        .regex(/^[\x21-\x7e]{1,128}$/)
        .optional()
        .describe('Of the same user, the same key is answered the same, and nothing is lent again'),
    }),
    ...(stream !== undefined && {
      'Last-Event-ID': z.string().optional().describe('The events behind it'),
    }),
  }
  return {
    operationId: name,
    summary: route.summary,
    ...(route.root && { description: 'Root alone.' }),
    requestParams: {
      ...(params && { path: params }),
      ...(query && { query }),
      ...(Object.keys(headers).length > 0 && { header: z.object(headers) }),
    },
    ...(body && { requestBody: { required: true, content: { [JSON_TYPE]: { schema: body } } } }),
    responses: {
      ...Object.fromEntries(
        Object.entries(route.answers).map(([status, schema]) => [
          status,
          {
            description:
              status === '202' ? 'It waits to be approved' : status === '201' ? 'Made' : 'The answer',
            content: {
              [JSON_TYPE]: { schema },
              ...(stream !== undefined && {
                [STREAM_TYPE]: {
                  schema: z.string().describe('Each event has such data, as JSON; the last, "end", says why'),
                },
              }),
            },
          },
        ]),
      ),
      ...Object.fromEntries(
        Object.entries(FAILURES).map(([status, description]) => [
          status,
          { description, content: { [PROBLEM_TYPE]: { schema: service.problem } } },
        ]),
      ),
    },
  } as ZodOpenApiOperationObject
}
