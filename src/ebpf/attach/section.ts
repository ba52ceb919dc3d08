/**
 * Attaching a loaded program as its section's name says, or to what the caller names: one door for
 * all kinds.
 */
import { InputError, NotFoundError, NotSupportedError } from '../../errors.ts'
import { interfaceIndex } from '../../sys/socket.ts'
import { isGlob } from '../glob.ts'
import type { Link } from '../link.ts'
import type { LoadedObject } from '../load/object.ts'
import type { ObjectProgram } from '../object/spec.ts'
import type { Program } from '../prog.ts'
import {
  attachCgroup,
  attachIterator,
  attachNetkit,
  attachNetns,
  attachRawTracepoint,
  attachTcx,
  attachXdp,
} from './attach.ts'
import { attachKprobeMulti, attachUprobeMulti } from './many.ts'
import {
  attachKprobe,
  attachStructOps,
  attachTracepoint,
  attachTrampoline,
  attachUprobe,
  type StructOpsRegistration,
  syscallFunction,
} from './trace.ts'
import { attachUsdt } from './usdt.ts'

/** Where to attach; undefined: where the section's name says. */
export type AttachSpec =
  | { readonly kind: 'xdp'; readonly device: string; readonly mode?: 'skb' | 'driver' | 'hardware' }
  | { readonly kind: 'tcx'; readonly device: string; readonly direction: 'ingress' | 'egress' }
  | { readonly kind: 'netkit'; readonly device: string; readonly end: 'primary' | 'peer' }
  | { readonly kind: 'cgroup'; readonly path: string }
  | { readonly kind: 'netns'; readonly path: string }

function nothing(program: ObjectProgram): InputError {
  return new InputError(
    `The section "${program.section}" does not say where program "${program.name}" attaches`,
    {
      context: { program: program.name, section: program.section },
      hint: 'Name a device, a cgroup or a network namespace for it',
      reason: 'no-place',
    },
  )
}

/** Whether `attachProgram` knows where without being told. */
export function attachesItself(program: ObjectProgram): boolean {
  return program.rule?.autoAttach !== undefined && program.target !== undefined
}

/**
 * Attaches program `name`. InputError: its section does not say where. NotSupportedError: this kind
 * cannot be attached yet. Other failures are those of the kind's own function. The caller disposes
 * of the link.
 */
export function attachProgram(object: LoadedObject, name: string, spec?: AttachSpec): Link {
  const program = object.program(name)
  const facts = object.spec.programs.find(one => one.name === name)!
  if (spec !== undefined) return attachTo(program, facts, spec)
  if (facts.rule?.autoAttach === 'usdt') return attachUsdtBySection(object, facts)
  return attachBySection(program, facts)
}

function attachUsdtBySection(object: LoadedObject, facts: ObjectProgram): Link {
  const [, path, provider, name] = /^([^:]+):([^:]+):([^:]+)$/.exec(facts.target ?? '') ?? []
  if (path === undefined || provider === undefined || name === undefined) throw nothing(facts)
  return attachUsdt(object, facts.name, { path, provider, name })
}

function attachTo(program: Program, { rule }: ObjectProgram, spec: AttachSpec): Link {
  const attachType = rule?.attachType
  switch (spec.kind) {
    case 'xdp':
      return attachXdp(program, {
        ifindex: interfaceIndex(spec.device),
        ...(spec.mode === undefined ? {} : { mode: spec.mode }),
      })
    case 'tcx':
      return attachTcx(program, { ifindex: interfaceIndex(spec.device), direction: spec.direction })
    case 'netkit':
      return attachNetkit(program, { ifindex: interfaceIndex(spec.device), end: spec.end })
    case 'cgroup':
      return attachCgroup(program, { cgroup: spec.path, attachType: attachType ?? 0 })
    case 'netns':
      return attachNetns(program, {
        netns: spec.path,
        attachType: rule?.type === 'flow_dissector' ? 'flow_dissector' : 'sk_lookup',
      })
  }
}

function attachBySection(program: Program, facts: ObjectProgram): Link {
  const { rule, target, section } = facts
  if (rule?.autoAttach === undefined) throw nothing(facts)
  // What was loaded for a function needs no name any more.
  if (rule.autoAttach === 'trace' || rule.autoAttach === 'lsm')
    return attachTrampoline(program, { attachType: rule.attachType ?? 0 })
  if (rule.autoAttach === 'iter') return attachIterator(program)
  if (target === undefined) throw nothing(facts)
  const onReturn = /^(kret|uret)/.test(section)
  switch (rule.autoAttach) {
    case 'kprobe': {
      const [, symbol = target, off] = /^(.*?)\+(0x[0-9a-f]+|\d+)$/i.exec(target) ?? []
      return attachKprobe(program, { symbol, off: Number(off ?? 0), onReturn })
    }
    case 'ksyscall':
      return attachKprobe(program, { symbol: syscallFunction(target), onReturn })
    case 'kprobe_multi':
    case 'kprobe_session':
      return attachKprobeMulti(program, {
        ...(isGlob(target) ? { pattern: target } : { symbols: target.split(',') }),
        onReturn,
        session: rule.autoAttach === 'kprobe_session',
      })
    case 'uprobe': {
      const [, path, symbol, off] = /^(.+):([^:+]+)(?:\+(0x[0-9a-f]+|\d+))?$/i.exec(target) ?? []
      if (path === undefined || symbol === undefined) throw nothing(facts)
      const plain = /^\d|^0x/.test(symbol)
      return attachUprobe(program, {
        path,
        onReturn,
        ...(plain ? { off: Number(symbol) } : { symbol, off: Number(off ?? 0) }),
      })
    }
    case 'uprobe_multi': {
      const [, path, pattern] = /^([^:]+):(.+)$/.exec(target) ?? []
      if (path === undefined || pattern === undefined) throw nothing(facts)
      return attachUprobeMulti(program, {
        path,
        ...(isGlob(pattern) ? { pattern } : { symbols: pattern.split(',') }),
        onReturn,
        session: rule.attachType === 'trace_uprobe_session',
      })
    }
    case 'tracepoint': {
      const [category, event] = target.split('/')
      if (category === undefined || event === undefined) throw nothing(facts)
      return attachTracepoint(program, { category, name: event })
    }
    case 'raw_tracepoint':
      return attachRawTracepoint(program, target)
    default:
      throw new NotSupportedError(
        `Programs of section "${section}" cannot be attached by their section's name yet`,
        {
          context: { program: facts.name, section },
          hint: 'Attach it with the function for its kind',
        },
      )
  }
}

/** Registers struct_ops map `name`; what is given back ends the registration. */
export function attachStructOpsMap(object: LoadedObject, name: string): Link | StructOpsRegistration {
  const contents = object.structOps.get(name)
  if (contents === undefined)
    throw new NotFoundError(`The loaded object has no struct_ops map "${name}"`, { context: { map: name } })
  return attachStructOps(object.map(name), contents)
}
