/** Which fields a step has, by what is done. One that is read by nothing is refused. */
import type { z } from 'zod'

type Fields = readonly string[]

/** `as`: by whom. What calls bpf(2) may also be refused by another security module. */
const BY: Fields = ['as']
const CALL: Fields = ['as', 'lsm']

export const FIELDS_OF: Readonly<Record<string, Fields>> = {
  fsopen: [...BY, 'context'],
  set: [...BY, 'context', 'key', 'value'],
  create: [...BY, 'context'],
  fsmount: [...BY, 'context', 'mount'],
  mount: [...BY, 'mount', 'options'],
  bind: [...BY, 'mount', 'to'],
  move: [...BY, 'mount', 'to'],
  token: [...CALL, 'mount', 'token'],
  map: [...CALL, 'type', 'token', 'bytes'],
  prog: [...CALL, 'type', 'attach', 'token', 'instructions', 'target', 'digest', 'prog'],
  btf: [...CALL, 'token'],
  btf_by_id: [...CALL, 'token'],
  attach: [...CALL, 'prog', 'attach', 'cgroup'],
  detach: [...CALL, 'prog', 'attach', 'cgroup'],
  pin: [...CALL, 'mount', 'token'],
  pass: [...BY, 'token', 'to'],
  reopen: [...BY, 'token'],
  derive: [...BY, 'mount', 'delegator'],
  revoke: [...BY, 'mount'],
  renew: [...BY, 'mount', 'for'],
  wait: ['for'],
}

/** Of every step: what is done, and what is expected of it. */
const OF_ALL: Fields = ['do', 'expect', 'because']

/** Tells of each field that this step does not read. */
export function onlyItsFields(step: { readonly do: string }, context: z.RefinementCtx): void {
  const may = [...OF_ALL, ...FIELDS_OF[step.do]!]
  for (const field of Object.keys(step))
    if (!may.includes(field))
      context.addIssue({ code: 'custom', path: [field], message: `"${step.do}" has no field "${field}"` })
}
