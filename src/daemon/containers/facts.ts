/**
 * What is known of a container by root's word, as the subjects of policies name it. What was
 * announced counts, else what its engine had written down; what nobody says matches no policy.
 */
import type { SubjectFacts } from '../../policy/subject.ts'
import type { LoanRecord } from '../../registry/loan-record.ts'
import type { Who } from '../ownership.ts'
import type { KnownContainer, KnownContainers } from './known.ts'

type ContainerWords = Pick<SubjectFacts, 'container' | 'kubernetes'>

/** Podman's own records, which its runtime is not told. */
export interface EngineWords {
  readonly name?: string | undefined
  readonly image?: string | undefined
}

export function factsOf(known: KnownContainer | undefined, engine: EngineWords | undefined): ContainerWords {
  if (known === undefined)
    return engine === undefined ? {} : { container: { is: { name: engine.name, image: engine.image } } }
  const { name, image, imageDigest: digest, labels, pod } = known
  return {
    container: { is: { name, image, digest, labels } },
    kubernetes:
      pod === undefined
        ? { unknown: 'its runtime says of no pod that it is of it' }
        : { is: { namespace: pod.namespace, labels: pod.labels } },
  }
}

/**
 * The same of who holds a loan that the container's runtime has asked for: whoever is in the user
 * namespace that was lent to. Of all others nothing is said. The id of such a loan is root's word;
 * that of another one may be the name of a cgroup, which its user has chosen.
 */
export function factsOfHolder(
  containers: KnownContainers,
  { facts }: Pick<Who, 'facts'>,
  { recipient }: LoanRecord,
): ContainerWords {
  if (recipient?.container === undefined || recipient.told === undefined) return {}
  const { userNamespace, userNamespaceId } = facts
  if (userNamespace !== recipient.userNamespace || userNamespaceId !== recipient.userNamespaceId) return {}
  const known = containers.get(recipient.container)
  if (known?.pid !== undefined && known.pid !== recipient.pid) {
    const another = { unknown: 'another container has its id by now' }
    return { container: another, kubernetes: another }
  }
  const { name, image } = recipient.told
  const said = name !== undefined || image !== undefined
  if (known === undefined && !said) {
    const nobody = { unknown: 'nobody has announced its container' }
    return { container: nobody, kubernetes: nobody }
  }
  return factsOf(known, recipient.told)
}
