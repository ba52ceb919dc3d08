/**
 * How we speak with native/executor/: the same numbers as native/executor/layout.h, which says what
 * they mean. test/unit/sys/executor/layout.test.ts compares the two, and an executor of another
 * layout is refused.
 */
import { s32, struct, u16, u32 } from '../../uapi/codec.ts'

export const EXECUTOR_VERSION = 2
export const MESSAGE_BYTES = 65536
export const MAX_ACTIONS = 64
/** "None", where an id may be missing. */
export const NONE = 0xffff_ffff
/**
 * Added to the errno of an action that was not tried, because the namespaces could not be entered.
 */
export const ENTERING = 4096
/** With it, where the kernel would have let the target look into the child. */
export const EXPOSED = 4095

export const KINDS = ['HELLO', 'PLAN', 'CANCEL', 'KEEP', 'UNDO', 'PAUSED', 'RESULT', 'READY'] as const
export type Kind = (typeof KINDS)[number]

export const SLOTS = [
  'PROCESS',
  'USER',
  'MOUNTS',
  'ROOT',
  'DIRECTORY',
  'CONTEXT',
  'MOUNT',
  'REACHED',
] as const
export type Slot = (typeof SLOTS)[number]

export const OPS = [
  'OPEN_DIRECTORY',
  'OPEN_CONTEXT',
  'ATTACH',
  'OPEN_REACHED',
  'DETACH',
  'DETACH_COVERED',
  'SPOIL_CONTEXT',
  'MAKE_TOKEN',
  'MAKE_MAP',
  'ENTER_ROOT',
  'MAKE_DIRECTORY',
  'TAKE_CONTEXT',
  'SET_FLAG',
  'SET_OPTION',
  'PROVE_CONTEXT',
  'CREATE',
  'DISCARD_CONTEXT',
  'MAKE_MOUNT',
  'REFUSE_OCCUPIED',
  'REFUSE_UNREACHED',
  'REFUSE_MOVED',
  'LOOK',
  'PAUSE',
] as const
export type Op = (typeof OPS)[number]

export const executor_hello = struct(24, {
  kind: u32(0),
  version: u32(4),
  features: u32(8),
  hello_bytes: u16(12),
  plan_bytes: u16(14),
  action_bytes: u16(16),
  answer_bytes: u16(18),
  undone_bytes: u16(20),
  mount_bytes: u16(22),
})

export const executor_plan = struct(32, {
  kind: u32(0),
  actions: u32(4),
  pid: u32(8),
  deadline_ms: u32(12),
  gid: u32(16),
  slots: u32(20),
  give: u32(24),
  serial: u32(28),
})

export const executor_entry = struct(8, { serial: u32(0), op: u32(4) })

export const executor_action = struct(12, { op: u16(0), bytes: u16(2), number: u32(4), more: u32(8) })

export const executor_answer = struct(28, {
  kind: u32(0),
  failed: s32(4),
  steps: u32(8),
  undone: u32(12),
  mounts: u32(16),
  slots: u32(20),
  held: u32(24),
})

export const executor_undone = struct(8, { op: u32(0), result: s32(4) })

export const executor_mount = struct(20, {
  bytes: u32(0),
  id: u32(4),
  device_major: u32(8),
  device_minor: u32(12),
  at_root: u32(16),
})
