/**
 * What an object's externs are on the running kernel: addresses, BTF ids, and where configuration
 * values lie.
 */
import { NotFoundError } from '../../errors.ts'
import { essentialName } from '../btf/names.ts'
import { ksymAddresses } from '../kernel/kallsyms.ts'
import { findKernelType } from '../kernel/type.ts'
import type { ExternSpec } from '../object/externs.ts'

export type ExternValue =
  /** A field of the map `.kconfig`. */
  | { readonly kind: 'kconfig'; readonly off: number }
  | { readonly kind: 'address'; readonly address: bigint }
  | { readonly kind: 'type'; readonly id: number; readonly module: string | undefined }
  /** Weak, and not there. */
  | { readonly kind: 'missing' }

/** Values by name. NotFoundError: a strong extern that this kernel does not have. */
export function externValues(externs: readonly ExternSpec[]): Map<string, ExternValue> {
  const values = new Map<string, ExternValue>()
  // Without a type only the address is wanted, and only /proc/kallsyms knows it.
  const untyped = externs.filter(({ kind, typeId }) => kind === 'ksym' && typeId === 0)
  const addresses =
    untyped.length === 0 ? new Map<string, bigint>() : ksymAddresses(new Set(untyped.map(({ name }) => name)))
  for (const extern of externs) {
    const value = find(extern, addresses)
    if (value === undefined && !extern.weak) throw missing(extern)
    values.set(extern.name, value ?? { kind: 'missing' })
  }
  return values
}

function find(
  { name, kind, typeId, field }: ExternSpec,
  addresses: ReadonlyMap<string, bigint>,
): ExternValue | undefined {
  if (kind === 'kconfig') return { kind: 'kconfig', off: field!.off }
  if (kind === 'ksym' && typeId === 0) {
    const address = addresses.get(name)
    return address === undefined ? undefined : { kind: 'address', address }
  }
  const found = findKernelType(essentialName(name), kind === 'kfunc' ? 'func' : 'var')
  return found && { kind: 'type', id: found.id, module: found.module }
}

function missing({ name, kind }: ExternSpec): NotFoundError {
  const what = kind === 'kfunc' ? 'function' : 'variable'
  return new NotFoundError(`This kernel has no ${what} "${name}" that programs may use`, {
    context: { extern: name },
    hint: 'Declare it __weak in the program and check for it, or run another kernel',
  })
}
