/** A plan as a fragment of a compose file. Pure. */
import type { RightsPlan } from '../plan.ts'
import { comments, heading } from './comments.ts'
import { capabilityWords, containerRemarks, type FormatFacts, mountedBy } from './container.ts'
import { DOCKER_USER_NAMESPACE } from './docker.ts'

export function composeText(plan: RightsPlan, facts: FormatFacts): string[] {
  const { seccomp } = facts
  return [
    ...comments([heading(plan)]),
    'services:',
    '  NAME:',
    '    cap_add:',
    ...capabilityWords(plan).map(name => `      - ${name}`),
    // A dollar sign begins a variable in compose files.
    ...(seccomp.is === 'made'
      ? ['    security_opt:', `      - ${JSON.stringify(`seccomp=${seccomp.path.replaceAll('$', '$$$$')}`)}`]
      : []),
    ...containerRemarks(plan, facts, {
      own: [DOCKER_USER_NAMESPACE, 'With podman-compose add to the service: userns_mode: "auto"'],
      mount: mountedBy(facts.words, { container: 'NAME' }),
    }),
  ]
}
