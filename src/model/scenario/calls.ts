/** Steps that are calls of bpf(2), and what is done with tokens beside. */
import { bpf_cmd } from '../../uapi/bpf.ts'
import { type BpfCall, decide } from '../decide.ts'
import { CLOSED } from '../file.ts'
import { type Asked, type Asker, askCommand, askMap, askProg, askToken } from '../guard/ask.ts'
import type { GuardCall, GuardProgram } from '../guard/guard.ts'
import { MAP_TYPES } from '../map-types.ts'
import type { Task } from '../task.ts'
import { OK, type Outcome, outcomeOf, refusedBy } from './outcome.ts'
import type { ScenarioStep } from './schema.ts'
import type { Stage } from './stage.ts'

export function makeToken(stage: Stage, step: ScenarioStep, task: Task, i: number): Outcome {
  const { instance, ...through } = stage.found(stage.mounts, step.mount, 'mount', i)
  const call = { op: 'token_create', bpffs: { kind: 'bpffs', instance, isRoot: true } } as const
  const asker = stage.asker(step)
  const asked =
    asker === undefined
      ? { decision: decide(stage.with(step), task, call) }
      : askToken(asker, call, through, bpf_cmd.BPF_TOKEN_CREATE)
  if (asked.decision.errno === undefined && step.token !== undefined)
    stage.tokens.set(step.token, {
      token: instance,
      ...(asked.made === undefined ? {} : { record: asked.made }),
      owners: new Set([step.as!]),
    })
  return outcomeOf(asked)
}

/** Through /proc/self/fd. */
export function reopenToken(stage: Stage, step: ScenarioStep, i: number): Outcome {
  const held = stage.found(stage.tokens, step.token, 'token', i)
  if (!held.owners.has(step.as!)) return NOT_ITS
  return stage.guard === undefined ? OK : refusedBy(stage.guard.reopen())
}

/** Nobody gives away or opens what is another task's. */
const NOT_ITS: Outcome = { outcome: 'EBADF', note: 'the task has no such token' }

export function passToken(stage: Stage, step: ScenarioStep, i: number): Outcome {
  const held = stage.found(stage.tokens, step.token, 'token', i)
  if (!held.owners.has(step.as!)) return NOT_ITS
  const to = stage.found(stage.actors, step.to, 'to', i)
  const said = held.record === undefined ? undefined : stage.guard?.receive(to, { token: held.record })
  if (said?.refused === true) return refusedBy(said)
  held.owners.add(step.to!)
  return OK
}

/** bpf(2), with or without a token. */
export function useBpf(stage: Stage, step: ScenarioStep, task: Task, i: number): Outcome {
  const held = step.token === undefined ? undefined : stage.found(stage.tokens, step.token, 'token', i)
  const mine = held?.owners.has(step.as!) === true
  const file = held === undefined || !mine ? CLOSED : { kind: 'token' as const, token: held.token }
  const choice = step.token === undefined ? {} : { token: { flag: true, file } }
  const call = callOf(stage, step, choice, i)
  const asker = stage.asker(step, mine ? held?.record : undefined)
  const asked: Asked<unknown> =
    asker === undefined
      ? { decision: decide(stage.with(step), task, call) }
      : ask(stage, asker, step, call, i)
  if (call.op === 'prog_load' && asked.decision.errno === undefined && step.prog !== undefined)
    stage.programs.set(step.prog, {
      program: {
        type: step.type ?? 'socket_filter',
        expectedAttach: call.attach ?? 0,
        ...(held === undefined ? {} : { token: held.token }),
      },
      ...(asked.made === undefined ? {} : { record: asked.made as GuardProgram }),
    })
  return outcomeOf(asked)
}

function ask(stage: Stage, asker: Asker, step: ScenarioStep, call: BpfCall, i: number): Asked<unknown> {
  const cmd = bpf_cmd[`BPF_${call.op.toUpperCase()}` as keyof typeof bpf_cmd]
  if (call.op === 'map_create') {
    const made = { type: call.type, flags: call.flags ?? 0, bytes: BigInt(step.bytes ?? 8) }
    return askMap(asker, call, made, cmd)
  }
  if (call.op === 'prog_load') {
    const loaded = {
      type: call.type,
      expectedAttach: call.attach ?? 0,
      instructions: step.instructions ?? 2,
      ...(step.target === undefined ? {} : { target: step.target }),
      digests: step.digest === undefined ? [] : [step.digest],
    }
    return askProg(asker, call, loaded, cmd)
  }
  return askCommand(asker, call, commandOf(stage, step, call, cmd, i))
}

/** What the hook `bpf` sees of a command. */
function commandOf(stage: Stage, step: ScenarioStep, call: BpfCall, cmd: number, i: number): GuardCall {
  if (call.op !== 'link_create' && call.op !== 'prog_detach') return { cmd }
  const record = stage.found(stage.programs, step.prog, 'prog', i).record
  const object = record === undefined ? {} : { object: { kind: 'program' as const, program: record } }
  const target =
    call.target.kind === 'device'
      ? ({ kind: 'other' } as const)
      : ({ kind: 'cgroup', cgroup: stage.target(step) } as const)
  return { cmd, ...object, type: call.attach, target }
}

function callOf(stage: Stage, step: ScenarioStep, choice: object, i: number): BpfCall {
  const attach = step.attach === undefined ? 0 : stage.bit('attachs', step.attach, i, 'attach')
  switch (step.do) {
    case 'map': {
      const type = stage.bit('maps', step.type, i, 'type')
      const outer = MAP_TYPES[step.type!]?.needsInner === true ? { inner: { kind: 'map' as const } } : {}
      return { op: 'map_create', type, ...outer, ...choice }
    }
    case 'prog': {
      const target = step.target === undefined ? {} : { target: 1 }
      const size = step.instructions === undefined ? {} : { instructions: step.instructions }
      return {
        op: 'prog_load',
        type: stage.bit('progs', step.type, i, 'type'),
        attach,
        ...target,
        ...size,
        ...choice,
      }
    }
    case 'btf':
      return { op: 'btf_load', ...choice }
    case 'btf_by_id':
      return { op: 'btf_get_fd_by_id', exists: true, ...choice }
    case 'pin': {
      const held = step.token === undefined ? undefined : stage.found(stage.tokens, step.token, 'token', i)
      const { instance } = stage.found(stage.mounts, step.mount, 'mount', i)
      return {
        op: 'obj_pin',
        object: held === undefined ? { kind: 'map' } : { kind: 'token', token: held.token },
        directory: { kind: 'bpffs', instance, isRoot: true },
      }
    }
    default: {
      const { program: prog } = stage.found(stage.programs, step.prog, 'prog', i)
      const isDevice = prog.type === 'xdp' || prog.type === 'sched_cls'
      const target = isDevice
        ? { kind: 'device' as const, exists: true }
        : { kind: 'file' as const, file: { kind: 'cgroup' as const } }
      return step.do === 'detach'
        ? { op: 'prog_detach', target, attach }
        : { op: 'link_create', prog: { kind: 'prog', prog }, target, attach }
    }
  }
}
