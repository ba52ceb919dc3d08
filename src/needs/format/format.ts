/** The forms in which a plan is printed: our own policy, and the formats of other tools. Pure. */
import type { RightsPlan } from '../plan.ts'
import { composeText } from './compose.ts'
import type { FormatFacts } from './container.ts'
import { dockerText } from './docker.ts'
import { incusText } from './incus.ts'
import { kubernetesText } from './kubernetes.ts'
import { lxdText } from './lxd.ts'
import type { PlanFormat } from './names.ts'
import { optionsText } from './options.ts'
import { podmanText } from './podman.ts'
import { policyText } from './policy.ts'
import { quadletText } from './quadlet.ts'
import { systemdText } from './systemd.ts'

type Text = (plan: RightsPlan, facts: FormatFacts) => string[]

const TEXTS: Readonly<Record<PlanFormat, Text>> = {
  yaml: plan => policyText(plan),
  options: optionsText,
  podman: podmanText,
  docker: dockerText,
  compose: composeText,
  quadlet: quadletText,
  systemd: systemdText,
  lxd: lxdText,
  incus: incusText,
  kubernetes: kubernetesText,
}

/** The forms that name a seccomp profile, each with the runtime whose profile it is. */
export const SECCOMP_FORMATS: Partial<Record<PlanFormat, 'podman' | 'docker'>> = {
  podman: 'podman',
  docker: 'docker',
  compose: 'docker',
  quadlet: 'podman',
  kubernetes: 'docker',
}

/** The lines of it. Names from objects are within one line each. */
export function planLines(plan: RightsPlan, format: PlanFormat, facts: FormatFacts): string[] {
  return TEXTS[format](plan, facts)
}
