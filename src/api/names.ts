/**
 * The JSON documents by name: that of the command that prints it, and what makes it
 * print another one. Apart from their schemas, which load zod.
 */
export const DOCUMENTS = {
  error: 'what failed, on stderr; of every command',
  doctor: 'what this machine can delegate',
  'run-dry-run': 'what run would do',
  delegate: 'what was lent',
  'delegate-dry-run': 'what delegate would do',
  undelegate: 'what was taken back',
  derive: 'what was lent, and what of the policy was not there to lend',
  confine: 'what is confined now',
  unconfine: 'what is confined no more',
  ls: 'all delegated bpffs instances',
  'ls-tree': 'what is lent, by who has it, with what lives of it',
  'policy-check': 'of each policy, what is wrong with it, and its risk',
  'policy-show': 'a policy as it is understood',
  'policy-show-masks': 'the four masks of a policy',
  'policy-diff': 'what a policy grants more and less than another one',
  'policy-test': 'who would get a delegation, and why',
  'policy-install': 'what the guard knows now',
  'guard-install': 'the guard as it is installed',
  'guard-status': 'the guard as it is found, and what lives',
  'guard-allow': 'who may delegate now',
  'guard-disallow': 'who may delegate no more',
  'guard-remove': 'that the guard is gone',
  revoke: 'what was taken back and undone',
  show: 'one delegation, as the guard knows it',
  events: 'one verdict of the guard; a line for each',
  plan: 'the least rights that objects need',
  'plan-check': 'how a policy compares with them',
  'obj-show': 'what object files hold',
  'obj-load': 'what was loaded',
  'obj-load-watch': 'what was loaded, then what it counts and tells; a line for each',
  try: 'the policy that is lent, then what the object counts and tells; a line for each',
  init: 'which files were written',
  'token-show': 'what a token allows',
} as const

export type DocumentName = keyof typeof DOCUMENTS
export const DOCUMENT_NAMES = Object.keys(DOCUMENTS) as readonly DocumentName[]
