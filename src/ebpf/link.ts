/**
 * Links: a program attached to something, as an object. Made by the functions of attach.ts.
 *
 * Closing the last descriptor of a link that is not pinned detaches its program.
 */
import { readFileSync } from 'node:fs'
import { getFdById, iterCreate, linkDetach, linkUpdate, objGet, objGetInfoByFd, objPin } from '../sys/bpf.ts'
import type { Fd } from '../sys/fd.ts'
import { bpf_link_info } from '../uapi/bpf.ts'
import { BPF_F_REPLACE } from '../uapi/constants.ts'
import { expectKind } from './object-kind.ts'
import { nameFrom } from './object-name.ts'
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
}

const NAME_BYTES = 128

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
   * Gives the link a name in a bpffs, so that it outlives us: BPF_OBJ_PIN. unlink(2) removes it.
   */
  pin(path: string): void {
    objPin(this.fd, path)
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

  /** All that an iterator writes: BPF_ITER_CREATE, then read(2). */
  readIterator(): Buffer {
    using output = iterCreate(this.fd)
    return readFileSync(output.number)
  }

  /** BPF_OBJ_GET_INFO_BY_FD; needs no capability. */
  info(): LinkInfo {
    const bytes = new Uint8Array(bpf_link_info.size)
    objGetInfoByFd(this.fd, bytes)
    const raw = bpf_link_info.decode(bytes)
    const type = LINK_TYPES.word(raw.type!)
    return { id: raw.id!, type, programId: raw.prog_id!, ...this.#details(type, raw) }
  }

  #details(type: LinkType, raw: ReturnType<typeof bpf_link_info.decode>): Partial<LinkInfo> {
    const attach = (value: number | undefined): { attachType: AttachType } => ({
      attachType: ATTACH_TYPES.word(value!),
    })
    switch (type) {
      case 'raw_tracepoint':
        return { tracepoint: this.#name('raw_tracepoint') }
      case 'tracing':
        return attach(raw.tracing_attach_type)
      case 'cgroup':
        return { cgroupId: raw.cgroup_cgroup_id!, ...attach(raw.cgroup_attach_type) }
      case 'iter':
        return { iterates: this.#name('iter'), mapId: raw.iter_map_map_id! }
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
      default:
        return {}
    }
  }

  /** The text that info points at: asked for again, with room for it. */
  #name(of: 'raw_tracepoint' | 'iter'): string {
    const { fields } = bpf_link_info
    const isIter = of === 'iter'
    const bytes = bpf_link_info.encode(
      isIter ? { iter_target_name_len: NAME_BYTES } : { raw_tracepoint_tp_name_len: NAME_BYTES },
    )
    const name = new Uint8Array(NAME_BYTES)
    const pointer = isIter ? fields.iter_target_name : fields.raw_tracepoint_tp_name
    objGetInfoByFd(this.fd, bytes, [[pointer.off, name]])
    return nameFrom(name)
  }

  close(): void {
    this.fd.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }
}
