/** What a name of a container, unit or cgroup leads to. */

/** An ordinary user of this machine, who has containers or units of their own. */
export interface Owner {
  readonly name: string
  readonly uid: number
  readonly gid: number
  readonly home: string
}

/** The process that a name means at one moment. */
export interface Found {
  readonly pid: number
  /** What was found, for people: `container web (24bf2023f05a) of Podman`. */
  readonly what: string
  /** Its process had begun by then, in milliseconds since the epoch; undefined: nobody says so. */
  readonly startedAt?: number
  /** Equal texts: the same run of the same thing. */
  readonly identity: string
}
