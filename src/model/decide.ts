/** The one door of the model: what a call comes to, and why. */
import {
  type LinkCreate,
  linkCreate,
  type ProgAttach,
  type ProgDetach,
  progAttach,
  progDetach,
} from './attach.ts'
import {
  type FsContext,
  type FsCreate,
  type FsMount,
  type FsOpen,
  type FsSet,
  fsCreate,
  fsMount,
  fsOpen,
  fsSet,
  type Mount,
  mayMountFails,
  mount,
} from './bpffs.ts'
import { type BtfGetFdById, type BtfLoad, btfGetFdById, btfLoad } from './btf.ts'
import type { BpffsInstance } from './file.ts'
import { type GetById, getById, type HostCommand, hostCommand, type ProgQuery, progQuery } from './ids.ts'
import { type Decision, Judge, type Mutation } from './judge.ts'
import type { Machine } from './machine.ts'
import { type MapCreate, mapCreate } from './map-create.ts'
import { type ObjGet, type ObjPin, objGet, objPin } from './pins.ts'
import { type ProgLoad, progLoad } from './prog-load.ts'
import type { Task } from './task.ts'
import { type TokenCreate, tokenCreate } from './token.ts'

/** A command of bpf(2). */
export type BpfCall =
  | TokenCreate
  | MapCreate
  | ProgLoad
  | BtfLoad
  | BtfGetFdById
  | GetById
  | HostCommand
  | ProgQuery
  | LinkCreate
  | ProgAttach
  | ProgDetach
  | ObjPin
  | ObjGet

/** A call that makes a bpffs. */
export type FsCall = FsOpen | FsSet | FsCreate | FsMount | Mount

/**
 * What a task's call of bpf(2) comes to on a machine. `ok` means that the kernel goes on to do what
 * it was asked for. For `mutation` see judge.ts.
 */
export function decide(machine: Machine, task: Task, call: BpfCall, mutation?: Mutation): Decision {
  const judge = new Judge(mutation)
  // The table is typed by the command that each of its functions is for.
  const command = COMMANDS[call.op] as (judge: Judge, machine: Machine, task: Task, call: BpfCall) => void
  command(judge, machine, task, call)
  return judge.decision()
}

type Command<Op extends BpfCall['op']> = (
  judge: Judge,
  machine: Machine,
  task: Task,
  call: Extract<BpfCall, { op: Op }>,
) => void

const COMMANDS: { readonly [Op in BpfCall['op']]: Command<Op> } = {
  token_create: tokenCreate,
  map_create: mapCreate,
  prog_load: progLoad,
  btf_load: btfLoad,
  btf_get_fd_by_id: btfGetFdById,
  prog_query: progQuery,
  link_create: linkCreate,
  prog_attach: progAttach,
  prog_detach: progDetach,
  obj_pin: objPin,
  obj_get: objGet,
  enable_stats: hostCommand,
  task_fd_query: hostCommand,
  prog_get_next_id: getById,
  map_get_next_id: getById,
  btf_get_next_id: getById,
  link_get_next_id: getById,
  prog_get_fd_by_id: getById,
  map_get_fd_by_id: getById,
  link_get_fd_by_id: getById,
}

/** What a call that makes a bpffs comes to, and what there is afterwards. */
export interface FsDecision extends Decision {
  /** The context as it is afterwards; absent where there is none. */
  readonly context?: FsContext
  /** What mount(2) has made. */
  readonly instance?: BpffsInstance
}

export function decideFs(machine: Machine, task: Task, call: FsCall, mutation?: Mutation): FsDecision {
  const judge = new Judge(mutation)
  if (call.op === 'mount') {
    const instance = mount(judge, machine, task, call)
    return { ...judge.decision(), ...(instance === undefined ? {} : { instance }) }
  }
  const context = contextAfter(judge, machine, task, call)
  return { ...judge.decision(), ...(context === undefined ? {} : { context }) }
}

/** Whether a task may bind or move a mount, by its own rights: mount(2) asks nothing else of it. */
export function decidePlace(task: Task): Decision {
  const judge = new Judge()
  mayMountFails(judge, task)
  return judge.decision()
}

function contextAfter(
  judge: Judge,
  machine: Machine,
  task: Task,
  call: Exclude<FsCall, Mount>,
): FsContext | undefined {
  switch (call.op) {
    case 'fsopen':
      return fsOpen(judge, task)
    case 'fsconfig_set':
      return fsSet(judge, machine, task, call)
    case 'fsconfig_create':
      return fsCreate(judge, machine, task, call)
    case 'fsmount':
      return fsMount(judge, task, call)
  }
}
