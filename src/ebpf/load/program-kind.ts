/** Of which type a program is loaded, and what it attaches to. */
import { InputError, NotFoundError } from '../../errors.ts'
import { BPF_F_SLEEPABLE, BPF_F_XDP_HAS_FRAGS } from '../../uapi/constants.ts'
import { Btf } from '../btf/btf.ts'
import { BtfObject } from '../btf/object.ts'
import { findAttachTarget } from '../kernel/type.ts'
import type { ObjectProgram } from '../object/spec.ts'
import type { Program, ProgramSpec } from '../prog.ts'
import type { Token } from '../token.ts'
import type { AttachType, ProgType } from '../type-names.ts'
import type { StructOpsMaps } from './struct-ops-maps.ts'

/** What a loader may change about one program. */
export interface ProgramChoice {
  readonly load?: boolean
  /** For sections whose name says nothing, or something else. */
  readonly type?: ProgType | number
  readonly attachType?: AttachType | number
  /** What it attaches to: a function, a hook, a tracepoint, an iterator's name. */
  readonly target?: string
  /** `target` is a function of this program, which is traced or replaced. */
  readonly targetProgram?: Program
}

/** What the kernel wants to know of a program besides its code. */
export type ProgramKind = Pick<
  ProgramSpec,
  'type' | 'expectedAttachType' | 'attachBtfId' | 'attachBtf' | 'attachProgram' | 'flags'
>

export interface KindSources {
  readonly choice: ProgramChoice
  readonly token: Token | null
  readonly structOps: StructOpsMaps
  /** A module's types, open until loading is done. */
  readonly module: (name: string) => BtfObject
}

/** Type, attach type and target, from the section's name or as the caller chose. */
export function programKind(
  program: ObjectProgram,
  { choice, token, structOps, module }: KindSources,
): ProgramKind {
  const { rule, name } = program
  const type = choice.type ?? rule?.type
  if (type === undefined)
    throw new InputError(
      `The section "${program.section}" of program "${name}" does not say what type it is`,
      {
        context: { program: name, section: program.section },
        hint: 'Give its type when loading, or leave the program out',
      },
    )
  const attachType = choice.attachType ?? rule?.attachType
  const flags =
    (rule?.sleepable === true ? BPF_F_SLEEPABLE : 0) | (rule?.frags === true ? BPF_F_XDP_HAS_FRAGS : 0)
  const kind = { type, flags, ...(attachType === undefined ? {} : { expectedAttachType: attachType }) }
  const target = choice.target ?? program.target
  const ofModule = (module_: string | undefined) =>
    module_ === undefined ? {} : { attachBtf: module(module_) }
  if (type === 'struct_ops') {
    const member = structOps.memberFor(name)
    return {
      ...{ ...kind, expectedAttachType: member.number, attachBtfId: member.structId },
      ...ofModule(member.module),
    }
  }
  if (choice.targetProgram !== undefined) return { ...kind, ...targetIn(choice.targetProgram, target, token) }
  if (rule?.btfTarget !== true || type === 'ext') return kind
  const found = findAttachTarget(name, rule, target)
  return { ...kind, attachBtfId: found.id, ...ofModule(found.module) }
}

/** A function of a loaded program, which tells its types by their id. */
function targetIn(
  program: Program,
  name: string | undefined,
  token: Token | null,
): Pick<ProgramSpec, 'attachProgram' | 'attachBtfId'> {
  const { btfId, name: programName } = program.info()
  const notFound = (why: string): NotFoundError =>
    new NotFoundError(`Program "${programName}" ${why}`, {
      context: { program: programName, function: name },
    })
  if (name === undefined) throw notFound('is a target, of which no function is named')
  if (btfId === 0) throw notFound('was loaded without types, so its functions have no names')
  using object = BtfObject.fromId(btfId, { token })
  const attachBtfId = Btf.parse(object.raw()).find(name, 'func')[0]
  if (attachBtfId === undefined) throw notFound(`has no function "${name}"`)
  return { attachProgram: program, attachBtfId }
}
