/** What is read of a container's annotations, and how much may be told of containers. */

/** All that begins with it is ours; a key that is none of these is refused by name. */
export const ANNOTATIONS = 'bpftoken.dev/'
/** Asks for a loan by the policy of that name. */
export const POLICY_ANNOTATION = 'bpftoken.dev/policy'
/** `warn`: the container starts, too, where it could not use the loan. */
export const PREFLIGHT_ANNOTATION = 'bpftoken.dev/preflight'

/** So many are remembered, of all runtimes together. */
export const MAX_CONTAINERS = 10_000
/** The facts of one container, as JSON. */
export const FACTS_BYTES = 64 * 1024
