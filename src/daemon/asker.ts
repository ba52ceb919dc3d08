/** Who asks: the peer of a connection, held by pidfd, and what the kernel says of it now. */

import type { Target } from '../delegation/target.ts'
import type { Policy } from '../policy/policy.ts'
import type { SubjectFacts } from '../policy/subject.ts'
import type { AskerFacts } from '../registry/asker-facts.ts'
import type { Fd } from '../sys/fd.ts'

export type { AskerFacts }

export interface Asker {
  readonly uid: number
  readonly isRoot: boolean
  /** Read anew; DeniedError: it has exited, or is no more the user that connected. */
  facts(): AskerFacts
  /** What `decide` compares, read anew. DeniedError as `facts`. */
  subject(policies: readonly Policy[]): SubjectFacts
  /** One of its descriptors, by number. The caller closes it. ENOENT, EBADF: it has none such. */
  take(descriptor: number): Fd
  /** The target that a recipient means. The caller disposes of it. */
  recipient(recipient: { pid: number } | { pidfd: number } | { self: true }): Target
  /**
   * DeniedError unless the user namespace is the asker's own, which the kernel proves: its user made
   * it, or one that it lies in; root is let through.
   */
  requireOwn(target: Target): void
}
