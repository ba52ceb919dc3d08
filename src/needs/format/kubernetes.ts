/** A plan as a fragment of a pod's specification. Pure. */
import type { RightsPlan } from '../plan.ts'
import { comments, heading } from './comments.ts'
import { capabilityWords, containerRemarks, type FormatFacts, mountedBy } from './container.ts'

/** The kubelet looks for profiles below it. */
const PROFILES = '/var/lib/kubelet/seccomp'

export function kubernetesText(plan: RightsPlan, facts: FormatFacts): string[] {
  const { seccomp } = facts
  const file = seccomp.is === 'made' ? `bpftoken/${seccomp.path.replace(/^.*\//s, '')}` : undefined
  return [
    ...comments([heading(plan)]),
    'spec:',
    '  hostUsers: false',
    '  containers:',
    '    - name: NAME',
    '      securityContext:',
    '        capabilities:',
    '          add:',
    ...capabilityWords(plan).map(name => `            - ${name}`),
    '        seccompProfile:',
    ...(file === undefined
      ? ['          type: RuntimeDefault']
      : ['          type: Localhost', `          localhostProfile: ${JSON.stringify(file)}`]),
    ...containerRemarks(plan, facts, {
      own: file === undefined ? [] : [`Each node needs the profile as ${PROFILES}/${file}`],
      mount: [
        'Kubernetes cannot say: a bpffs that delegates. No volume and no field of a pod is one.',
        ...mountedBy(facts.words, { cgroup: 'DIR' }, 'root of the node'),
        "DIR is the cgroup of the pod's container, below /sys/fs/cgroup/kubepods.slice.",
      ],
    }),
  ]
}
