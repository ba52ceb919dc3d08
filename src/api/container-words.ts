/** What is read of a container's annotations, how long its hook may take, and how much may be told. */

/** All that begins with it is ours; a key that is none of these is refused by name. */
export const ANNOTATIONS = 'bpftoken.dev/'
/** Asks for a loan by the policy of that name. */
export const POLICY_ANNOTATION = 'bpftoken.dev/policy'
/** `warn`: the container starts, too, where it could not use the loan. */
export const PREFLIGHT_ANNOTATION = 'bpftoken.dev/preflight'

/** Seconds that a runtime gives the hook: more than it takes itself, as it is to say why. */
export const HOOK_SECONDS = 25

/** So many are remembered, of all runtimes together. */
export const MAX_CONTAINERS = 10_000
/** The facts of one container, as JSON. */
export const FACTS_BYTES = 64 * 1024
