/**
 * What security modules of this machine have to say to a call, as far as the kernel tells: which
 * there are, the label of the process, BPF programs at hooks of bpf(2), and lockdown.
 */
import { existsSync, readFileSync } from 'node:fs'
import { kernelBtf } from '../../ebpf/kernel/btf.ts'
import { programIds } from '../../ebpf/object-id.ts'
import { printable, printableName } from '../../ebpf/printable.ts'
import { Program } from '../../ebpf/prog.ts'
import { BpftokenError, NotFoundError } from '../../errors.ts'
import { GUARD_DIRECTORY } from '../../guard/directory.ts'
import { LOOK_MS, readInTime } from '../../sys/in-time.ts'
import type { ProcessHandle } from '../../sys/process.ts'
import type { Finding } from './finding.ts'

export type Lockdown = 'none' | 'integrity' | 'confidentiality'

/** A BPF program that a security hook of bpf(2) runs. */
export interface SecurityProgram {
  readonly id: number
  readonly name: string
  /** `bpf_map_create` */
  readonly hook: string
}

export interface SecurityModules {
  /** In the kernel's order; empty where it is not told. */
  readonly names: readonly string[]
  /** Undefined: the kernel gives none. */
  readonly label: string | undefined
  readonly programs: readonly SecurityProgram[]
  /** Undefined: the module is not on, or does not tell. */
  readonly lockdown: Lockdown | undefined
}

const DIRECTORY = '/sys/kernel/security'

export async function securityModules(process: ProcessHandle): Promise<SecurityModules> {
  const names = (textOf(`${DIRECTORY}/lsm`) ?? '').split(',').filter(Boolean)
  return {
    names,
    label: await labelOf(process),
    programs: names.includes('bpf') ? securityPrograms() : [],
    lockdown: lockdownIn(textOf(`${DIRECTORY}/lockdown`) ?? ''),
  }
}

/** `none [integrity] confidentiality`. Pure. */
export function lockdownIn(text: string): Lockdown | undefined {
  const chosen = /\[(none|integrity|confidentiality)\]/.exec(text)?.[1]
  return chosen as Lockdown | undefined
}

async function labelOf(process: ProcessHandle): Promise<string | undefined> {
  try {
    return (await readInTime(process, 'attr/current', LOOK_MS)).replace(/[\0\n]+$/, '') || undefined
  } catch (error) {
    if (error instanceof BpftokenError && !(error instanceof NotFoundError)) return undefined
    throw error
  }
}

const HOOK = /^bpf_lsm_(bpf.*)$/

/**
 * Loaded ones: whether one is attached, only its link tells, which may be nobody's. Those of the guard
 * have their own say.
 */
function securityPrograms(): SecurityProgram[] {
  const found: SecurityProgram[] = []
  const { types } = kernelBtf()
  const hasGuard = existsSync(GUARD_DIRECTORY)
  for (const id of programIds()) {
    try {
      using program = Program.fromId(id)
      const { type, name, attachBtfId } = program.info()
      if (type !== 'lsm' || (hasGuard && name.startsWith('guard_'))) continue
      const target = types.resolve(attachBtfId)
      const hook = HOOK.exec(target !== undefined && 'name' in target ? String(target.name) : '')?.[1]
      if (hook !== undefined) found.push({ id, name, hook })
    } catch (error) {
      // It is gone.
      if (!(error instanceof BpftokenError)) throw error
    }
  }
  return found
}

function textOf(file: string): string | undefined {
  try {
    return readFileSync(file, 'latin1').trim()
  } catch {
    return undefined
  }
}

/** Who may have refused. Pure. */
export function modulesText({ names, label, programs }: SecurityModules): string {
  const others = programs.map(({ id, name, hook }) => `${printableName(name)} (${id}) at ${hook}`)
  return [
    `security modules: ${names.join(', ') || 'not told'}`,
    ...(label === undefined ? [] : [`label of the process: ${printableName(label)}`]),
    ...(others.length === 0 ? [] : [`BPF programs at hooks of bpf(2): ${others.join(', ')}`]),
  ].join('; ')
}

/** What the verifier says where lockdown keeps a helper from a program. */
const LOCKED_HELPERS = /(unknown func|cannot use helper) bpf_(probe_read|probe_write_user)/

/** Undefined: lockdown is not on, or what the verifier said has another reason. Pure. */
export function lockdownBehind(lockdown: Lockdown | undefined, log: string | undefined): Finding | undefined {
  if (lockdown === undefined || lockdown === 'none') return undefined
  const line = log?.split('\n').find(one => LOCKED_HELPERS.test(one))
  if (line === undefined) return undefined
  return {
    ...{ cause: 'lockdown', errno: 'EINVAL' },
    needed: line.includes('probe_write_user') ? 'lockdown none' : 'lockdown none or integrity',
    found: `lockdown ${lockdown}: ${printable(line)}`,
  }
}
