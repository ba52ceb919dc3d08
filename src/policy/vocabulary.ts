/**
 * The words of delegation: four mask domains, and names to bits and back.
 *
 * Nothing here is a list of names. A `Vocabulary` is made from the enumerators of the running
 * kernel's BTF, so that words mean what this kernel means by them. The text forms (policy words,
 * mount options) are in mask-text.ts. Pure: the caller reads the BTF.
 */

/**
 * The four masks a bpffs instance carries, named as the kernel's mount options are
 * (`delegate_cmds`, ...).
 */
export const MASK_DOMAINS = ['cmds', 'maps', 'progs', 'attachs'] as const
export type MaskDomain = (typeof MASK_DOMAINS)[number]

/** One 64-bit mask per domain. */
export type Masks = Readonly<Record<MaskDomain, bigint>>

/**
 * All 64 bits: what the kernel's word `any` sets, which is more than the bits that have names
 * today.
 */
export const ANY_MASK = (1n << 64n) - 1n

/**
 * The four enums as BTF gives them: enumerators with their prefix, in the order of their
 * declaration.
 */
export interface KernelEnums {
  readonly bpf_cmd: Readonly<Record<string, number>>
  readonly bpf_map_type: Readonly<Record<string, number>>
  readonly bpf_prog_type: Readonly<Record<string, number>>
  readonly bpf_attach_type: Readonly<Record<string, number>>
}

/** The kernel's enum and enumerator prefix behind each domain. The prefix is not part of a word. */
export const DOMAIN_ENUMS = {
  cmds: { enumName: 'bpf_cmd', prefix: 'BPF_' },
  maps: { enumName: 'bpf_map_type', prefix: 'BPF_MAP_TYPE_' },
  progs: { enumName: 'bpf_prog_type', prefix: 'BPF_PROG_TYPE_' },
  attachs: { enumName: 'bpf_attach_type', prefix: 'BPF_' },
} as const satisfies Record<MaskDomain, { enumName: keyof KernelEnums; prefix: string }>

/** The words of one domain. */
export interface DomainVocabulary {
  /** Canonical name of each bit, in bit order: what the kernel prints. */
  readonly nameOfBit: ReadonlyMap<number, string>
  /** Bit of each accepted name, aliases included (`prog_run` is `prog_test_run`). */
  readonly bitOfName: ReadonlyMap<string, number>
  /**
   * Names that the kernel has but that do not fit a mask, with their value (`common_attrs`, 65536).
   */
  readonly unfit: ReadonlyMap<string, number>
  /** All bits that have a name. */
  readonly known: bigint
}

export type Vocabulary = Readonly<Record<MaskDomain, DomainVocabulary>>

/** The vocabulary of the kernel that these enumerators come from. */
export function vocabularyFrom(enums: KernelEnums): Vocabulary {
  const domain = (name: MaskDomain) => {
    const { enumName, prefix } = DOMAIN_ENUMS[name]
    return domainFrom(enums[enumName], prefix)
  }
  return { cmds: domain('cmds'), maps: domain('maps'), progs: domain('progs'), attachs: domain('attachs') }
}

function domainFrom(enumerators: Readonly<Record<string, number>>, prefix: string): DomainVocabulary {
  const bitOfName = new Map<string, number>()
  const unfit = new Map<string, number>()
  const canonical = new Map<number, string>()
  let known = 0n
  for (const [enumerator, value] of Object.entries(enumerators)) {
    // `__MAX_BPF_CMD` and friends carry no prefix; `MAX_BPF_...` are defines that some BTF dumps
    // add.
    if (!enumerator.startsWith(prefix)) continue
    const name = enumerator.slice(prefix.length).toLowerCase()
    if (value < 0 || value >= 64) {
      // BPF_COMMON_ATTRS (65536, since 7.2) is a flag, not a command. The kernel shifts by it all
      // the same and so sets bit 0, map_create: never let such a name through.
      unfit.set(name, value)
      continue
    }
    bitOfName.set(name, value)
    if (!canonical.has(value)) canonical.set(value, name)
    known |= 1n << BigInt(value)
  }
  const nameOfBit = new Map([...canonical].sort(([a], [b]) => a - b))
  return { nameOfBit, bitOfName, unfit, known }
}

/** The bits that are set in `mask`, lowest first. */
export function bitsOf(mask: bigint): number[] {
  const bits: number[] = []
  for (let bit = 0; bit < 64; bit++) if (hasBit(mask, bit)) bits.push(bit)
  return bits
}

export function hasBit(mask: bigint, bit: number): boolean {
  return ((mask >> BigInt(bit)) & 1n) === 1n
}

/** Whether `mask` lends the bit called `name`. False when this kernel has no such name. */
export function hasWord(vocabulary: Vocabulary, domain: MaskDomain, mask: bigint, name: string): boolean {
  const bit = vocabulary[domain].bitOfName.get(name)
  return bit !== undefined && hasBit(mask, bit)
}
