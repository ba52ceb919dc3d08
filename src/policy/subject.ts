/**
 * Whom a policy names, and what is known of somebody who may get a delegation, as plain data. Pure:
 * src/delegation/subject.ts reads the second from the kernel, and `decide` compares the two.
 */

/**
 * One entry of a policy's subjects: every field that is present must match. See schema.ts for each.
 */
export interface Subject {
  readonly user?: string | number | undefined
  readonly group?: string | number | undefined
  readonly cgroup?: string | undefined
  readonly unit?: string | undefined
  readonly executable?: string | undefined
  readonly label?: string | undefined
  readonly container?:
    | {
        readonly name?: string | undefined
        readonly image?: string | undefined
        readonly digest?: string | undefined
        readonly labels?: Labels | undefined
      }
    | undefined
  readonly kubernetes?:
    | {
        readonly namespace: string
        readonly labels?: Labels | undefined
        readonly serviceAccount?: string | undefined
      }
    | undefined
}

type Labels = Readonly<Record<string, string | undefined>>

/** A known fact, or in our own words why it is not known. An unknown fact matches no policy. */
export type Fact<T> = { readonly is: T } | { readonly unknown: string }

/** A user or a group. */
export interface Identity {
  /**
   * Its number in the initial user namespace. Absent where only the name is given (`policy test`).
   */
  readonly id?: number
  /** The names that the system resolves to this number, as far as the policy mentions them. */
  readonly names: readonly string[]
}

export interface SubjectFacts {
  readonly user: Fact<Identity>
  /** The primary group and the supplementary ones. */
  readonly groups: Fact<readonly Identity[]>
  /** Path in the cgroup v2 hierarchy, from its root. */
  readonly cgroup: Fact<string>
  /** The unit of the system's own systemd. */
  readonly unit: Fact<string>
  /** Path of the executable file, as the host sees it. */
  readonly executable: Fact<string>
  /** The security label that SELinux, AppArmor or Smack gave the process. */
  readonly label: Fact<string>
  /** By what its runtime says. Absent: nobody has said it. */
  readonly container?: Fact<ContainerFacts>
  /** The pod that the container is of. Absent: nobody has said it. */
  readonly kubernetes?: Fact<PodFacts>
}

/** What a runtime says of a container; what is absent is unknown. */
export interface ContainerFacts {
  readonly name?: string | undefined
  readonly image?: string | undefined
  /** Of the image, as its registry names it: `sha256:` and 64 hex digits. */
  readonly digest?: string | undefined
  readonly labels?: Labels | undefined
}

/** What a runtime says of a pod. Of its service account none knows. */
export interface PodFacts {
  readonly namespace: string
  readonly labels?: Labels | undefined
}

const SLICE = /^[\w:.\\@-]+\.slice$/
const UNIT = /^[\w:.\\@-]+\.(?:service|scope|socket|mount|swap)$/

/**
 * The system's unit that a cgroup belongs to, as sd_pid_get_unit(3) finds it: the first component
 * that is no slice. Components below it are named by the service itself, or by a user's own
 * systemd, and so prove nothing: `/system.slice/a.service/b.service` is a.service.
 */
export function unitOfCgroup(path: string): string | undefined {
  // systemd puts an underscore before a name that the kernel would take for one of its own files.
  const names = path
    .split('/')
    .slice(1)
    .map(component => component.replace(/^_/, ''))
  const first = names.find(name => !SLICE.test(name))
  return first !== undefined && UNIT.test(first) ? first : undefined
}

/** The user and group names that the subjects of a policy mention, for their caller to look up. */
export function namesIn(policy: { readonly subjects?: readonly Subject[] }): {
  users: Set<string>
  groups: Set<string>
} {
  const users = new Set<string>()
  const groups = new Set<string>()
  for (const { user, group } of policy.subjects ?? []) {
    if (typeof user === 'string') users.add(user)
    if (typeof group === 'string') groups.add(group)
  }
  return { users, groups }
}
