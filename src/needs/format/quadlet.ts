/** A plan as a fragment of a Quadlet's .container file (Podman 4.4 and later). Pure. */
import type { RightsPlan } from '../plan.ts'
import { capabilityNames, comments, heading } from './comments.ts'
import { containerRemarks, type FormatFacts } from './container.ts'

export function quadletText(plan: RightsPlan, facts: FormatFacts): string[] {
  const { seccomp, words } = facts
  return [
    ...comments([heading(plan)]),
    '[Container]',
    'UserNS=auto',
    `AddCapability=${capabilityNames(plan)}`,
    ...(seccomp.is === 'made' ? [`SeccompProfile=${seccomp.path.replaceAll('%', '%%')}`] : []),
    '',
    '[Service]',
    ...comments(['Where [Container] has no ContainerName=, Podman calls it so:']),
    `ExecStartPost=${words.lend({ container: 'systemd-%N' }, '/etc/bpftoken/%N.yaml')}`,
    ...containerRemarks(plan, facts, {
      mount: [
        `The bpffs is mounted by ExecStartPost=, which is root in a system unit. The policy is what ${words.plan} prints`,
        "by itself. A user's unit may not lend: there root of the host does it:",
        `  ${words.lend({ container: 'USER/NAME' }, 'POLICY')}`,
      ],
    }),
  ]
}
