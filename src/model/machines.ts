/**
 * Kernels that the model knows without asking one: how many words each enum has, and which fields
 * its attributes. A test holds this table to their BTF.
 */
import type { KernelEnums } from '../policy/vocabulary.ts'
import { bpf_attach_type, bpf_cmd, bpf_map_type, bpf_prog_type } from '../uapi/bpf.ts'
import { factsFrom, type KernelFacts, type KernelShape } from './kernel.ts'
import type { MachineName } from './machine-names.ts'

/** Values from this number on are unknown to it. */
interface Known {
  readonly cmds: number
  readonly maps: number
  readonly progs: number
  readonly attachs: number
  readonly attrBytes: number
  readonly attrFields: readonly string[]
  /** Whether its enum bpf_cmd has the flag that is no command. */
  readonly commonAttrs?: true
}

const TOKEN_FIELDS = [
  ...['map_token_fd', 'prog_token_fd', 'btf_token_fd', 'btf_log_true_size'],
  ...['path_fd', 'expected_revision', 'revision'],
]
const FIELDS_6_18 = [
  ...TOKEN_FIELDS,
  'fd_array_cnt',
  'fd_by_id_token_fd',
  'keyring_id',
  'excl_prog_hash_size',
]

const MACHINES: Readonly<Record<MachineName, Known>> = {
  '6.1': { cmds: 36, maps: 32, progs: 32, attachs: 44, attrBytes: 144, attrFields: [] },
  '6.12': { cmds: 37, maps: 34, progs: 33, attachs: 57, attrBytes: 152, attrFields: TOKEN_FIELDS },
  '6.18': { cmds: 38, maps: 34, progs: 33, attachs: 58, attrBytes: 168, attrFields: FIELDS_6_18 },
  '7.3': {
    cmds: 39,
    maps: 36,
    progs: 33,
    attachs: 62,
    attrBytes: 168,
    attrFields: [...FIELDS_6_18, 'tracing_multi'],
    commonAttrs: true,
  },
}

/** What the table says of a kernel's BTF. */
export function knownShape(name: MachineName): KernelShape {
  const { cmds, maps, progs, attachs, attrBytes, attrFields, ...rest } = MACHINES[name]
  const enums: KernelEnums = {
    bpf_cmd: {
      ...below(bpf_cmd, cmds),
      ...(rest.commonAttrs === true ? { BPF_COMMON_ATTRS: 65536 } : {}),
    },
    bpf_map_type: below(bpf_map_type, maps),
    bpf_prog_type: below(bpf_prog_type, progs),
    bpf_attach_type: below(bpf_attach_type, attachs),
  }
  return { enums, attrBytes, attrFields: new Set(attrFields) }
}

function below(enumerators: Readonly<Record<string, number>>, end: number): Record<string, number> {
  return Object.fromEntries(Object.entries(enumerators).filter(([, value]) => value < end))
}

const made = new Map<MachineName, KernelFacts>()

/** A kernel with everything built in that its series has. */
export function knownKernel(name: MachineName): KernelFacts {
  let facts = made.get(name)
  if (facts === undefined) {
    facts = factsFrom(name, knownShape(name))
    made.set(name, facts)
  }
  return facts
}
