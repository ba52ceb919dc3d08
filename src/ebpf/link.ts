/**
 * Links: a program attached to something, as an object. Made by the functions of attach.ts.
 *
 * Closing the last descriptor of a link that is not pinned detaches its program.
 */
import { readFileSync } from 'node:fs'
import { getFdById, iterCreate, linkDetach, linkUpdate, objGet, objGetInfoByFd } from '../sys/bpf.ts'
import type { Fd } from '../sys/fd.ts'
import { readLater } from '../sys/read.ts'
import { bpf_link_info, bpf_perf_event_type } from '../uapi/bpf.ts'
import { BPF_F_REPLACE } from '../uapi/constants.ts'
import { expectKind } from './object-kind.ts'
import { nameFrom } from './object-name.ts'
import { pin } from './pin.ts'
import type { Program } from './prog.ts'
import { ATTACH_TYPES, type AttachType, LINK_TYPES, type LinkType } from './type-names.ts'

/** What the kernel says of a link. Fields after `programId` are there where the type has them. */
export interface LinkInfo {
  id: number
  type: LinkType
  /** 0 for struct_ops, which has none. */
  programId: number
  attachType?: AttachType
  /** Device; 0 once the link is detached. */
  ifindex?: number
  cgroupId?: bigint
  /** Inode of the network namespace. */
  netnsInode?: number
  tracepoint?: string
  /** What an iterator goes over, e.g. `bpf_map`. */
  iterates?: string
  mapId?: number
  netfilter?: { family: number; hook: number; priority: number; flags: number }
  /** An iterator over cgroups: the one that it starts at, and BPF_CGROUP_ITER_*. */
  iteratesCgroup?: { cgroupId: bigint; order: number }
  /** An iterator over tasks: 0 and 0 is all. */
  iteratesTask?: { tid: number; pid: number }
  /** Tracing: the object and function by BTF id; 0 of an object is the kernel. */
  traces?: { objectId: number; typeId: number }
  /**
   * What bpf_get_attach_cookie gives, where the kernel tells: some kinds since 6.5, some since
   * 6.16.
   */
  cookie?: bigint
  /** Many kernel functions; addresses are not told to everybody. */
  kprobes?: { count: number; onReturn: boolean; missed: bigint }
  /** Many places of a file; `path` as the kernel sees it. Since Linux 6.8. */
  uprobes?: { count: number; onReturn: boolean; pid: number; path: string }
  /** What a perf event link runs for. Since Linux 6.6. */
  perfEvent?: PerfEventInfo
}

/** One of what perf events run programs for. */
export type PerfEventInfo =
  | { kind: 'uprobe' | 'uretprobe'; path: string; off: number; refCtrOff: bigint }
  | { kind: 'kprobe' | 'kretprobe'; symbol: string; off: number; missed: bigint }
  | { kind: 'tracepoint'; name: string }
  | { kind: 'event'; type: number; config: bigint }
  | { kind: 'unknown' }

type Raw = ReturnType<typeof bpf_link_info.decode>

const NAME_BYTES = 128
const PATH_BYTES = 4096
/** BPF_F_KPROBE_MULTI_RETURN, BPF_F_UPROBE_MULTI_RETURN */
const MULTI_RETURN = 1
const CHUNK_BYTES = 64 * 1024

/** An attachment, by an open descriptor. Whoever made the object closes it. */
export class Link implements Disposable {
  readonly fd: Fd

  /** Takes ownership of a link's descriptor. */
  constructor(fd: Fd) {
    this.fd = fd
  }

  /**
   * Opens a pinned link: BPF_OBJ_GET. TypeError: something else is pinned there. The caller
   * disposes of it.
   */
  static open(path: string): Link {
    return new Link(expectKind(objGet(path), 'link'))
  }

  /**
   * Opens a link by id. Needs CAP_SYS_ADMIN in the initial user namespace. ENOENT: none such. The
   * caller disposes of it.
   */
  static fromId(id: number): Link {
    return new Link(getFdById('BPF_LINK_GET_FD_BY_ID', id))
  }

  /**
   * Gives the link a name in a bpffs, so that it outlives us: BPF_OBJ_PIN. Errors as of
   * `BpfMap.pin`. unlink(2) removes it.
   */
  pin(path: string): void {
    pin(this.fd, path)
  }

  /**
   * Swaps the program without a gap: BPF_LINK_UPDATE; needs no capability. With `expected`, only if
   * that one is there now (EPERM otherwise). EINVAL: another type of program. ENOLINK: detached.
   * EOPNOTSUPP, EINVAL: not for this type of link.
   */
  update(program: Program, expected?: Program): void {
    linkUpdate({
      link_fd: this.fd.number,
      new_prog_fd: program.fd.number,
      ...(expected === undefined ? {} : { flags: BPF_F_REPLACE, old_prog_fd: expected.fd.number }),
    })
  }

  /**
   * Detaches now, whoever else holds the link: BPF_LINK_DETACH, since Linux 5.9; needs no
   * capability. EOPNOTSUPP: not for tracing, raw tracepoints, perf events, kprobe_multi,
   * uprobe_multi and iterators; close all descriptors instead.
   */
  detach(): void {
    linkDetach(this.fd)
  }

  /**
   * All that an iterator writes: BPF_ITER_CREATE, then read(2). The process waits meanwhile, and
   * holds all of it in memory; `iteratorOutput` does not.
   */
  readIterator(): Buffer {
    using output = iterCreate(this.fd)
    return readFileSync(output.number)
  }

  /**
   * What an iterator writes, piece by piece as it goes on: BPF_ITER_CREATE, then read(2) on a
   * worker thread. A piece ends anywhere. To leave the loop ends the iteration; aborting throws the
   * signal's reason.
   */
  async *iteratorOutput(options: { chunkBytes?: number; signal?: AbortSignal } = {}): AsyncGenerator<Buffer> {
    const { chunkBytes = CHUNK_BYTES, signal } = options
    using output = iterCreate(this.fd)
    for (;;) {
      signal?.throwIfAborted()
      const chunk = Buffer.alloc(chunkBytes)
      const length = await readLater(output, chunk)
      if (length === 0) return
      yield chunk.subarray(0, length)
    }
  }

  /** BPF_OBJ_GET_INFO_BY_FD; needs no capability. */
  info(): LinkInfo {
    const bytes = new Uint8Array(bpf_link_info.size)
    objGetInfoByFd(this.fd, bytes)
    const raw = bpf_link_info.decode(bytes)
    const type = LINK_TYPES.word(raw.type!)
    return { id: raw.id!, type, programId: raw.prog_id!, ...this.#details(type, raw) }
  }

  #details(type: LinkType, raw: Raw): Partial<LinkInfo> {
    const attach = (value: number | undefined): { attachType: AttachType } => ({
      attachType: ATTACH_TYPES.word(value!),
    })
    switch (type) {
      case 'raw_tracepoint':
        return {
          tracepoint: this.#text({ raw_tracepoint_tp_name_len: NAME_BYTES }, 'raw_tracepoint_tp_name'),
          cookie: raw.raw_tracepoint_cookie!,
        }
      case 'tracing':
        return {
          ...attach(raw.tracing_attach_type),
          traces: { objectId: raw.tracing_target_obj_id!, typeId: raw.tracing_target_btf_id! },
          cookie: raw.tracing_cookie!,
        }
      case 'cgroup':
        return { cgroupId: raw.cgroup_cgroup_id!, ...attach(raw.cgroup_attach_type) }
      case 'iter':
        return this.#iteratorDetails(raw)
      case 'netns':
        return { netnsInode: raw.netns_netns_ino!, ...attach(raw.netns_attach_type) }
      case 'xdp':
        return { ifindex: raw.xdp_ifindex! }
      case 'tcx':
        return { ifindex: raw.tcx_ifindex!, ...attach(raw.tcx_attach_type) }
      case 'netkit':
        return { ifindex: raw.netkit_ifindex!, ...attach(raw.netkit_attach_type) }
      case 'sockmap':
        return { mapId: raw.sockmap_map_id!, ...attach(raw.sockmap_attach_type) }
      case 'struct_ops':
        return { mapId: raw.struct_ops_map_id! }
      case 'netfilter':
        return {
          netfilter: {
            family: raw.netfilter_pf!,
            hook: raw.netfilter_hooknum!,
            priority: raw.netfilter_priority!,
            flags: raw.netfilter_flags!,
          },
        }
      case 'kprobe_multi':
        return {
          kprobes: {
            count: raw.kprobe_multi_count!,
            onReturn: (raw.kprobe_multi_flags! & MULTI_RETURN) !== 0,
            missed: raw.kprobe_multi_missed!,
          },
        }
      case 'uprobe_multi':
        // Before Linux 6.8 nothing is told.
        if (raw.uprobe_multi_count === 0) return {}
        return {
          uprobes: {
            count: raw.uprobe_multi_count!,
            onReturn: (raw.uprobe_multi_flags! & MULTI_RETURN) !== 0,
            pid: raw.uprobe_multi_pid!,
            path: this.#text({ uprobe_multi_path_size: PATH_BYTES }, 'uprobe_multi_path', PATH_BYTES),
          },
        }
      case 'perf_event':
        return this.#perfEventDetails(raw)
      default:
        return {}
    }
  }

  #iteratorDetails(raw: Raw): Partial<LinkInfo> {
    const iterates = this.#text({ iter_target_name_len: NAME_BYTES }, 'iter_target_name')
    if (iterates === 'cgroup')
      return {
        iterates,
        iteratesCgroup: { cgroupId: raw.iter_cgroup_cgroup_id!, order: raw.iter_cgroup_order! },
      }
    // Of maps it is a word of its own; of tasks a union's other part.
    return iterates.startsWith('task')
      ? { iterates, iteratesTask: { tid: raw.iter_task_tid!, pid: raw.iter_task_pid! } }
      : { iterates, mapId: raw.iter_map_map_id! }
  }

  #perfEventDetails(raw: Raw): Partial<LinkInfo> {
    const { BPF_PERF_EVENT_UPROBE, BPF_PERF_EVENT_URETPROBE, BPF_PERF_EVENT_KPROBE } = bpf_perf_event_type
    const { BPF_PERF_EVENT_KRETPROBE, BPF_PERF_EVENT_TRACEPOINT, BPF_PERF_EVENT_EVENT } = bpf_perf_event_type
    switch (raw.perf_event_type) {
      case BPF_PERF_EVENT_UPROBE:
      case BPF_PERF_EVENT_URETPROBE:
        return {
          perfEvent: {
            kind: raw.perf_event_type === BPF_PERF_EVENT_UPROBE ? 'uprobe' : 'uretprobe',
            path: this.#text(
              { perf_event_uprobe_name_len: PATH_BYTES },
              'perf_event_uprobe_file_name',
              PATH_BYTES,
            ),
            off: raw.perf_event_uprobe_offset!,
            refCtrOff: raw.perf_event_uprobe_ref_ctr_offset!,
          },
          cookie: raw.perf_event_uprobe_cookie!,
        }
      case BPF_PERF_EVENT_KPROBE:
      case BPF_PERF_EVENT_KRETPROBE:
        return {
          perfEvent: {
            kind: raw.perf_event_type === BPF_PERF_EVENT_KPROBE ? 'kprobe' : 'kretprobe',
            symbol: this.#text({ perf_event_kprobe_name_len: NAME_BYTES }, 'perf_event_kprobe_func_name'),
            off: raw.perf_event_kprobe_offset!,
            missed: raw.perf_event_kprobe_missed!,
          },
          cookie: raw.perf_event_kprobe_cookie!,
        }
      case BPF_PERF_EVENT_TRACEPOINT:
        return {
          perfEvent: {
            kind: 'tracepoint',
            name: this.#text({ perf_event_tracepoint_name_len: NAME_BYTES }, 'perf_event_tracepoint_tp_name'),
          },
          cookie: raw.perf_event_tracepoint_cookie!,
        }
      case BPF_PERF_EVENT_EVENT:
        return {
          perfEvent: {
            kind: 'event',
            type: raw.perf_event_event_type!,
            config: raw.perf_event_event_config!,
          },
          cookie: raw.perf_event_event_cookie!,
        }
      default:
        return { perfEvent: { kind: 'unknown' } }
    }
  }

  /** A text that info points at: asked for again, with room for it. */
  #text(lengths: Partial<Raw>, pointer: keyof typeof bpf_link_info.fields, bytes = NAME_BYTES): string {
    const info = bpf_link_info.encode(lengths)
    const text = new Uint8Array(bytes)
    objGetInfoByFd(this.fd, info, [[bpf_link_info.fields[pointer].off, text]])
    return nameFrom(text)
  }

  close(): void {
    this.fd.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }
}
