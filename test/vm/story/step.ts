/** What stories are made of. Names are numbers: of contexts, mounts, tokens, and objects that were made. */
import type { Policy } from '../../../src/policy/policy.ts'

/** Who acts, by the executor's number of the context; `caps`: all, or none at all. */
export interface Who {
  readonly as: number
  readonly caps?: 'none'
}

export const CGROUPS = ['a', 'a/below', 'b'] as const
export type CgroupName = (typeof CGROUPS)[number]

/** Programs of the stories: each with several bodies, of other digests and lengths. */
export const SHAPES = {
  xdp: { type: 'xdp', attach: 'xdp' },
  device: { type: 'cgroup_device', attach: 'cgroup_device' },
  sock: { type: 'cgroup_sock', attach: 'cgroup_inet_sock_create' },
  trace: { type: 'tracing', attach: 'trace_raw_tp' },
} as const
export type Shape = keyof typeof SHAPES
export const BODIES = 3
/** Tracepoints of the kernel's types that tracing programs attach to. */
export const FUNCTIONS = ['btf_trace_sched_switch', 'btf_trace_sched_wakeup'] as const

export const MAPS = ['hash', 'array', 'ringbuf', 'prog_array', 'devmap'] as const
export type MapName = (typeof MAPS)[number]

export type To = CgroupName | 'root' | 'lo'

export type Step =
  | (Who & { do: 'fsopen'; context: number })
  | (Who & { do: 'set'; context: number; key: string; value?: string })
  | (Who & { do: 'create'; context: number })
  | (Who & { do: 'fsmount'; context: number; mount: number })
  | (Who & { do: 'move'; mount: number })
  | (Who & { do: 'copy'; mount: number; made: number })
  | (Who & { do: 'token'; mount: number; made: number })
  | (Who & { do: 'map'; type: MapName; entries: number; token?: number; made: number })
  | (Who & { do: 'prog'; shape: Shape; body: number; target?: number; token?: number; made: number })
  | (Who & { do: 'pin'; prog: number; mount: number })
  | (Who & { do: 'open'; prog: number })
  | (Who & { do: 'pass'; object: number })
  | (Who & { do: 'link'; prog: number; to: To; made: number })
  | (Who & { do: 'attach'; prog: number; to: CgroupName; replaces?: number })
  | (Who & { do: 'detach'; prog: number; to: CgroupName })
  | (Who & { do: 'unlink'; link: number })
  | (Who & { do: 'relink'; link: number; prog: number })
  | (Who & { do: 'run'; prog: number })
  | (Who & { do: 'put'; map: number; prog: number })
  | { do: 'close'; object: number }
  | { do: 'revoke' | 'expire' | 'renew'; of: number }
  | { do: 'derive'; by: number; of?: number }
  | { do: 'enter'; who: number; cgroup: CgroupName }
  | { do: 'confine'; cgroup: CgroupName; policy: number }
  | { do: 'unconfine'; cgroup: CgroupName }

export interface Story {
  /** Abilities p0, p1, ... */
  readonly policies: readonly Policy[]
  /** Of what belongs to no delegation. */
  readonly mode: 'enforce' | 'permissive'
  /** Those of contexts 0 and 1 that may delegate; a number is that of the policy which is the ceiling. */
  readonly delegators: readonly {
    readonly as: number
    readonly ceiling?: number
    readonly implicit: boolean
    readonly only?: CgroupName
  }[]
  readonly steps: readonly Step[]
}

/** What a step came to. `skipped`: what it names is not there. */
export interface Said {
  readonly outcome: string
  /** `point reason verdict delegation`, of each event but for capabilities. */
  readonly notes: readonly string[]
  /** Capabilities that the guard told of. */
  readonly capabilities: readonly string[]
}

export const SKIPPED: Said = { outcome: 'skipped', notes: [], capabilities: [] }
