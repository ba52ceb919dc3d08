/**
 * The schema of every document that goes out as JSON: one source, for what is published and for the
 * tests that hold the commands to it. Loads zod, so load it only where it is asked for.
 */
import { z } from 'zod'
import { error } from './error.ts'
import * as guard from './guard.ts'
import * as lending from './lending.ts'
import { DOCUMENTS, type DocumentName } from './names.ts'
import * as objects from './objects.ts'
import * as policy from './policy.ts'

export const SCHEMAS: Readonly<Record<DocumentName, z.ZodType>> = {
  error,
  doctor: lending.doctor,
  'run-dry-run': lending.runDryRun,
  delegate: lending.delegate,
  'delegate-dry-run': lending.delegateDryRun,
  undelegate: lending.undelegate,
  derive: lending.derive,
  confine: lending.confine,
  unconfine: lending.unconfine,
  ls: lending.ls,
  'ls-tree': guard.lsTree,
  'policy-check': policy.policyCheck,
  'policy-show': policy.policyShow,
  'policy-show-masks': policy.policyShowMasks,
  'policy-diff': policy.policyDiff,
  'policy-test': policy.policyTest,
  'policy-install': policy.policyInstall,
  'guard-install': guard.guardInstall,
  'guard-status': guard.guardStatus,
  'guard-allow': guard.guardAllow,
  'guard-disallow': guard.guardDisallow,
  'guard-remove': guard.guardRemove,
  revoke: guard.revoke,
  show: guard.show,
  events: guard.events,
  plan: objects.plan,
  'plan-check': objects.planCheck,
  'obj-show': objects.objShow,
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
