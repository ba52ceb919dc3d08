/**
 * The schema of every document that goes out as JSON: one source, for what is published and for the
 * tests that hold the commands to it. Loads zod, so load it only where it is asked for.
 */
import { z } from 'zod'
import { explained, recorded } from './answers.ts'
import * as container from './container.ts'
import { error } from './error.ts'
import * as guard from './guard.ts'
import * as lending from './lending.ts'
import * as loan from './loan.ts'
import { DOCUMENTS, type DocumentName } from './names.ts'
import * as objects from './objects.ts'
import * as policy from './policy.ts'
import * as service from './service.ts'
import { simulated } from './simulate.ts'
import * as systemd from './systemd.ts'

/** A request that was waited for, and approved. */
const granted = z.strictObject({ request: loan.approvalRequest, loan: loan.loan })

export const SCHEMAS: Readonly<Record<DocumentName, z.ZodType>> = {
  error,
  doctor: lending.doctor,
  'run-dry-run': lending.runDryRun,
  delegate: z.union([lending.delegate, loan.lent, loan.waiting, granted]),
  'delegate-dry-run': z.union([lending.delegateDryRun, loan.wouldLend]),
  undelegate: z.union([lending.undelegate, loan.revoked]),
  derive: z.union([lending.derive, loan.lent]),
  confine: lending.confine,
  unconfine: lending.unconfine,
  ls: z.union([lending.ls, loan.loans]),
  'ls-tree': z.union([guard.lsTree, loan.loans]),
  status: service.status,
  page: service.pageAddresses,
  requests: z.union([loan.requests, loan.approvalRequest]),
  approve: loan.approvalRequest,
  deny: loan.approvalRequest,
  renew: loan.loan,
  explain: z.union([service.decision, explained]),
  record: recorded,
  'containers-install': container.containersStatus,
  'containers-status': container.containersStatus,
  'containers-remove': container.containersStatus,
  'systemd-dropin': systemd.systemdDropin,
  'systemd-dropin-remove': systemd.systemdDropinRemoved,
  reload: service.reloaded,
  'audit-query': service.auditRecord,
  'audit-export': service.auditRecord,
  'audit-verify': service.auditVerdict,
  'policy-check': policy.policyCheck,
  'policy-show': policy.policyShow,
  'policy-show-masks': policy.policyShowMasks,
  'policy-diff': policy.policyDiff,
  'policy-merge': policy.policyMerge,
  'policy-test': policy.policyTest,
  simulate: simulated,
  'policy-list': service.policies,
  'policy-install': policy.policyInstall,
  'guard-install': guard.guardInstall,
  'guard-status': guard.guardStatus,
  'guard-allow': guard.guardAllow,
  'guard-disallow': guard.guardDisallow,
  'guard-remove': guard.guardRemove,
  revoke: z.union([guard.revoke, loan.revoked]),
  show: z.union([guard.show, loan.loan]),
  events: z.union([guard.events, service.guardEvent]),
  'events-suggest': guard.eventsSuggest,
  plan: objects.plan,
  'plan-check': objects.planCheck,
  'obj-show': objects.objShow,
  'obj-link': objects.objLink,
  'obj-types': objects.objTypes,
  'obj-load': objects.objLoad,
  'obj-load-watch': objects.objLoadWatch,
  try: objects.tryObject,
  init: objects.init,
  'token-show': objects.tokenShow,
}

/** JSON Schema, draft 2020-12. */
export function jsonSchemaOf(name: DocumentName): Record<string, unknown> {
  const { $schema, ...schema } = z.toJSONSchema(SCHEMAS[name], { io: 'output', unrepresentable: 'any' })
  return { $schema, title: `bpftoken ${name}`, description: DOCUMENTS[name], ...schema }
}
