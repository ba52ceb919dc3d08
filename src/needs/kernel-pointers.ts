/**
 * Whether a program reads through pointers of the kernel's own types, which the verifier lets only
 * holders of CAP_PERFMON do. Pure.
 *
 * Programs for tracing need the capability anyway; others come by such pointers from kernel
 * functions and variables. Source: kernel/bpf/verifier.c, check_ptr_to_btf_access: "access is
 * allowed only to CAP_PERFMON and CAP_SYS_ADMIN".
 */
import type { Btf } from '../ebpf/btf/btf.ts'
import { essentialName } from '../ebpf/btf/names.ts'
import type { ExternSpec } from '../ebpf/object/externs.ts'
import type { FunctionSpec } from '../ebpf/object/functions.ts'

/** Their result is of no use but to be read through, and their prototypes say `void *`. */
const MAKE_POINTERS: ReadonlySet<string> = new Set([
  ...['bpf_cast_to_kern_ctx', 'bpf_rdonly_cast', 'bpf_core_cast'],
  ...['bpf_obj_new_impl', 'bpf_obj_new', 'bpf_percpu_obj_new_impl', 'bpf_percpu_obj_new'],
])

/**
 * What gives the program such a pointer, by its name; undefined: nothing that the file shows. A
 * function that returns a pointer to a struct counts where the program has an access to a field of
 * that struct: to hand the pointer on takes no capability.
 */
export function kernelPointerFrom(
  functions: readonly FunctionSpec[],
  externs: readonly ExternSpec[],
  types: Btf | undefined,
): string | undefined {
  if (types === undefined) return undefined
  const used = new Set(
    functions.flatMap(({ references }) =>
      references.flatMap(one => (one.kind === 'extern' ? [one.extern] : [])),
    ),
  )
  let accessed: ReadonlySet<string> | undefined
  for (const { name, kind, typeId } of externs) {
    if (!used.has(name) || typeId === 0) continue
    if (kind === 'kfunc' && MAKE_POINTERS.has(essentialName(name))) return name
    const struct =
      kind === 'kfunc' ? resultOf(types, typeId) : kind === 'ksym' ? structAt(types, typeId) : undefined
    if (struct === undefined) continue
    accessed ??= accessedStructs(functions, types)
    if (accessed.has(struct)) return name
  }
  return undefined
}

/** Name of the struct that a function's result points to. */
function resultOf(types: Btf, protoId: number): string | undefined {
  const proto = types.type(protoId)
  const pointer = proto.kind === 'func_proto' ? types.resolve(proto.type) : undefined
  return pointer?.kind === 'ptr' ? structAt(types, pointer.type) : undefined
}

function structAt(types: Btf, id: number): string | undefined {
  const type = types.resolve(id)
  return (type?.kind === 'struct' || type?.kind === 'union') && type.name !== ''
    ? essentialName(type.name)
    : undefined
}

/** BPF_CORE_FIELD_BYTE_OFFSET */
const BYTE_OFFSET = 0

/** Of the relocations of a function, which many programs may share. */
const accessedBy = new WeakMap<FunctionSpec, ReadonlySet<string>>()

/** Structs of which the functions read or write a field, as CO-RE relocations tell. */
function accessedStructs(functions: readonly FunctionSpec[], types: Btf): ReadonlySet<string> {
  const found = new Set<string>()
  for (const of of functions) {
    let accessed = accessedBy.get(of)
    if (accessed === undefined) {
      accessed = accessedOf(of, types)
      accessedBy.set(of, accessed)
    }
    for (const struct of accessed) found.add(struct)
  }
  return found
}

function accessedOf({ coreRelos }: FunctionSpec, types: Btf): ReadonlySet<string> {
  const ids = new Set(coreRelos.flatMap(({ kind, typeId }) => (kind === BYTE_OFFSET ? [typeId] : [])))
  return new Set([...ids].flatMap(id => structAt(types, id) ?? []))
}
