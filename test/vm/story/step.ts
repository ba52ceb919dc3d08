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
  iter: { type: 'tracing', attach: 'trace_iter' },
  message: { type: 'sk_msg', attach: 'sk_msg_verdict' },
  stream: { type: 'sk_skb', attach: 'sk_skb_verdict' },
  dissector: { type: 'flow_dissector', attach: 'flow_dissector' },
  // Of struct_ops the attach type is the number of the member.
  ssthresh: { type: 'struct_ops', member: 'ssthresh' },
  avoid: { type: 'struct_ops', member: 'cong_avoid' },
  undo: { type: 'struct_ops', member: 'undo_cwnd' },
} as const satisfies Record<string, { type: string; attach: string } | { type: string; member: string }>
export type Shape = keyof typeof SHAPES
export const BODIES = 3
/** What a congestion control must have. */
export const MEMBERS = ['ssthresh', 'avoid', 'undo'] as const satisfies Shape[]
export const CONGESTION = 'tcp_congestion_ops'
/** What programs attach to, of the kernel's types: tracepoints, an iterator, a struct_ops. */
export const FUNCTIONS = [
  'btf_trace_sched_switch',
  'btf_trace_sched_wakeup',
  'bpf_iter_task',
  CONGESTION,
] as const

export const MAPS = ['hash', 'array', 'ringbuf', 'prog_array', 'devmap'] as const
export const SOCKET_MAPS = ['sockmap', 'sockhash'] as const
export type MapName = (typeof MAPS)[number] | (typeof SOCKET_MAPS)[number] | 'struct_ops'

/**
 * Attach types that go with no program of these: some that the guard knows, the last of these and
 * the one after, and some that no kernel has. All ones are none for the guard.
 */
export const STRANGE_TYPES = [36, 45, 46, 57, 58, 62, 63, 64, 4096, 0xffff_ffff] as const

/** By the numbers of cast.ts: 0 is the host's. */
export type Network = `net${0 | 1 | 2 | 3 | 4}`
/** A number is that of a map; `none`: there is no target, or it is the caller's network. */
export type To = CgroupName | 'root' | 'lo' | 'none' | Network | number

export type Step =
  | (Who & { do: 'fsopen'; context: number })
  | (Who & { do: 'set'; context: number; key: string; value?: string })
  | (Who & { do: 'create'; context: number })
  | (Who & { do: 'fsmount'; context: number; mount: number })
  | (Who & { do: 'move'; mount: number })
  | (Who & { do: 'copy'; mount: number; made: number })
  | (Who & { do: 'token'; mount: number; made: number })
  /** `byLink`: a struct_ops map that only a link registers. */
  | (Who & { do: 'map'; type: MapName; entries: number; byLink?: true; token?: number; made: number })
  | (Who & { do: 'prog'; shape: Shape; body: number; target?: number; token?: number; made: number })
  | (Who & { do: 'pin'; object: number; mount: number })
  | (Who & { do: 'open'; object: number })
  | (Who & { do: 'pass'; object: number })
  /** `type`: another attach type than the program's. */
  | (Who & { do: 'link'; prog: number; to: To; type?: number; made: number })
  | (Who & { do: 'attach'; prog: number; to: To; type?: number; replaces?: number })
  /** `isUnnamed`: of the program no more than its type is said. */
  | (Who & { do: 'detach'; prog: number; to: To; type?: number; isUnnamed?: true })
  /** A congestion control's value, with its name and these programs. */
  | (Who & { do: 'fill'; map: number; name: number; progs: readonly number[] })
  | (Who & { do: 'register'; map: number; made: number })
  | (Who & { do: 'iterate'; link: number; made: number })
  | (Who & { do: 'bind'; prog: number; map: number })
  | (Who & { do: 'freeze'; map: number })
  | (Who & { do: 'unlink'; link: number })
  /** `prog` is a map where the link is one of struct_ops. */
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
