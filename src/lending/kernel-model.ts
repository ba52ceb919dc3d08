/** The running kernel as the model wants it: its words and attributes, from its BTF. */
import { readKernelEnums } from '../delegation/vocabulary.ts'
import type { Btf } from '../ebpf/btf/btf.ts'
import { kernelBtf } from '../ebpf/kernel/btf.ts'
import { factsFrom, type KernelFacts, type KernelShape } from '../model/kernel.ts'
import { VMLINUX_BTF } from '../uapi/kernel-paths.ts'

/** The kernel that runs here. NotSupportedError without its BTF. */
export function runningKernel(): KernelFacts {
  const { types } = kernelBtf()
  return factsFrom('running', { enums: readKernelEnums(VMLINUX_BTF), ...attrShape(types) })
}

/** Size and fields of union bpf_attr in a kernel's BTF. */
export function attrShape(types: Btf): Pick<KernelShape, 'attrBytes' | 'attrFields'> {
  const [id] = types.find('bpf_attr', 'union')
  const fields = new Set<string>()
  if (id === undefined) return { attrBytes: 0, attrFields: fields }
  addFields(types, id, fields)
  return { attrBytes: types.sizeof(id), attrFields: fields }
}

function addFields(types: Btf, id: number, fields: Set<string>): void {
  const type = types.resolve(id)
  if (type?.kind !== 'struct' && type?.kind !== 'union') return
  for (const member of type.members) {
    if (member.name !== '') fields.add(member.name)
    addFields(types, member.type, fields)
  }
}
