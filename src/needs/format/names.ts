/** The names of the forms of a plan, alone: a command line knows them before any plan is made. */
export const PLAN_FORMATS = [
  'yaml',
  'options',
  'podman',
  'docker',
  'compose',
  'quadlet',
  'systemd',
  'lxd',
  'incus',
  'kubernetes',
] as const
export type PlanFormat = (typeof PLAN_FORMATS)[number]
