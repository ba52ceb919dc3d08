/**
 * The messages to an executor and its answers, as values and as the bytes of layout.ts.
 *
 * Every plan is encoded into one buffer, since it is sent at once.
 */
import { type BpftokenError, NotSupportedError } from '../../errors.ts'
import { failure } from '../failure.ts'
import type { Fd } from '../fd.ts'
import {
  EXECUTOR_VERSION,
  executor_action,
  executor_answer,
  executor_hello,
  executor_mount,
  executor_plan,
  executor_undone,
  KINDS,
  MAX_ACTIONS,
  MESSAGE_BYTES,
  OPS,
  type Op,
  SLOTS,
  type Slot,
} from './layout.ts'

export interface RawAction {
  readonly op: Op
  readonly number?: number | undefined
  readonly more?: number | undefined
  /** Bytes where it need not be UTF-8. */
  readonly text?: readonly (string | Uint8Array)[] | undefined
}

export interface RawPlan {
  readonly actions: readonly RawAction[]
  /** Of the target, for kernels without pidfd ioctls. */
  readonly pid: number
  /** Group of the child that enters the target's namespaces; its user is their owner. */
  readonly gid: number
  /** For all actions together; undoing has as long again. */
  readonly deadlineMs: number
  /** Lent for the plan. */
  readonly slots: Readonly<Partial<Record<Slot, Fd>>>
  /** The descriptors that the answer shall bring. */
  readonly give?: readonly Slot[]
}

/** A mount as the target's mount namespace has it. */
export interface SeenMount {
  readonly mountId: number
  readonly device: string
  readonly fsType: string
  readonly root: string
  /** As its mount namespace names it. */
  readonly path: string
  readonly superOptions: string[]
  /**
   * Whether the directory that was looked at is the mount's root directory, and not one below it.
   */
  readonly atRoot: boolean
}

export interface Undone {
  readonly op: Op
  /** 0, or -errno. */
  readonly result: number
}

export interface Answer {
  /** Index of the action that failed; undefined: none did. */
  readonly failed: number | undefined
  /** 0 or -errno of each action that was tried. */
  readonly results: readonly number[]
  /** In the order in which it was undone. */
  readonly undone: readonly Undone[]
  /** Of the actions LOOK. */
  readonly mounts: readonly SeenMount[]
  /** The caller closes them. */
  readonly given: Readonly<Partial<Record<Slot, Fd>>>
  /** The executor holds its results until `keep` or `undo`. */
  readonly held: boolean
}
const OUTGOING = new Uint8Array(MESSAGE_BYTES)

/** Why we cannot work with an executor that says this; undefined: we can. */
export function refusal(message: Uint8Array): BpftokenError | undefined {
  const hello = executor_hello.decode(message)
  const ours = [
    EXECUTOR_VERSION,
    ...[executor_hello, executor_plan, executor_action, executor_answer, executor_undone, executor_mount].map(
      layout => layout.size,
    ),
  ]
  const its = [
    hello.version,
    hello.hello_bytes,
    hello.plan_bytes,
    hello.action_bytes,
    hello.answer_bytes,
    hello.undone_bytes,
    hello.mount_bytes,
  ]
  if (ours.every((value, i) => value === its[i])) return undefined
  return new NotSupportedError('bpftoken-executor is of another version', {
    context: { ours: ours.join(), its: its.join() },
    hint: 'Install bpftoken again, or build the clone',
  })
}
const encoder = new TextEncoder()
const OP_NUMBERS = new Map(OPS.map((op, i) => [op, i]))

export function encodePlan(plan: RawPlan, serial: number): { bytes: Uint8Array; fds: Fd[] } {
  if (plan.actions.length > MAX_ACTIONS) throw failure('executor', 'plan', -7 /* E2BIG */)
  const view = new DataView(OUTGOING.buffer)
  const fds: Fd[] = []
  let slots = 0
  for (let i = 0; i < SLOTS.length; i++) {
    const fd = plan.slots[SLOTS[i]!]
    if (fd === undefined) continue
    slots |= 1 << i
    fds.push(fd)
  }
  const give = (plan.give ?? []).reduce((bits, slot) => bits | (1 << SLOTS.indexOf(slot)), 0)
  const { fields, size } = executor_plan
  fields.kind.set(view, 0, KINDS.indexOf('PLAN'))
  fields.actions.set(view, 0, plan.actions.length)
  fields.pid.set(view, 0, plan.pid)
  fields.deadline_ms.set(view, 0, plan.deadlineMs)
  fields.gid.set(view, 0, plan.gid)
  fields.slots.set(view, 0, slots)
  fields.give.set(view, 0, give)
  fields.serial.set(view, 0, serial)
  let at = size
  for (const action of plan.actions) at = encodeAction(action, view, at)
  return { bytes: OUTGOING.subarray(0, at), fds }
}

function encodeAction({ op, number, more, text }: RawAction, view: DataView, at: number): number {
  const { fields, size } = executor_action
  let next = at + size
  if (text !== undefined) {
    for (const part of text) {
      // Fail closed: a text that ends early for the kernel names another thing.
      if (typeof part === 'string' ? part.includes('\0') : part.includes(0))
        throw new TypeError(`${op}: text with a zero byte`)
      const room = OUTGOING.subarray(next, MESSAGE_BYTES - 8)
      const { read, written } =
        typeof part === 'string' ? encoder.encodeInto(part, room) : copyInto(part, room)
      if (read < part.length) throw failure('executor', op, -7 /* E2BIG */)
      next += written
      OUTGOING[next++] = 0
    }
    // The end of a second text, though it be missing; then up to a multiple of four.
    do OUTGOING[next++] = 0
    while (next % 4 !== 0)
  }
  fields.op.set(view, at, OP_NUMBERS.get(op)!)
  fields.bytes.set(view, at, next - at)
  fields.number.set(view, at, number ?? 0)
  fields.more.set(view, at, more ?? 0)
  return next
}

function copyInto(bytes: Uint8Array, room: Uint8Array): { read: number; written: number } {
  const count = Math.min(bytes.length, room.length)
  room.set(bytes.subarray(0, count))
  return { read: count, written: count }
}

export function decodeAnswer(message: Uint8Array, fds: Fd[]): Answer {
  const view = new DataView(message.buffer, message.byteOffset, message.byteLength)
  const { fields, size } = executor_answer
  const failed = fields.failed.get(view, 0)
  const steps = fields.steps.get(view, 0)
  const slots = fields.slots.get(view, 0)
  const results: number[] = []
  let at = size
  for (let i = 0; i < steps; i++, at += 4) results.push(view.getInt32(at, true))
  const undone: Undone[] = []
  for (let i = fields.undone.get(view, 0); i > 0; i--, at += executor_undone.size)
    undone.push({
      op: OPS[executor_undone.fields.op.get(view, at)]!,
      result: executor_undone.fields.result.get(view, at),
    })
  const mounts: SeenMount[] = []
  for (let i = fields.mounts.get(view, 0); i > 0; i--) {
    mounts.push(decodeMount(message, view, at))
    at += executor_mount.fields.bytes.get(view, at)
  }
  const given: Partial<Record<Slot, Fd>> = {}
  let next = 0
  if (slots !== 0)
    SLOTS.forEach((slot, i) => {
      if (((slots >> i) & 1) === 1) given[slot] = fds[next++]!
    })
  return {
    failed: failed < 0 ? undefined : failed,
    results,
    undone,
    mounts,
    given,
    held: fields.held.get(view, 0) > 0,
  }
}

function decodeMount(message: Uint8Array, view: DataView, at: number): SeenMount {
  const { fields, size } = executor_mount
  const text = Buffer.from(message.buffer, message.byteOffset + at + size, fields.bytes.get(view, at) - size)
  const [fsType = '', root = '', path = '', options = ''] = text.toString('utf8').split('\0')
  return {
    mountId: fields.id.get(view, at),
    device: `${fields.device_major.get(view, at)}:${fields.device_minor.get(view, at)}`,
    fsType,
    root,
    path,
    superOptions: options.split(','),
    atRoot: fields.at_root.get(view, at) === 1,
  }
}
