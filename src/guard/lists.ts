/** The lists of digests and attach targets that terms name by number. */
import { createHash } from 'node:crypto'
import type { BtfComposite } from '../ebpf/btf/btf.ts'
import { kernelBtf, kernelBtfId } from '../ebpf/kernel/btf.ts'
import { NotFoundError, NotSupportedError } from '../errors.ts'
import { nearest } from '../policy/nearest.ts'
import type { AllowList } from '../policy/policy.ts'
import { GUARD_DIGEST_BYTES } from './layout.ts'
import type { GuardMaps } from './maps.ts'
import type { Table } from './table.ts'
import { encodeTerms, type GuardTerms, type RawTerms } from './terms.ts'

const TAG_BYTES = 8
const ON_THE_LIST = 1
/** What an attach target is in the kernel's types. */
const TARGET_KINDS = ['func', 'typedef', 'struct'] as const

/**
 * Writes terms with their lists: `write` puts the terms where the guard finds them.
 * NotSupportedError, NotFoundError: this kernel has no such digests or functions; then nothing was
 * written.
 */
export function writeTerms(maps: GuardMaps, terms: GuardTerms, write: (raw: RawTerms) => void): void {
  const digests = terms.programs.digests === 'any' ? undefined : terms.programs.digests.map(digestBytes)
  const functions = terms.targets.functions === 'any' ? undefined : terms.targets.functions.map(functionType)
  sweepLists(maps)
  const btf = functions === undefined ? 0 : kernelBtfId()
  const lists = {
    digests: digests === undefined ? 0n : listNumber(digests),
    functions: functions === undefined ? 0n : listNumber(functions.map(type => functionBytes(btf, type))),
  }
  // The terms come first, because a list that no terms name is swept. A list refuses everything
  // until it is filled.
  write(encodeTerms(terms, lists))
  for (const bytes of digests ?? []) maps.tables.digests.set({ list: lists.digests, bytes }, ON_THE_LIST)
  for (const type of functions ?? [])
    maps.tables.functions.set({ list: lists.functions, btf, type }, ON_THE_LIST)
}

/** What the numbers in `raw` stand for, in the words of a policy. */
export function readLists(maps: GuardMaps, raw: RawTerms): { digests: AllowList; functions: AllowList } {
  return {
    digests:
      raw.digests === 0n
        ? 'any'
        : membersOf(maps.tables.digests, raw.digests)
            .map(one => digestText(one.bytes))
            .sort(),
    functions:
      raw.functions === 0n
        ? 'any'
        : membersOf(maps.tables.functions, raw.functions)
            .map(one => kernelBtf().types.type(one.type)?.name ?? `type ${one.type}`)
            .sort(),
  }
}

/** Both kinds of list are tables whose keys have the list's number. */
function membersOf<Member extends { readonly list: bigint }>(
  lists: Table<Member, number>,
  list: bigint,
): Member[] {
  return [...lists.keys()].filter(member => member.list === list)
}

/** Removes the lists that nothing names any more. */
export function sweepLists(maps: GuardMaps): void {
  const { cgroups, delegations, digests, files, functions, pending, policies, processes } = maps.tables
  const listed = { digests: [...digests.keys()], functions: [...functions.keys()] }
  if (listed.digests.length + listed.functions.length === 0) return
  // After the lists, and in the order in which terms are copied on: whatever is in use now is seen
  // in one of these places.
  const named = new Set<bigint>()
  const name = (terms: RawTerms): void => {
    named.add(terms.digests).add(terms.functions)
  }
  const look = (): void => {
    for (const terms of policies.values()) name(terms)
    for (const delegators of [processes, files, cgroups])
      for (const { ceiling } of delegators.values()) name(ceiling)
    for (const { terms, ceiling } of pending.values()) {
      name(terms)
      name(ceiling)
    }
    // Free places are skipped: they still have their old contents.
    for (const { terms } of delegations.all()) name(terms)
  }
  look()
  const gone = {
    digests: listed.digests.filter(({ list }) => !named.has(list)),
    functions: listed.functions.filter(({ list }) => !named.has(list)),
  }
  for (const member of gone.digests) digests.delete(member)
  for (const member of gone.functions) functions.delete(member)
  // Another process may have named the same list in the meantime. Whoever names one fills it
  // afterwards: then either it finds ours deleted, or we find it named.
  look()
  for (const member of gone.digests) if (named.has(member.list)) digests.set(member, ON_THE_LIST)
  for (const member of gone.functions) if (named.has(member.list)) functions.set(member, ON_THE_LIST)
}

/**
 * The same members have the same number, in whatever order, because the programs compare lists by
 * their numbers: a policy must be able to stand beside itself, as ceiling and as ability. The number
 * is the beginning of a SHA-256.
 */
function listNumber(members: readonly Uint8Array[]): bigint {
  const hash = createHash('sha256')
  for (const member of new Set(members.map(bytes => Buffer.from(bytes).toString('hex')).sort()))
    hash.update(`${member}\n`)
  return hash.digest().readBigUInt64LE() || 1n
}

// ---- digests ----

function digestBytes(digest: string): Uint8Array {
  const [kind, hex] = digest.split(':') as [string, string]
  if (kind === 'sha256' && !kernelHasSha256())
    throw new NotSupportedError(`This kernel computes no SHA-256 of programs: ${digest}`, {
      context: { path: 'spec.programs.digests', digest },
      hint: 'Name the program by its tag, tag:..., or run Linux 6.18 or newer',
    })
  const bytes = new Uint8Array(GUARD_DIGEST_BYTES)
  bytes.set(Buffer.from(hex, 'hex'))
  return bytes
}

function digestText(bytes: Uint8Array): string {
  const hex = Buffer.from(bytes).toString('hex')
  const isTag = bytes.subarray(TAG_BYTES).every(byte => byte === 0)
  return isTag ? `tag:${hex.slice(0, 2 * TAG_BYTES)}` : `sha256:${hex}`
}

/**
 * Since Linux 6.18 struct bpf_prog has the digest, with the tag as its beginning, in a union
 * without a name.
 */
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

/** A type of a BTF object, both by their ids. */
function functionBytes(btf: number, type: number): Uint8Array {
  const bytes = Buffer.alloc(8)
  bytes.writeUInt32LE(btf, 0)
  bytes.writeUInt32LE(type, 4)
  return bytes
}

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
