/**
 * The words for map, program, attach, link types and commands: the kernel's own mount-option words.
 *
 * A word is the enumerator in lower case without its prefix: `BPF_MAP_TYPE_RINGBUF` is `ringbuf`,
 * `BPF_CGROUP_INET_INGRESS` is `cgroup_inet_ingress`. Where two enumerators share a number the
 * first one is the word, as in /proc/mounts. What is newer than our headers, the running kernel is
 * asked for; and a number stands for itself.
 */
import { bpf_attach_type, bpf_cmd, bpf_link_type, bpf_map_type, bpf_prog_type } from '../uapi/bpf.ts'

type Words<T, Prefix extends string> = {
  [K in keyof T & string]: K extends `${Prefix}${infer W}` ? Lowercase<W> : never
}[keyof T & string]

export type MapType = Words<typeof bpf_map_type, 'BPF_MAP_TYPE_'>
export type ProgType = Words<typeof bpf_prog_type, 'BPF_PROG_TYPE_'>
export type AttachType = Words<typeof bpf_attach_type, 'BPF_'>
export type LinkType = Words<typeof bpf_link_type, 'BPF_LINK_TYPE_'>
export type Cmd = Words<typeof bpf_cmd, 'BPF_'>

/** Rights are bits of a u64, in a token's masks. */
const MAX_NUMBERS = 64

/** Numbers of an enum of a kernel by their names; undefined: it shows no such enum. */
export type KernelEnum = (enumName: string) => ReadonlyMap<string, number> | undefined

let kernelEnum: KernelEnum = () => undefined

/** Where words and numbers are looked up that our headers lack. Whoever reads the kernel says it. */
export function lookUpNamesBy(kernel: KernelEnum): void {
  kernelEnum = kernel
}

/** Words and numbers of one enum. */
class Table<W extends string> {
  readonly numbers = new Map<string, number>()
  readonly words = new Map<number, W>()

  constructor(enumerators: Iterable<readonly [name: string, value: number]>, prefix: string) {
    for (const [name, value] of enumerators) {
      // BPF_COMMON_ATTRS is among the commands, and none: a flag beside their number. And
      // __MAX_BPF_CMD is only how many there are.
      if (value < 0 || value >= MAX_NUMBERS || !name.startsWith(prefix)) continue
      const word = name.slice(prefix.length).toLowerCase() as W
      this.numbers.set(word, value)
      if (!this.words.has(value)) this.words.set(value, word)
    }
  }
}

/** One enum of the kernel, by word and by number. */
export class TypeNames<W extends string> {
  readonly #kind: string
  readonly #enumName: string
  readonly #prefix: string
  readonly #known: Table<W>
  /** Of the kernel that was asked last. */
  #newer: { readonly kernel: KernelEnum; readonly table: Table<W> } | undefined

  constructor(kind: string, enumerators: Readonly<Record<string, number>>, prefix: string, enumName: string) {
    this.#kind = kind
    this.#enumName = enumName
    this.#prefix = prefix
    this.#known = new Table(Object.entries(enumerators), prefix)
  }

  /** What the running kernel says: read when something is missing here. */
  #ofKernel(): Table<W> {
    if (this.#newer?.kernel !== kernelEnum)
      this.#newer = { kernel: kernelEnum, table: new Table(kernelEnum(this.#enumName) ?? [], this.#prefix) }
    return this.#newer.table
  }

  /**
   * `ringbuf` to 27; a number, in digits too, stays itself. TypeError for a word that neither we nor
   * the running kernel know.
   */
  number(type: W | number): number {
    if (typeof type === 'number') return type
    const known = this.#known.numbers.get(type)
    if (known !== undefined) return known
    const value = /^\d{1,10}$/.test(type) ? Number(type) : this.#ofKernel().numbers.get(type)
    if (value === undefined) throw new TypeError(`there is no ${this.#kind} "${type}"`)
    return value
  }

  /** 27 to `ringbuf`; a number that neither we nor the running kernel know, to its digits. */
  word(type: W | number): W {
    if (typeof type === 'string') return type
    return this.#known.words.get(type) ?? this.#ofKernel().words.get(type) ?? (String(type) as W)
  }

  /** Every word, without second names of one number, in the order of the numbers. */
  words(): W[] {
    return [...this.#known.words.values()]
  }
}

export const MAP_TYPES = new TypeNames<MapType>('map type', bpf_map_type, 'BPF_MAP_TYPE_', 'bpf_map_type')
export const PROG_TYPES = new TypeNames<ProgType>(
  'program type',
  bpf_prog_type,
  'BPF_PROG_TYPE_',
  'bpf_prog_type',
)
export const ATTACH_TYPES = new TypeNames<AttachType>(
  'attach type',
  bpf_attach_type,
  'BPF_',
  'bpf_attach_type',
)
export const LINK_TYPES = new TypeNames<LinkType>(
  'link type',
  bpf_link_type,
  'BPF_LINK_TYPE_',
  'bpf_link_type',
)
export const CMDS = new TypeNames<Cmd>('command', bpf_cmd, 'BPF_', 'bpf_cmd')
