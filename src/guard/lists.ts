/** The lists of digests and attach targets that terms name by number. */
import { randomBytes } from 'node:crypto'
import type { BtfComposite } from '../ebpf/btf/btf.ts'
import { BtfObject } from '../ebpf/btf/object.ts'
import { kernelBtf } from '../ebpf/kernel/btf.ts'
import { btfIds } from '../ebpf/object-id.ts'
import { NotFoundError, NotSupportedError } from '../errors.ts'
import { nearest } from '../policy/nearest.ts'
import type { AllowList } from '../policy/policy.ts'
import {
  guard_delegation,
  guard_delegator,
  guard_digest,
  guard_function,
  guard_pending,
  guard_terms,
} from './layout.ts'
import type { GuardMaps } from './maps.ts'
import { encodeTerms, type GuardTerms, type RawTerms } from './terms.ts'

const TAG_BYTES = 8
const ON_THE_LIST = Uint8Array.of(1, 0, 0, 0)
/** What an attach target is in the kernel's types. */
const TARGET_KINDS = ['func', 'typedef', 'struct'] as const

/**
 * Writes terms with their lists: `write` puts the terms where the guard finds them. NotSupportedError, NotFoundError: this
 * kernel has no such digests or functions; then nothing was written.
 */
export function writeTerms(maps: GuardMaps, terms: GuardTerms, write: (raw: RawTerms) => void): void {
  const digests = terms.programs.digests === 'any' ? undefined : terms.programs.digests.map(digestBytes)
  const functions = terms.targets.functions === 'any' ? undefined : terms.targets.functions.map(functionType)
  sweepLists(maps)
  const lists = { digests: digests ? newNumber() : 0n, functions: functions ? newNumber() : 0n }
  // The terms first: a list that nothing names is swept. Until it is filled it refuses.
  write(encodeTerms(terms, lists))
  for (const bytes of digests ?? [])
    maps.map('digests').update(guard_digest.encode({ list: lists.digests, bytes }), ON_THE_LIST)
  if (functions === undefined) return
  const btf = kernelBtfId()
  for (const type of functions)
    maps.map('functions').update(guard_function.encode({ list: lists.functions, btf, type }), ON_THE_LIST)
}

/** What the numbers in `raw` stand for, in the words of a policy. */
export function readLists(maps: GuardMaps, raw: RawTerms): { digests: AllowList; functions: AllowList } {
  const { digests = 0n, functions = 0n } = raw
  return {
    digests:
      digests === 0n
        ? 'any'
        : [...maps.map('digests').keys()]
            .map(key => guard_digest.decode(key))
            .filter(({ list }) => list === digests)
            .map(({ bytes }) => digestText(bytes!))
            .sort(),
    functions:
      functions === 0n
        ? 'any'
        : [...maps.map('functions').keys()]
            .map(key => guard_function.decode(key))
            .filter(({ list }) => list === functions)
            .map(({ type }) => kernelBtf().types.type(type!)?.name ?? `type ${type}`)
            .sort(),
  }
}

/** Removes the lists that nothing names any more. */
export function sweepLists(maps: GuardMaps): void {
  const digests = [...maps.map('digests').keys()]
  const functions = [...maps.map('functions').keys()]
  if (digests.length + functions.length === 0) return
  // After the lists, and in the order in which terms are copied on: whatever is in use now is seen in one of these places.
  const named = new Set<bigint>()
  const name = (terms: RawTerms | undefined): void => {
    named.add(terms?.digests ?? 0n).add(terms?.functions ?? 0n)
  }
  for (const [, value] of maps.map('policies').entries()) name(guard_terms.decode(value))
  for (const delegators of ['processes', 'files', 'cgroups'])
    for (const [, value] of maps.map(delegators).entries()) name(guard_delegator.decode(value).ceiling)
  for (const [, value] of maps.map('pending').entries()) {
    const { terms, ceiling } = guard_pending.decode(value)
    name(terms)
    name(ceiling)
  }
  for (const [, value] of maps.map('delegations').readAll()) {
    const { id, terms } = guard_delegation.decode(value)
    // An element that is free keeps what was in it.
    if (id !== 0n) name(terms)
  }
  for (const key of digests) if (!named.has(guard_digest.decode(key).list!)) maps.map('digests').delete(key)
  for (const key of functions)
    if (!named.has(guard_function.decode(key).list!)) maps.map('functions').delete(key)
}

/** Drawn, so that two of us at once give different ones. */
function newNumber(): bigint {
  return randomBytes(8).readBigUInt64LE() || 1n
}

// ---- digests ----

function digestBytes(digest: string): Uint8Array {
  const [kind, hex] = digest.split(':') as [string, string]
  if (kind === 'sha256' && !kernelHasSha256())
    throw new NotSupportedError(`This kernel computes no SHA-256 of programs: ${digest}`, {
      context: { path: 'spec.programs.digests', digest },
      hint: 'Name the program by its tag, tag:..., or run Linux 6.18 or newer',
    })
  const bytes = new Uint8Array(guard_digest.fields.bytes.size)
  bytes.set(Buffer.from(hex, 'hex'))
  return bytes
}

function digestText(bytes: Uint8Array): string {
  const hex = Buffer.from(bytes).toString('hex')
  const isTag = bytes.subarray(TAG_BYTES).every(byte => byte === 0)
  return isTag ? `tag:${hex.slice(0, 2 * TAG_BYTES)}` : `sha256:${hex}`
}

/** Since Linux 6.18 struct bpf_prog has the digest, with the tag as its beginning, in a union without a name. */
function kernelHasSha256(): boolean {
  const { types } = kernelBtf()
  const has = (id: number): boolean => {
    const type = types.resolve(id) as BtfComposite | undefined
    return type?.members?.some(({ name, type: of }) => name === 'digest' || (name === '' && has(of))) ?? false
  }
  const [program] = types.find('bpf_prog', 'struct')
  return program !== undefined && has(program)
}

// ---- functions ----

/** Id in the kernel's own BTF. */
function functionType(name: string): number {
  const { types } = kernelBtf()
  for (const kind of TARGET_KINDS) {
    const [id] = types.find(name, kind)
    if (id !== undefined) return id
  }
  const similar = nearest(name, namesOf(TARGET_KINDS))
  throw new NotFoundError(`This kernel has no function, typedef or struct "${name}" to attach to`, {
    context: { path: 'spec.targets.functions', function: name },
    hint:
      similar === undefined
        ? "Name it as in the kernel's own BTF: bpftool btf dump file /sys/kernel/btf/vmlinux"
        : `Did you mean "${similar}"?`,
  })
}

function* namesOf(kinds: typeof TARGET_KINDS): Generator<string> {
  const { types } = kernelBtf()
  for (const kind of kinds) for (const id of types.ofKind(kind)) yield types.type(id)!.name
}

let vmlinuxId: number | undefined

/** The id of the kernel's own BTF: it is the same until the next boot. */
export function kernelBtfId(): number {
  vmlinuxId ??= findKernelBtf()
  return vmlinuxId
}

function findKernelBtf(): number {
  for (const id of btfIds()) if (isKernelBtf(id)) return id
  throw new NotSupportedError('This kernel has no types (BTF) of its own', {
    hint: 'Run a kernel built with CONFIG_DEBUG_INFO_BTF',
  })
}

function isKernelBtf(id: number): boolean {
  using btf = BtfObject.fromId(id, { token: null })
  const { kernel, name } = btf.info()
  return kernel && name === 'vmlinux'
}
