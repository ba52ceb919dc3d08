/**
 * Makes hostile objects of good ones: changes where readers look (headers, sizes, types, records,
 * string offsets, access strings), and blind ones. Pure; the same seed and number give the same
 * bytes.
 */
import { type Elf, ET_REL, parseElf } from '../../src/ebpf/elf/elf.ts'
import { Executable } from '../../src/ebpf/elf/executable.ts'

/** Pseudo-random numbers (mulberry32), so that a failure comes again. */
export class Random {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  /** 32 bits. */
  word(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return (mixed ^ (mixed >>> 14)) >>> 0
  }

  below(limit: number): number {
    return this.word() % limit
  }

  of<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!
  }
}

interface Extent {
  readonly off: number
  readonly sizeBytes: number
}

/** A good object, and where its parts are. */
export interface Seed {
  readonly name: string
  readonly bytes: Buffer
  /** Not an object for BPF, but a program or library. */
  readonly isExecutable: boolean
  readonly sectionHeaders: Extent
  /** Sections with data, by what readers make of them. */
  readonly btf: Extent | undefined
  readonly ext: Extent | undefined
  readonly others: readonly Extent[]
  /** CO-RE relocations within `ext`. */
  readonly core: Extent | undefined
  /** Strings of the BTF that say a way into a type, such as `0:1:2`. */
  readonly accesses: readonly Extent[]
}

const BTF_HEADER_BYTES = 24
const EXT_HEADER_BYTES = 32
/** Record size, and head of the first section. */
const CORE_HEAD_BYTES = 12
const CORE_RECORD_BYTES = 16
const SECTION_HEADER_BYTES = 64
const SEGMENT_BYTES = 56
const FILE_HEADER_BYTES = 64
const WORDS = [0, 1, 2, 3, 4, 7, 8, 12, 16, 24, 0x7f, 0xff, 0xffff, 0x10000, 0xffffff, 0x7fffffff, 0x80000000]
const EDGES = [...WORDS, 0xfffffff8, 0xffffffff]
const ACCESS_CHARACTERS = '0123456789:'
const ACCESS_ODDITIES = '-+. xe\0\xff'

export function seedOf(name: string, bytes: Buffer): Seed {
  const type = bytes[5] === 1 ? bytes.readUInt16LE(16) : bytes.readUInt16BE(16)
  return type === ET_REL ? objectSeed(name, bytes) : executableSeed(name, bytes)
}

/** Only what is read of it: headers, symbols, versions, notes. */
const READ_OF_EXECUTABLES = /^\.(dynsym|dynstr|symtab|strtab|shstrtab|gnu\.version(_d)?|note\.stapsdt)$/

function executableSeed(name: string, bytes: Buffer): Seed {
  const file = new Executable(bytes, name)
  const read = file.sections.filter(one => READ_OF_EXECUTABLES.test(one.name))
  const headers = { off: Number(file.u64(40)), sizeBytes: file.sections.length * SECTION_HEADER_BYTES }
  const segments = { off: Number(file.u64(32)), sizeBytes: file.u16(56) * SEGMENT_BYTES }
  return {
    ...{ name, bytes, isExecutable: true, sectionHeaders: headers, btf: undefined, ext: undefined },
    ...{ core: undefined, accesses: [] },
    others: [segments, ...read.map(({ off, sizeBytes }) => ({ off, sizeBytes }))],
  }
}

function objectSeed(name: string, bytes: Buffer): Seed {
  const elf = parseElf(bytes)
  const extents = sectionExtents(bytes, elf)
  const named = (wanted: string) => extents.find(({ index }) => elf.sections[index]!.name === wanted)
  const btf = named('.BTF')
  const ext = named('.BTF.ext')
  return {
    name,
    bytes,
    isExecutable: false,
    sectionHeaders: { off: tableOff(bytes, elf), sizeBytes: elf.sections.length * SECTION_HEADER_BYTES },
    btf,
    ext,
    core: ext && coreIn(bytes, ext),
    others: extents.filter(({ index }) => index !== btf?.index && index !== ext?.index),
    accesses: btf === undefined ? [] : accessesIn(bytes, btf),
  }
}

function tableOff(bytes: Buffer, { littleEndian }: Elf): number {
  return Number(littleEndian ? bytes.readBigUInt64LE(40) : bytes.readBigUInt64BE(40))
}

function sectionExtents(bytes: Buffer, elf: Elf): (Extent & { index: number })[] {
  return elf.sections
    .filter(({ data }) => data.length > 0)
    .map(({ index, data }) => ({ index, off: data.byteOffset - bytes.byteOffset, sizeBytes: data.length }))
}

function coreIn(bytes: Buffer, { off, sizeBytes }: Extent): Extent | undefined {
  const header = bytes.readUInt32LE(off + 4)
  if (header < EXT_HEADER_BYTES || header > sizeBytes) return undefined // the other byte order, or an old header
  const [start, length] = [bytes.readUInt32LE(off + 24), bytes.readUInt32LE(off + 28)]
  return length > 0 && header + start + length <= sizeBytes
    ? { off: off + header + start, sizeBytes: length }
    : undefined
}

function accessesIn(bytes: Buffer, { off, sizeBytes }: Extent): Extent[] {
  const text = bytes.toString('latin1', off, off + sizeBytes)
  return [...text.matchAll(/(?<=\0)\d+(:\d+)*(?=\0)/g)].map(match => ({
    off: off + match.index,
    sizeBytes: match[0].length,
  }))
}

type Mutation = (bytes: Buffer, seed: Seed, random: Random) => Buffer

/**
 * A word of a part becomes an edge case, a neighbour of itself, another word of the part, or noise.
 */
function changeWord(bytes: Buffer, { off, sizeBytes }: Extent, random: Random): void {
  const words = Math.floor(sizeBytes / 4)
  if (words === 0) return
  const at = off + random.below(words) * 4
  const other = off + random.below(words) * 4
  if (Math.max(at, other) + 4 > bytes.length) return
  const old = bytes.readUInt32LE(at)
  const values = [
    () => random.of(EDGES),
    () => old + random.below(9) - 4,
    () => old ^ (1 << random.below(32)),
    () => bytes.readUInt32LE(other),
    () => random.below(256),
    () => random.word(),
  ]
  bytes.writeUInt32LE(random.of(values)() >>> 0, at)
}

function part(extent: Extent | undefined, headerBytes?: number): Extent | undefined {
  if (extent === undefined || headerBytes === undefined) return extent
  return { off: extent.off, sizeBytes: Math.min(headerBytes, extent.sizeBytes) }
}

const changeIn =
  (where: (seed: Seed, random: Random) => Extent | undefined): Mutation =>
  (bytes, seed, random) => {
    const extent = where(seed, random)
    if (extent !== undefined) changeWord(bytes, extent, random)
    return bytes
  }

const changeAccess: Mutation = (bytes, seed, random) => {
  if (seed.accesses.length === 0) return bytes
  const { off, sizeBytes } = random.of(seed.accesses)
  // Also over the end, into the zero byte and the string behind it.
  const at = off + random.below(sizeBytes + 1)
  const characters = random.below(4) === 0 ? ACCESS_ODDITIES : ACCESS_CHARACTERS
  if (at < bytes.length) bytes[at] = characters.charCodeAt(random.below(characters.length))
  return bytes
}

/** A CO-RE relocation of another kind, of another type, or with another one's access string. */
const changeCore: Mutation = (bytes, { core }, random) => {
  if (core === undefined || core.off + core.sizeBytes > bytes.length) return bytes
  const records = Math.floor((core.sizeBytes - CORE_HEAD_BYTES) / CORE_RECORD_BYTES)
  if (records < 1) return bytes
  // Exact in the first section, and off by its heads in others.
  const record = () => core.off + CORE_HEAD_BYTES + random.below(records) * CORE_RECORD_BYTES
  const at = record() + 4 * random.of([1, 2, 3])
  const [type, kinds] = [bytes.readUInt32LE(at), 14]
  const values = [random.below(kinds), bytes.readUInt32LE(record() + 8), type + random.below(5) - 2]
  bytes.writeUInt32LE(random.of(values) >>> 0, at)
  return bytes
}

const swapParts: Mutation = (bytes, { btf, ext, others }, random) => {
  const parts = [btf, ext, ...others].filter(one => one !== undefined && one.sizeBytes >= 16) as Extent[]
  if (parts.length === 0) return bytes
  const [from, to] = [random.of(parts), random.of(parts)]
  const length = 4 * (1 + random.below(Math.min(from.sizeBytes, to.sizeBytes, 128) / 4))
  const start = (extent: Extent) => extent.off + 4 * random.below(Math.floor(extent.sizeBytes / 4))
  const [source, target] = [start(from), start(to)]
  if (Math.max(source, target) + length <= bytes.length) bytes.copy(bytes, target, source, source + length)
  return bytes
}

const MUTATIONS: readonly Mutation[] = [
  (bytes, _, random) => bytes.fill(random.below(256), random.below(bytes.length)).subarray(0),
  (bytes, _, random) => bytes.subarray(0, random.below(bytes.length)),
  (bytes, _, random) => {
    if (bytes.length > 0) bytes[random.below(bytes.length)] = random.below(256)
    return bytes
  },
  changeIn(() => ({ off: 0, sizeBytes: FILE_HEADER_BYTES })),
  changeIn(seed => seed.sectionHeaders),
  changeIn((seed, random) => (seed.others.length === 0 ? undefined : random.of(seed.others))),
  changeIn((seed, random) => (seed.others.length === 0 ? undefined : random.of(seed.others))),
  changeIn(seed => part(seed.btf, BTF_HEADER_BYTES)),
  ...Array<Mutation>(5).fill(changeIn(seed => seed.btf)),
  changeIn(seed => part(seed.ext, EXT_HEADER_BYTES)),
  ...Array<Mutation>(4).fill(changeIn(seed => seed.ext)),
  ...Array<Mutation>(3).fill(changeAccess),
  ...Array<Mutation>(3).fill(changeCore),
  swapParts,
]

/** The object after one to eight changes. */
export function mutate(seed: Seed, random: Random): Buffer {
  let bytes: Buffer = Buffer.from(seed.bytes)
  // The first two destroy most of an object, so they are rare.
  const blind = random.below(16) === 0
  for (let count = 1 + random.below(1 + random.below(8)); count > 0; count--) {
    const mutation = blind ? random.of(MUTATIONS) : MUTATIONS[2 + random.below(MUTATIONS.length - 2)]!
    bytes = mutation(bytes, seed, random)
    if (bytes.length === 0) break
  }
  return bytes
}
