/** Who asks: the peer of a connection, held by pidfd, and what the kernel says of it now. */

import type { Shown } from '../delegation/subject.ts'
import type { Target } from '../delegation/target.ts'
import type { Policy } from '../policy/policy.ts'
import type { SubjectFacts } from '../policy/subject.ts'
import type { AskerFacts } from '../registry/asker-facts.ts'
import type { Fd } from '../sys/fd.ts'

export type { AskerFacts }

export interface Asker {
  /** Of the process: no other has it before the next boot. */
  readonly uniqueId: bigint
  /** The one that connected. */
  readonly uid: number
  /**
   * Whose share of the limits it takes: `user N`. In another user namespace than the initial one, where
   * one user can have many numbers, who made the outermost of those that it lies in; see `ownerOf` of
   * src/sys/namespace.ts. Read anew; DeniedError as `who`.
   */
  readonly owner: string
  /** User 0 with CAP_SYS_ADMIN in the initial user namespace. Read anew; DeniedError as `who`. */
  readonly isRoot: boolean
  /**
   * Read anew, of what needs no look that can wait: so without its executable and label; and `isRoot`,
   * at the end of that. DeniedError: it has exited, or is no more the user that connected.
   */
  who(): Promise<{ readonly isRoot: boolean; readonly facts: AskerFacts }>
  /** At once. DeniedError as `who`. */
  confirm(): void
  /**
   * What `decide` compares, read anew; executable and label where one of the policies names them,
   * and unknown if the asker has us wait for them. DeniedError as `who`.
   */
  subject(policies: readonly Pick<Policy, 'subjects'>[]): Promise<SubjectFacts>
  /** Of that, what can wait: executable and label. Rejects as `subject`. */
  shown(policies: readonly Pick<Policy, 'subjects'>[]): Promise<Shown>
  /**
   * The rest at once, also for the moment before a loan is kept: user, groups, cgroup and unit are
   * read anew; executable and label are those of `before`.
   */
  subjectAgain(policies: readonly Pick<Policy, 'subjects'>[], before: Shown): SubjectFacts
  /**
   * One of its descriptors, by number. The caller closes it. InputError: it has none such;
   * TimeoutError: it is in the middle of an execve(2) that does not end.
   */
  take(descriptor: number): Promise<Fd>
  /**
   * Gives its pidfd, and the ids that it connected with, to one that looks at it by itself; it stays
   * ours. DeniedError as `who`.
   */
  handOver(use: (pidfd: Fd, ids: { readonly uid: number; readonly gid: number }) => void): void
  /** The target that a recipient means. The caller disposes of it. */
  recipient(recipient: { pid: number } | { pidfd: number } | { self: true }): Promise<Target>
  /**
   * The same asker, for longer than its connection. The caller disposes of it. NotFoundError,
   * DeniedError: it has exited.
   */
  hold(): Asker & Disposable
  /**
   * DeniedError unless the kernel gives the asker CAP_SYS_ADMIN in the target's user namespace: it is
   * in there, or above, with that capability; or it made that one, or one that it lies in, from where
   * it is. Never in the initial one; root is let through. DeniedError as `who`, too.
   */
  requireOwn(target: Target): void
}
