/**
 * The words for map, program, attach, link types and commands: the kernel's own mount-option words.
 *
 * A word is the enumerator in lower case without its prefix: `BPF_MAP_TYPE_RINGBUF` is `ringbuf`,
 * `BPF_CGROUP_INET_INGRESS` is `cgroup_inet_ingress`. Where two enumerators share a number the
 * first one is the word, as in /proc/mounts. A number stands for itself, so types newer than our
 * headers work too.
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

/** One enum of the kernel, by word and by number. */
export class TypeNames<W extends string> {
  readonly #kind: string
  readonly #numbers = new Map<string, number>()
  readonly #words = new Map<number, W>()

  constructor(kind: string, enumerators: Readonly<Record<string, number>>, prefix: string) {
    this.#kind = kind
    for (const [name, value] of Object.entries(enumerators)) {
      // BPF_COMMON_ATTRS is among the commands, and none: a flag beside their number.
      if (value >= MAX_NUMBERS) continue
      const word = name.slice(prefix.length).toLowerCase() as W
      this.#numbers.set(word, value)
      if (!this.#words.has(value)) this.#words.set(value, word)
    }
  }

  /** `ringbuf` to 27; a number, in digits too, stays itself. TypeError for a word we do not know. */
  number(type: W | number): number {
    if (typeof type === 'number') return type
    const value = this.#numbers.get(type) ?? (/^\d{1,10}$/.test(type) ? Number(type) : undefined)
    if (value === undefined) throw new TypeError(`there is no ${this.#kind} "${type}"`)
    return value
  }

  /** 27 to `ringbuf`; a number we do not know, from a newer kernel, to its digits. */
  word(type: W | number): W {
    return typeof type === 'string' ? type : (this.#words.get(type) ?? (String(type) as W))
  }

  /** Every word, without second names of one number, in the order of the numbers. */
  words(): W[] {
    return [...this.#words.values()]
  }
}

export const MAP_TYPES = new TypeNames<MapType>('map type', bpf_map_type, 'BPF_MAP_TYPE_')
export const PROG_TYPES = new TypeNames<ProgType>('program type', bpf_prog_type, 'BPF_PROG_TYPE_')
export const ATTACH_TYPES = new TypeNames<AttachType>('attach type', bpf_attach_type, 'BPF_')
export const LINK_TYPES = new TypeNames<LinkType>('link type', bpf_link_type, 'BPF_LINK_TYPE_')
export const CMDS = new TypeNames<Cmd>('command', bpf_cmd, 'BPF_')
