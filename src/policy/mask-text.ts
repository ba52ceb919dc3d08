/**
 * Masks as text: the words of a policy, and the values of the kernel's `delegate_*` mount options.
 *
 * The two grammars differ on purpose. A policy is strict (lower case, no prefix, every item adds).
 * The kernel's is what it is (bpf_parse_param in kernel/bpf/inode.c): names in any case, and a
 * number that
 * *replaces* what the items before it gave. We write numeric masks to the kernel, so its quirks matter
 * only for reading what others wrote and for showing what somebody could type.
 */
import { nearest } from './nearest.ts'
import {
  ANY_MASK,
  bitsOf,
  DOMAIN_ENUMS,
  MASK_DOMAINS,
  type MaskDomain,
  type Masks,
  type Vocabulary,
} from './vocabulary.ts'

/** One word that is not valid. `index` is its place in the list. */
export interface WordIssue {
  readonly index: number
  readonly message: string
  readonly suggestion?: string
}

export type MaskResult =
  | { readonly ok: true; readonly mask: bigint }
  | { readonly ok: false; readonly issues: readonly WordIssue[] }

/**
 * The mask that a policy's words stand for.
 *
 * A word is a name of this kernel, `any`, or a number (`0x3`, `3`) that is itself a mask. All items
 * are ORed. `any` is the kernel's: all 64 bits, so also what later kernels will add.
 */
export function maskOf(
  vocabulary: Vocabulary,
  domain: MaskDomain,
  words: readonly (string | number)[],
): MaskResult {
  let mask = 0n
  const issues: WordIssue[] = []
  for (const [index, word] of words.entries()) {
    const item = maskOfWord(vocabulary, domain, String(word))
    if (typeof item === 'bigint') mask |= item
    else issues.push({ index, ...item })
  }
  return issues.length === 0 ? { ok: true, mask } : { ok: false, issues }
}

function maskOfWord(
  vocabulary: Vocabulary,
  domain: MaskDomain,
  word: string,
): bigint | Omit<WordIssue, 'index'> {
  if (word === 'any') return ANY_MASK
  const bit = vocabulary[domain].bitOfName.get(word)
  if (bit !== undefined) return 1n << BigInt(bit)
  if (/^(0x[0-9a-f]+|[0-9]+)$/i.test(word)) {
    const mask = word.length <= 20 ? BigInt(word) : ANY_MASK + 1n
    return mask <= ANY_MASK ? mask : { message: `${shown(word)} does not fit 64 bits` }
  }
  const unfit = vocabulary[domain].unfit.get(word)
  if (unfit !== undefined) {
    return { message: `"${word}" is ${unfit} in this kernel, which is not a bit of a mask` }
  }
  const suggestion = suggestWord(vocabulary, domain, word)
  return {
    message: `this kernel has no ${SINGULAR[domain]} ${shown(word)}`,
    ...(suggestion === undefined ? {} : { suggestion }),
  }
}

const SINGULAR = {
  cmds: 'command',
  maps: 'map type',
  progs: 'program type',
  attachs: 'attach type',
} as const satisfies Record<MaskDomain, string>

function shown(word: string): string {
  return JSON.stringify(word.length <= 64 ? word : `${word.slice(0, 61)}...`)
}

/** What was meant: the same word in lower case or without the C prefix, else the nearest name. */
function suggestWord(vocabulary: Vocabulary, domain: MaskDomain, word: string): string | undefined {
  const { bitOfName } = vocabulary[domain]
  const lower = word.trim().toLowerCase()
  const prefixes = [DOMAIN_ENUMS[domain].prefix, ...MASK_DOMAINS.map(other => DOMAIN_ENUMS[other].prefix), '']
  for (const prefix of prefixes) {
    const bare = lower.startsWith(prefix.toLowerCase()) ? lower.slice(prefix.length) : lower
    if (bare === 'any' || bitOfName.has(bare)) return bare
  }
  return nearest(lower, ['any', ...bitOfName.keys()])
}

/**
 * The canonical names of the bits in `mask`, lowest bit first, and the bits that have no name in
 * this kernel as one hex number. All 64 bits are the one word `any`.
 */
export function wordsOf(
  vocabulary: Vocabulary,
  domain: MaskDomain,
  mask: bigint,
): { words: string[]; leftover: string | undefined } {
  if (mask === ANY_MASK) return { words: ['any'], leftover: undefined }
  const { nameOfBit, known } = vocabulary[domain]
  const words = bitsOf(mask & known).map(bit => nameOfBit.get(bit)!)
  const leftover = mask & ~known
  return { words, leftover: leftover === 0n ? undefined : hexMask(leftover) }
}

/**
 * Names of `mask` with a leftover, if any, as the last item: the form for people. `any` for all 64
 * bits.
 */
export function describeMask(vocabulary: Vocabulary, domain: MaskDomain, mask: bigint): string[] {
  const { words, leftover } = wordsOf(vocabulary, domain, mask)
  return leftover === undefined ? words : [...words, leftover]
}

/**
 * `0x...`: the form that is written to the kernel. Immune to names, to the 255 characters of
 * fsconfig(2) and to quirks.
 */
export function hexMask(mask: bigint): string {
  return `0x${mask.toString(16)}`
}

/** The same of all four. */
export function hexMasks({ cmds, maps, progs, attachs }: Masks): Readonly<Record<MaskDomain, string>> {
  return { cmds: hexMask(cmds), maps: hexMask(maps), progs: hexMask(progs), attachs: hexMask(attachs) }
}

/**
 * The value of a `delegate_*` option in words, as a person could give it to mount(8). Bits without
 * a name come first: a number replaces what stands before it. An empty mask is `0x0`, since the
 * kernel refuses an empty value. May be longer than the 255 characters that fsconfig(2) takes at
 * once.
 */
export function mountOption(vocabulary: Vocabulary, domain: MaskDomain, mask: bigint): string {
  if (mask === 0n) return hexMask(mask)
  const { words, leftover } = wordsOf(vocabulary, domain, mask)
  return (leftover === undefined ? words : [leftover, ...words]).join(':')
}

export type MountValueResult =
  | { readonly ok: true; readonly mask: bigint }
  | { readonly ok: false; readonly errno: 'EINVAL' | 'ERANGE'; readonly message: string }

/**
 * The mask that the kernel takes from the value of a `delegate_*` option; for reading /proc/mounts.
 * Refuses what the kernel refuses, with its errno.
 *
 * In /proc/mounts `any` is printed for all *named* bits; as input it sets all 64. Both read as all
 * 64.
 */
export function parseMountValue(vocabulary: Vocabulary, domain: MaskDomain, text: string): MountValueResult {
  const { bitOfName, unfit } = vocabulary[domain]
  let mask = 0n
  for (const item of text.split(':')) {
    const name = item.toLowerCase()
    const bit = bitOfName.get(name)
    // An enumerator past 63 shifts modulo 64 on x86-64 and arm64: `common_attrs` lends map_create.
    const shift = bit ?? (unfit.has(name) ? unfit.get(name)! & 63 : undefined)
    if (item === 'any') mask = ANY_MASK
    else if (shift !== undefined) mask |= 1n << BigInt(shift)
    else {
      const number = kernelNumber(item)
      if (number === undefined) return { ok: false, errno: 'EINVAL', message: `unknown item ${shown(item)}` }
      if (number > ANY_MASK) return { ok: false, errno: 'ERANGE', message: `${shown(item)} exceeds 64 bits` }
      mask = number
    }
  }
  return { ok: true, mask }
}

/**
 * kstrtou64 with base 0: hex with 0x, octal with a leading 0, else decimal; one leading plus is
 * allowed.
 */
function kernelNumber(item: string): bigint | undefined {
  const digits = item.startsWith('+') ? item.slice(1) : item
  if (digits.length > 4096) return undefined
  if (/^0x[0-9a-f]+$/i.test(digits)) return BigInt(digits)
  if (/^0[0-7]+$/.test(digits)) return BigInt(`0o${digits.slice(1)}`)
  if (/^(0|[1-9][0-9]*)$/.test(digits)) return BigInt(digits)
  return undefined
}
