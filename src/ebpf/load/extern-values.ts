/**
 * What an object's externs are on the running kernel: addresses, BTF ids, and where configuration
 * values lie.
 */
import { ConflictError, FormatError, NotFoundError } from '../../errors.ts'
import type { Btf } from '../btf/btf.ts'
import { essentialName } from '../btf/names.ts'
import { CoreMatcher } from '../core/match.ts'
import { CoreTypes } from '../core/types.ts'
import { ksymAddresses } from '../kernel/kallsyms.ts'
import { findKernelType, type KernelType } from '../kernel/type.ts'
import type { ExternSpec } from '../object/externs.ts'

export type ExternValue =
  /** A field of the map `.kconfig`. */
  | { readonly kind: 'kconfig'; readonly off: number }
  | { readonly kind: 'address'; readonly address: bigint }
  | { readonly kind: 'type'; readonly id: number; readonly module: string | undefined }
  /** Weak, and not there. */
  | { readonly kind: 'missing' }

/**
 * Values by name. `local` are the types that the externs are declared with. NotFoundError: a strong
 * extern that this kernel does not have. ConflictError: it has one of that name, which is something
 * else: calling it would hand over the wrong arguments, and reading it would read the wrong bytes.
 */
export function externValues(externs: readonly ExternSpec[], local: Btf): Map<string, ExternValue> {
  const kernel = new KernelDeclarations(local)
  const values = new Map<string, ExternValue>()
  // Without a type only the address is wanted, and only /proc/kallsyms knows it.
  const untyped = externs.filter(({ kind, typeId }) => kind === 'ksym' && typeId === 0)
  const addresses =
    untyped.length === 0 ? new Map<string, bigint>() : ksymAddresses(new Set(untyped.map(({ name }) => name)))
  for (const extern of externs) {
    const value = find(extern, addresses, kernel)
    if (value === undefined && !extern.weak) throw missing(extern)
    values.set(extern.name, value ?? { kind: 'missing' })
  }
  return values
}

function find(
  extern: ExternSpec,
  addresses: ReadonlyMap<string, bigint>,
  kernel: KernelDeclarations,
): ExternValue | undefined {
  const { name, kind, typeId, field } = extern
  if (kind === 'kconfig') return { kind: 'kconfig', off: field!.off }
  if (kind === 'ksym' && typeId === 0) {
    const address = addresses.get(name)
    return address === undefined ? undefined : { kind: 'address', address }
  }
  // Functions may be declared in several flavours: NAME___OTHER. Variables may not.
  const found = kind === 'kfunc' ? findKernelType(essentialName(name), 'func') : findKernelType(name, 'var')
  if (found === undefined) return undefined
  if (!kernel.agrees(extern, found)) {
    if (extern.weak && kind === 'kfunc') return undefined
    throw otherType(extern, found)
  }
  return { kind: 'type', id: found.id, module: found.module }
}

/**
 * Compares declarations of the object with the kernel's, as CO-RE compares types: by kind, number
 * of parameters, and what pointers lead to. Source: libbpf, bpf_object__resolve_ksym_func_btf_id
 * and bpf_object__resolve_ksym_var_btf_id.
 */
class KernelDeclarations {
  readonly #local: CoreTypes
  readonly #matchers = new Map<Btf, CoreMatcher>()

  constructor(local: Btf) {
    this.#local = new CoreTypes(local)
  }

  agrees({ kind, typeId }: ExternSpec, { id, types }: KernelType): boolean {
    const theirs = types.type(id)
    if (theirs.kind !== 'func' && theirs.kind !== 'var') return false
    const target = kind === 'kfunc' ? theirs.type : (types.resolve(theirs.type)?.id ?? 0)
    let matcher = this.#matchers.get(types)
    if (matcher === undefined) {
      matcher = new CoreMatcher(this.#local, new CoreTypes(types))
      this.#matchers.set(types, matcher)
    }
    try {
      return matcher.compatible(typeId, target)
    } catch (error) {
      // Nested too deeply to be compared, and so not known to be the same.
      if (error instanceof FormatError) return false
      throw error
    }
  }
}

function otherType({ name, kind }: ExternSpec, { module }: KernelType): ConflictError {
  const where = module === undefined ? 'this kernel' : `module "${module}"`
  const message =
    kind === 'kfunc'
      ? `The object declares function "${name}" with a prototype that is incompatible with that of ${where}`
      : `The object declares variable "${name}" with a type that is incompatible with that of ${where}`
  return new ConflictError(message, {
    context: { extern: name, module: module ?? 'vmlinux' },
    hint:
      kind === 'kfunc'
        ? 'Declare it as this kernel has it; __weak, and checked for, it counts as missing'
        : 'Declare it as this kernel has it',
  })
}

function missing({ name, kind }: ExternSpec): NotFoundError {
  const what = kind === 'kfunc' ? 'function' : 'variable'
  return new NotFoundError(`This kernel has no ${what} "${name}" that programs may use`, {
    context: { extern: name },
    hint: 'Load the module that has it, if one does; or declare it __weak in the program and check for it',
  })
}
