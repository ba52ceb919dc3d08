/** What is attached where, and what the kernel counts and says of it. */
import { readFileSync } from 'node:fs'
import { ConflictError } from '../errors.ts'
import { enableStats as enable, progQuery } from '../sys/bpf.ts'
import type { Fd } from '../sys/fd.ts'
import { allProcFields } from '../sys/proc-file.ts'
import { bpf_stats_type } from '../uapi/bpf.ts'
import { BPF_F_QUERY_EFFECTIVE } from '../uapi/constants.ts'
import { type HookTarget, onTarget } from './attach/direct.ts'
import { ATTACH_TYPES, type AttachType } from './type-names.ts'

export interface AttachedProgram {
  readonly programId: number
  /** Undefined: without a link, or the kernel does not tell. */
  readonly linkId: number | undefined
  /** BPF_F_ALLOW_MULTI and so on, of its own; 0 where the kernel does not tell. */
  readonly flags: number
}

export interface Attached {
  /** In the order in which they run. */
  readonly programs: readonly AttachedProgram[]
  /** Counts changes: TCX, netkit, and cgroups since Linux 6.17. 0: not told. */
  readonly revision: bigint
  /** Of a cgroup: how its programs were attached. */
  readonly flags: number
}

/** Programs may come between two looks. */
const SPARE = 8
const ATTEMPTS = 16

/**
 * Which programs are attached: BPF_PROG_QUERY. Cgroups since Linux 4.15, network namespaces since
 * 5.5, TCX since 6.6, netkit since 6.7. `effective`: those of a cgroup's parents, too, without
 * flags. Needs CAP_NET_ADMIN in the initial user namespace, which no token gives: EPERM. What holds
 * a link can be asked by `Link.info` instead. EINVAL: the target is not for this type.
 */
export function queryAttached(
  target: HookTarget,
  attachType: AttachType | number,
  options: { effective?: boolean } = {},
): Attached {
  const effective = options.effective === true
  return onTarget(target, (where, object) => {
    const attr = {
      ...where,
      attach_type: ATTACH_TYPES.number(attachType),
      query_flags: effective ? BPF_F_QUERY_EFFECTIVE : 0,
    }
    let { attr: found } = progQuery(attr, {}, object)
    for (let attempt = 0; attempt < ATTEMPTS && found.count! > 0; attempt++) {
      const room = found.count! + SPARE
      const [programs, links, flags] = [new Uint32Array(room), new Uint32Array(room), new Uint32Array(room)]
      const pointers = {
        prog_ids: bytesOf(programs),
        ...('target_ifindex' in where ? { link_ids: bytesOf(links) } : {}),
        // Effective ones come from several cgroups; network namespaces have no flags.
        ...(effective || target.netns !== undefined ? {} : { prog_attach_flags: bytesOf(flags) }),
      }
      const answer = progQuery({ ...attr, count: room }, pointers, object)
      found = answer.attr
      if (!answer.complete) continue
      const list = Array.from({ length: found.count! }, (_, i) => ({
        programId: programs[i]!,
        linkId: links[i] === 0 ? undefined : links[i],
        flags: flags[i]!,
      }))
      return { programs: list, revision: found.revision!, flags: found.attach_flags! }
    }
    if (found.count! > 0)
      throw new ConflictError(`What is attached to ${object} changes faster than it can be read`)
    return { programs: [], revision: found.revision!, flags: found.attach_flags! }
  })
}

function bytesOf(words: Uint32Array): Uint8Array {
  return new Uint8Array(words.buffer)
}

/**
 * Makes the kernel count runs and their time for every program, `ProgramInfo.runCount` and
 * `runTimeNs`: BPF_ENABLE_STATS, until the descriptor is closed, by which each program gets slower.
 * Since Linux 5.8. Needs CAP_SYS_ADMIN in the initial user namespace, which no token gives: EPERM.
 * The caller closes it.
 */
export function enableStats(): Fd {
  return enable(bpf_stats_type.BPF_STATS_RUN_TIME)
}

/**
 * What /proc/self/fdinfo says of a map, program, link, types or token, by the kernel's words:
 * `memlock` (bytes), `frozen`, `owner_prog_type` of a map; `prog_jited`, `run_time_ns` of a
 * program; `link_type` and more of a link; `btf_id` of types; `allowed_cmds` of a token. Needs no
 * capability. Which words there are depends on the kernel. It is only read: nothing is opened by
 * way of /proc.
 */
export function fdinfo(object: { readonly fd: Fd }): ReadonlyMap<string, string> {
  return allProcFields(readFileSync(`/proc/self/fdinfo/${object.fd.number}`, 'utf8'))
}
