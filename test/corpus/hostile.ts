/**
 * What every reader of objects and programs promises for bytes of any kind: a result or an error that
 * says what is wrong with them, soon, in little memory.
 */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { getHeapStatistics } from 'node:v8'
import { compiled } from '../../scripts/compiled.ts'
import { disassemble } from '../../src/ebpf/asm/disasm.ts'
import { usdtArguments, usdtNotes } from '../../src/ebpf/attach/usdt-note.ts'
import { Btf } from '../../src/ebpf/btf/btf.ts'
import { printTypes } from '../../src/ebpf/btf/print.ts'
import { BTF_FEATURES, sanitizeBtf } from '../../src/ebpf/btf/sanitize.ts'
import { codecOf, readValue } from '../../src/ebpf/btf/typed-value.ts'
import { CoreResolver } from '../../src/ebpf/core/relo.ts'
import { embeddedObjects } from '../../src/ebpf/elf/embedded-objects.ts'
import { Executable } from '../../src/ebpf/elf/executable.ts'
import { matchingSymbols, symbolOffset } from '../../src/ebpf/elf/symbol.ts'
import { linkProgram } from '../../src/ebpf/load/linker.ts'
import { parseExtInfo } from '../../src/ebpf/object/ext-info.ts'
import { GlobalVariables } from '../../src/ebpf/object/global-variables.ts'
import { functionsOf, whyBroken } from '../../src/ebpf/object/reach.ts'
import { type ObjectSpec, parseObject } from '../../src/ebpf/object/spec.ts'
import { needTypes } from '../../src/ebpf/object/types-needed.ts'
import { linkObjects } from '../../src/ebpf/static-link/static-linker.ts'
import { objectBindings } from '../../src/ebpf/typed/bindings.ts'
import { ConflictError, FormatError, NotFoundError, NotSupportedError } from '../../src/errors.ts'
import { planRights } from '../../src/needs/plan.ts'
import { pointerArithmetic } from '../../src/needs/pointer-arithmetic.ts'
import { ROOT } from '../helpers/machine.ts'
import { corpusFile, corpusObjects } from './corpus.ts'
import { mutate, Random, type Seed, seedOf } from './mutate.ts'
import { SHAPES } from './shapes.ts'

/**
 * For one input, of the time that this process has on processors: what the machine does besides does
 * not count. What the collector and the compiler do does, so what takes longer is measured again.
 */
const LIMIT_MS = 2000
/** Growth of memory while one input is read: a base, and so much for each byte of it. */
const LIMIT_BYTES = 64 * 1024 * 1024
const LIMIT_FACTOR = 400
const SAMPLE = 500
const MAX_SEED_BYTES = 64 * 1024
const FIXTURE_SHARES = 10
/** How many of a kind each shape of test/corpus/shapes.ts has. */
const SHAPE_COUNT = 200
const MAX_VALUE_BYTES = 64 * 1024

/** What readers read, and inputs are counted by: those of which there was something to be read. */
export const PARTS = [
  ...[
    'object',
    'plan',
    'pointer arithmetic',
    'types needed',
    'BTF',
    'BTF as C',
    'BTF made simpler',
    'BTF.ext',
  ],
  ...['CO-RE', 'jump table', 'arena', 'typed bindings', 'typed values', 'disassembly'],
  ...['static linking alone', 'static linking of two', 'declarations of two'],
  ...['executable', 'embedded objects', 'USDT note', 'USDT arguments', 'symbols', 'symbols by pattern'],
] as const
export type Part = (typeof PARTS)[number]
export type Reached = (part: Part) => void

/**
 * What inputs are made of: of the corpus what is not too large, which would say the same, but
 * slowly.
 */
export function seedObjects(): { name: string; bytes: Buffer }[] {
  const files = corpusObjects().map(object => ({ name: object.name, path: corpusFile(object) }))
  const shapes = Object.entries(SHAPES).map(([name, make]) => ({
    name,
    bytes: Buffer.from(make(SHAPE_COUNT)),
  }))
  return [...files, ...fixtures(), ...executables()]
    .filter(({ path }) => statSync(path).size <= MAX_SEED_BYTES)
    .map(({ name, path }) => ({ name, bytes: readFileSync(path) }))
    .concat(shapes)
}

/** Sections that no object of the corpus has yet: arenas, jump tables, tags, old definitions. */
function fixtures(): { name: string; path: string }[] {
  const root = join(ROOT, 'test/fixtures')
  const names = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter(name => name.endsWith('.o'))
  const files = names.sort().map(name => ({ name, path: join(root, name) }))
  return shares(files)
}

/** There are hundreds of others: often enough to be changed in every way. */
function shares<T>(files: readonly T[]): T[] {
  return Array.from({ length: FIXTURE_SHARES }, () => files).flat()
}

/** With USDT probes; and with versions of symbols, where there is such a small library. */
function executables(): { name: string; path: string }[] {
  const probed = { name: 'probed', path: compiled(join(ROOT, 'test/kernel/ebpf/probed.c')) }
  const libraries = ['libdl.so.2', 'libutil.so.1']
    .map(name => ({ name, path: join('/lib/x86_64-linux-gnu', name) }))
    .filter(({ path }) => existsSync(path))
  return shares([probed, ...libraries]).flatMap(one => [one, one])
}

/** How an input broke the promise. */
export interface Finding {
  readonly case: number
  readonly seed: string
  readonly what: string
  readonly bytes: Buffer
}

/** Inputs by number: the same seed objects, seed and number give the same input. */
export class Inputs {
  readonly #seeds: readonly Seed[]
  readonly #seed: number

  constructor(objects: readonly { name: string; bytes: Buffer }[], seed: number) {
    this.#seeds = objects.map(({ name, bytes }) => seedOf(name, bytes))
    this.#seed = seed
  }

  get(number: number): { seed: Seed; bytes: Buffer } {
    const random = new Random(Math.imul(this.#seed, 0x9e3779b1) ^ Math.imul(number + 1, 0x85ebca6b))
    const seed = random.of(this.#seeds)
    return { seed, bytes: mutate(seed, random) }
  }
}

/** Reads one input with every reader. Undefined: all kept their promise. */
export function check(
  number: number,
  seed: Seed,
  bytes: Buffer,
  reached: Reached = () => undefined,
): Finding | undefined {
  const broken = attempt(seed, bytes, reached)
  if (broken === undefined) return undefined
  // A pause of the collector or of the compiler is no finding.
  const again = broken.again ? attempt(seed, bytes, () => undefined) : broken
  return again && { case: number, seed: seed.name, what: again.what, bytes }
}

function attempt(seed: Seed, bytes: Buffer, reached: Reached): { what: string; again: boolean } | undefined {
  const before = memory()
  const start = process.cpuUsage()
  try {
    readAll(seed, bytes, once(reached))
  } catch (error) {
    return { what: (error as Error).stack ?? String(error), again: false }
  }
  const { user, system } = process.cpuUsage(start)
  const elapsedMs = (user + system) / 1000
  const grown = memory() - before
  if (elapsedMs > LIMIT_MS) return { what: `took ${elapsedMs.toFixed(0)} ms of processors`, again: true }
  if (grown > LIMIT_BYTES + LIMIT_FACTOR * bytes.length)
    return { what: `took ${grown} bytes for ${bytes.length}`, again: true }
  return undefined
}

function once(reached: Reached): Reached {
  const told = new Set<Part>()
  return part => {
    if (told.has(part)) return
    told.add(part)
    reached(part)
  }
}

function memory(): number {
  const { used_heap_size, external_memory } = getHeapStatistics()
  return used_heap_size + external_memory
}

const REFUSALS = [FormatError, ConflictError, NotFoundError, NotSupportedError]

/** Undefined where the input was refused as it should be. */
function orRefused<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    if (REFUSALS.some(Refusal => error instanceof Refusal)) return undefined
    throw error
  }
}

/** The same, where it is documented that a type has no values. */
function orNoValue<T>(read: () => T): T | undefined {
  try {
    return orRefused(read)
  } catch (error) {
    if (error instanceof TypeError && / has no values$| is not supported$/.test(error.message))
      return undefined
    throw error
  }
}

function readAll(seed: Seed, bytes: Buffer, reached: Reached): void {
  if (seed.isExecutable) readExecutable(bytes, reached)
  else readObject(seed, bytes, reached)
}

function readObject(seed: Seed, bytes: Buffer, reached: Reached): void {
  const spec = orRefused(() => parseObject(bytes, { name: 'hostile' }))
  if (spec !== undefined) readSpec(seed, spec, reached)
  // By themselves too, since what is wrong elsewhere would keep an object from being read as far as
  // here.
  const part = (extent: Seed['btf']) =>
    extent === undefined ? undefined : bytes.subarray(extent.off, extent.off + extent.sizeBytes)
  const btfBytes = part(seed.btf)
  const btf = btfBytes && orRefused(() => Btf.parse(btfBytes))
  if (btf !== undefined) {
    decodeAll(btf, reached)
    if (orRefused(() => printTypes(btf)) !== undefined) reached('BTF as C')
    if (orRefused(() => sanitizeBtf(btfBytes!, new Set(BTF_FEATURES))) !== undefined)
      reached('BTF made simpler')
  }
  const extBytes = part(seed.ext)
  if (extBytes !== undefined && orRefused(() => parseExtInfo(extBytes)) !== undefined) reached('BTF.ext')
  linkAll(seed, bytes, reached)
}

const NETWORK = ['xdp', 'sched_cls', 'sched_act', 'cgroup_skb', 'sk_skb', 'flow_dissector']

function readSpec(seed: Seed, spec: ObjectSpec, reached: Reached): void {
  reached('object')
  if (orRefused(() => planRights([{ name: 'hostile', spec }], { loader: 'libbpf' })) !== undefined)
    reached('plan')
  if (orRefused(() => needTypes(spec, spec.programs)) !== undefined) reached('types needed')
  for (const program of spec.programs) {
    const { code } = spec.functions[program.function]!
    // Programs of any type, as a section's name may be changed.
    pointerArithmetic(code, program.rule?.type ?? '')
    pointerArithmetic(code, 'xdp')
    pointerArithmetic(code, 'sched_cls')
    if (NETWORK.includes(program.rule?.type ?? '')) reached('pointer arithmetic')
  }
  for (const { code, references } of spec.functions) {
    if (orRefused(() => disassemble(code)) !== undefined) reached('disassembly')
    for (const { kind } of references) {
      if (kind === 'jump_table') reached('jump table')
      if (kind === 'arena') reached('arena')
    }
  }
  if (spec.arena !== undefined && spec.arena.contents.length > spec.arena.sizeBytes)
    throw new Error('an arena holds more than it says')
  if (orRefused(() => objectBindings(spec)) !== undefined) reached('typed bindings')
  if (spec.btf !== undefined) {
    decodeAll(spec.btf.types, reached)
    valuesOf(spec, spec.btf.types, reached)
  }
  relocateAll(seed, spec, reached)
}

/** Of maps and global variables, all zeros. */
function valuesOf(spec: ObjectSpec, types: Btf, reached: Reached): void {
  const ids = spec.maps.flatMap(({ keyTypeId, valueTypeId }) => [keyTypeId, valueTypeId])
  if (spec.arena !== undefined) ids.push(spec.arena.typeId)
  for (const id of new Set(ids)) {
    if (id === 0) continue
    const kind = orRefused(() => types.kind(id))
    if (kind === 'datasec') {
      const all = orRefused(() => new GlobalVariables(types, id))
      const first = [...(all?.all.keys() ?? [])].slice(0, SAMPLE)
      for (const name of first) orNoRange(() => all!.get(new Uint8Array(MAX_VALUE_BYTES), name))
      continue
    }
    const codec = orNoValue(() => codecOf(types, id, 'text'))
    if (codec === undefined || codec.sizeBytes > MAX_VALUE_BYTES) continue
    orNoValue(() => readValue(types, id, new Uint8Array(codec.sizeBytes), 0, 'text'))
    reached('typed values')
  }
}

/** What lies outside its section is refused as such. */
function orNoRange(read: () => unknown): void {
  try {
    orNoValue(read)
  } catch (error) {
    if (!(error instanceof RangeError) || !error.message.includes('is not within')) throw error
  }
}

function decodeAll(types: Btf, reached: Reached): void {
  for (let id = 1; id <= types.count; id++) orRefused(() => types.type(id))
  const step = Math.max(1, Math.floor(types.count / SAMPLE))
  for (let id = 1; id <= types.count; id += step) {
    orRefused(() => types.resolve(id))
    orRefused(() => types.sizeof(id))
    const name = orRefused(() => types.name(id))
    if (id % 16 === 1 && name !== undefined) types.find(name)
  }
  reached('BTF')
}

/**
 * Against the object's own types, and against those that it had before the changes, in which most
 * is found.
 */
function relocateAll(seed: Seed, spec: ObjectSpec, reached: Reached): void {
  const local = spec.btf?.types
  if (local === undefined) return
  const targets = [local]
  if (seed.btf !== undefined && spec.littleEndian) {
    const { off, sizeBytes } = seed.btf
    targets.push(Btf.parse(seed.bytes.subarray(off, off + sizeBytes)))
  }
  for (const types of targets) {
    const resolver = new CoreResolver(local, { name: 'vmlinux', types })
    for (const program of spec.programs) {
      orRefused(() => functionsOf(spec, program))
      orRefused(() => whyBroken(spec, program))
      const linked = orRefused(() => linkProgram(spec.functions, program.function))
      // One by one, since the first that is refused would end the others.
      for (const { slot, relos } of linked?.coreRelos ?? [])
        for (const relo of relos)
          if (orRefused(() => resolver.apply(linked!.code, [relo], program.name, slot)) !== undefined)
            reached('CO-RE')
    }
  }
}

const LINKED = join(ROOT, 'test/fixtures/linked')

/** What an object is linked with: those that were made for each other, and else one of these. */
function partnerOf({ name }: Seed): Buffer {
  const other = name.endsWith('second.bpf.o') ? 'first.bpf.o' : 'second.bpf.o'
  return readFileSync(join(LINKED, other))
}

function linkAll(seed: Seed, bytes: Buffer, reached: Reached): void {
  const alone = orRefused(() => linkObjects([{ name: 'hostile', bytes }]))
  if (alone !== undefined) {
    reached('static linking alone')
    orRefused(() => parseObject(alone.bytes, { name: 'hostile' }))
  }
  const partner = { name: 'partner', bytes: partnerOf(seed) }
  for (const inputs of [
    [partner, { name: 'hostile', bytes }],
    [{ name: 'hostile', bytes }, partner],
  ]) {
    try {
      linkObjects(inputs)
      reached('static linking of two')
    } catch (error) {
      if (!REFUSALS.some(Refusal => error instanceof Refusal)) throw error
      if (error instanceof ConflictError && / is not what it is in /.test(error.message))
        reached('declarations of two')
    }
  }
}

function readExecutable(bytes: Buffer, reached: Reached): void {
  orRefused(() => embeddedObjects(bytes))
  reached('embedded objects')
  const file = orRefused(() => new Executable(bytes, 'hostile'))
  if (file === undefined) return
  if (orRefused(() => file.sections) !== undefined) reached('executable')
  for (const { args } of orRefused(() => usdtNotes(file)) ?? []) {
    reached('USDT note')
    if (orRefused(() => usdtArguments(file.machine, args)) !== undefined) reached('USDT arguments')
  }
  const all = orRefused(() => matchingSymbols(file, '*'))
  if (all !== undefined) reached('symbols by pattern')
  orRefused(() => matchingSymbols(file, '*[a-m]*_*x'))
  for (const { name } of (all ?? []).slice(0, 4))
    for (const version of ['', '@GLIBC_2.2.5'])
      if (orRefused(() => symbolOffset(file, `${name}${version}`)) !== undefined) reached('symbols')
}
