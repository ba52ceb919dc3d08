/** One call of bpf(2) or perf_event_open(2) that was seen, with its answer. Pure. */
import { nameFrom } from '../ebpf/object-name.ts'
import type { Need } from '../ebpf/rights.ts'
import { ATTACH_TYPES, type AttachType, CMDS, type Cmd } from '../ebpf/type-names.ts'
import {
  bpf_attr_btf_load,
  bpf_attr_get_id,
  bpf_attr_link_create,
  bpf_attr_map_create,
  bpf_attr_obj,
  bpf_attr_prog_attach,
  bpf_attr_prog_load,
  bpf_attr_prog_query,
  bpf_map_flags,
} from '../uapi/bpf.ts'
import { bytes, struct, u32, u64 } from '../uapi/codec.ts'
import { errnoName } from '../uapi/errno.ts'

const ATTR_BYTES = 168
/** What every record has; the rest is left out where it is zero. */
export const HEAD_BYTES = 72

/** struct recorder_call of bpf/recorder.bpf.c; a test holds it against the compiled object. */
export const recorder_call = struct(304, {
  at: u64(0), // CLOCK_MONOTONIC, nanoseconds
  cgroup: u64(8),
  user_namespace: u32(16),
  tgid: u32(20), // in the recorder's PID namespace; 0: it has no number there
  tid: u32(24),
  inner: u32(28), // tgid in its own PID namespace
  uid: u32(32), // in the initial user namespace
  flags: u32(36), // FLAGS
  cmd: u32(40), // as it was given; of perf_event_open its type
  size: u32(44),
  result: u32(48), // of signed 32 bits
  pad: u32(52),
  comm: bytes(56, 16),
  attr: bytes(HEAD_BYTES, ATTR_BYTES), // union bpf_attr, as far as it was given
  text: bytes(HEAD_BYTES + ATTR_BYTES, 64), // the path of a pin, the name of a raw tracepoint
})

/** enum recorder_call_flags */
export const FLAGS = {
  RECORDER_ENTERED: 1,
  RECORDER_COMPAT: 2,
  RECORDER_PERF: 4,
  RECORDER_HELD: 8,
  RECORDER_SIGNALLED: 16,
} as const

/** Since Linux 7.2: there are attributes that all commands share. No part of the command. */
const BPF_COMMON_ATTRS = 1 << 16

export interface SeenCall {
  /** Nanoseconds of CLOCK_MONOTONIC. */
  readonly at: bigint
  /** As the recorder's PID namespace numbers it; 0: it is in another. */
  readonly pid: number
  readonly tid: number
  /** As its own PID namespace numbers it. */
  readonly innerPid: number
  /** Of the host. */
  readonly uid: number
  /** Inode number. */
  readonly userNamespace: number
  readonly cgroup: bigint
  /** Name of the thread. */
  readonly task: string
  /** A word of bpf(2), in digits if it is newer than our headers; or the other system call. */
  readonly command: Cmd | 'perf_event_open'
  /** What it returned; below zero, an errno. */
  readonly result: number
  /**
   * `EPERM`; `SIGSYS`: a filter killed its thread, or sent that signal; `UNDONE`: something before the
   * kernel's function said that it was done; undefined: it was done.
   */
  readonly errno: string | undefined
  /** False: something before the kernel's function has answered, such as a seccomp filter. */
  readonly reached: boolean
  /** Its thread was asked to stop, until it has been looked at: see held-command.ts. */
  readonly held: boolean
  /** A system call of 32 bits. */
  readonly compat: boolean
  /** It named a token. */
  readonly withToken: boolean
  /** Of BPF_MAP_CREATE and BPF_PROG_LOAD: map_flags or prog_flags; else 0. */
  readonly objectFlags: number
  /** What it asks a token for; undefined: this command asks for none. */
  readonly need: Need | undefined
  /** Of BPF_LINK_CREATE, BPF_PROG_ATTACH and BPF_PROG_DETACH. */
  readonly attachType: AttachType | undefined
  /** Of the same, their descriptors: of a link the program or map, and of all what it is attached to. */
  readonly descriptors: { readonly program: number; readonly target: number } | undefined
  /** Of BPF_OBJ_GET and BPF_OBJ_PIN: file_flags. */
  readonly fileFlags: number
  /** The object that it would make, the path of a pin, the name of a raw tracepoint; may be empty. */
  readonly name: string
  /** Of a program that was refused, the end of what the verifier said; where it is asked for. */
  readonly log?: string | undefined
}

/** Decodes what the recorder's programs wrote: what is zero at the end is left out. */
export function seenCall(record: Uint8Array): SeenCall {
  const whole = new Uint8Array(recorder_call.size)
  whole.set(record.subarray(0, whole.length))
  const raw = recorder_call.decode(whole)
  const flags = raw.flags!
  const result = raw.result! | 0
  const has = (flag: keyof typeof FLAGS): boolean => (flags & FLAGS[flag]) !== 0
  const number = (raw.cmd! & ~BPF_COMMON_ATTRS) >>> 0
  const request = has('RECORDER_PERF')
    ? { command: 'perf_event_open' as const, name: '' }
    : { command: CMDS.word(number), ...requestOf(number, raw.attr!, raw.text!) }
  return {
    at: raw.at!,
    pid: raw.tgid!,
    tid: raw.tid!,
    innerPid: raw.inner!,
    uid: raw.uid!,
    userNamespace: raw.user_namespace!,
    cgroup: raw.cgroup!,
    task: nameFrom(raw.comm!),
    result,
    errno: has('RECORDER_SIGNALLED')
      ? 'SIGSYS'
      : result < 0
        ? errnoName(result)
        : has('RECORDER_ENTERED')
          ? undefined
          : 'UNDONE',
    reached: has('RECORDER_ENTERED'),
    held: has('RECORDER_HELD'),
    compat: has('RECORDER_COMPAT'),
    ...{
      withToken: false,
      objectFlags: 0,
      need: undefined,
      attachType: undefined,
      descriptors: undefined,
      fileFlags: 0,
    },
    ...request,
  }
}

type Request = Pick<SeenCall, 'name'> &
  Partial<Pick<SeenCall, 'withToken' | 'objectFlags' | 'need' | 'attachType' | 'descriptors' | 'fileFlags'>>

/** What the attributes say, by command. */
function requestOf(number: number, attr: Uint8Array, text: Uint8Array): Request {
  const hasToken = (flags: number): boolean => (flags & bpf_map_flags.BPF_F_TOKEN_FD) !== 0
  const named = nameFrom(text)
  switch (CMDS.word(number)) {
    case 'map_create': {
      const { map_type, map_flags, map_name } = bpf_attr_map_create.decode(attr)
      const need = { cmd: 'map_create', mapType: map_type! } as const
      return {
        need,
        withToken: hasToken(map_flags!),
        objectFlags: map_flags!,
        name: nameFrom(map_name!),
      }
    }
    case 'prog_load': {
      const load = bpf_attr_prog_load.decode(attr)
      const { prog_type: progType, expected_attach_type: attachType } = load
      const need = { cmd: 'prog_load', progType: progType!, attachType: attachType! } as const
      return {
        need,
        withToken: hasToken(load.prog_flags!),
        objectFlags: load.prog_flags!,
        name: nameFrom(load.prog_name!),
      }
    }
    case 'btf_load': {
      const { btf_flags } = bpf_attr_btf_load.decode(attr)
      return { need: { cmd: 'btf_load' }, withToken: hasToken(btf_flags!), name: '' }
    }
    case 'btf_get_fd_by_id': {
      const { open_flags } = bpf_attr_get_id.decode(attr)
      return { need: { cmd: 'btf_get_fd_by_id' }, withToken: hasToken(open_flags!), name: '' }
    }
    case 'link_create': {
      const { attach_type, prog_fd, target_fd } = bpf_attr_link_create.decode(attr)
      const descriptors = { program: prog_fd!, target: target_fd! }
      return { attachType: ATTACH_TYPES.word(attach_type!), descriptors, name: '' }
    }
    case 'prog_attach':
    case 'prog_detach': {
      const { attach_type, attach_bpf_fd, target_fd } = bpf_attr_prog_attach.decode(attr)
      const descriptors = { program: attach_bpf_fd!, target: target_fd! }
      return { attachType: ATTACH_TYPES.word(attach_type!), descriptors, name: '' }
    }
    case 'prog_query':
      return { attachType: ATTACH_TYPES.word(bpf_attr_prog_query.decode(attr).attach_type!), name: '' }
    case 'obj_pin':
    case 'obj_get':
      return { fileFlags: bpf_attr_obj.decode(attr).file_flags!, name: named }
    default:
      return { name: named }
  }
}
