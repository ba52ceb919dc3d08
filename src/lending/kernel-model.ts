/** The running kernel as the model wants it: its words and attributes, from its BTF. */
import { readFileSync } from 'node:fs'
import type { Btf } from '../ebpf/btf/btf.ts'
import { kernelBtf } from '../ebpf/kernel/btf.ts'
import { factsFrom, type KernelFacts, type KernelShape, type MapLimits } from '../model/kernel.ts'
import { DOMAIN_ENUMS, type KernelEnums } from '../policy/vocabulary.ts'

/** The kernel that runs here. NotSupportedError without its BTF. */
export function runningKernel(): KernelFacts {
  const { types } = kernelBtf()
  return factsFrom('running', { enums: enumsIn(types), ...attrShape(types) }, {}, readLimits())
}

/** What it says of its limits; what cannot be read is left to the model. */
function readLimits(): Partial<MapLimits> {
  const lastProcessor = numberIn('/sys/devices/system/cpu/kernel_max')
  const stackDepth = numberIn('/proc/sys/kernel/perf_event_max_stack')
  return {
    ...(lastProcessor === undefined ? {} : { processors: lastProcessor + 1 }),
    ...(stackDepth === undefined ? {} : { stackDepth }),
  }
}

function numberIn(path: string): number | undefined {
  try {
    const text = readFileSync(path, 'utf8').trim()
    return /^\d{1,9}$/.test(text) ? Number(text) : undefined
  } catch {
    return undefined
  }
}

/** By the index of names that is there for the rest: no second way through all types. */
function enumsIn(types: Btf): KernelEnums {
  const enums = Object.values(DOMAIN_ENUMS).map(({ enumName }) => {
    const type = types.resolve(types.find(enumName, 'enum')[0] ?? 0)
    const values = type?.kind === 'enum' ? type.values : []
    return [enumName, Object.fromEntries(values.map(({ name, value }) => [name, Number(value)]))]
  })
  return Object.fromEntries(enums) as KernelEnums
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
