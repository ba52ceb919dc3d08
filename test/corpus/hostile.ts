/**
 * What every reader of objects promises for bytes of any kind: a result or a FormatError, soon, in
 * little memory.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { getHeapStatistics } from 'node:v8'
import { Btf } from '../../src/ebpf/btf/btf.ts'
import { printTypes } from '../../src/ebpf/btf/print.ts'
import { CoreResolver } from '../../src/ebpf/core/relo.ts'
import { linkProgram } from '../../src/ebpf/load/linker.ts'
import { parseExtInfo } from '../../src/ebpf/object/ext-info.ts'
import { whyBroken } from '../../src/ebpf/object/reach.ts'
import { type ObjectSpec, parseObject } from '../../src/ebpf/object/spec.ts'
import { needTypes } from '../../src/ebpf/object/types-needed.ts'
import { ConflictError, FormatError } from '../../src/errors.ts'
import { planRights } from '../../src/needs/plan.ts'
import { ROOT } from '../helpers/machine.ts'
import { corpusFile, corpusObjects } from './corpus.ts'
import { mutate, Random, type Seed, seedOf } from './mutate.ts'

/**
 * For one input. Machines that run tests are busy, so what takes longer is measured a second time.
 */
const LIMIT_MS = 2000
/** Growth of memory while one input is read: a base, and so much for each byte of it. */
const LIMIT_BYTES = 64 * 1024 * 1024
const LIMIT_FACTOR = 400
const SAMPLE = 500
const MAX_SEED_BYTES = 64 * 1024
const FIXTURE_SHARES = 10

/**
 * What inputs are made of: of the corpus what is not too large, which would say the same, but
 * slowly.
 */
export function seedObjects(): { name: string; bytes: Buffer }[] {
  const files = corpusObjects().map(object => ({ name: object.name, path: corpusFile(object) }))
  return [...files, ...fixtures()]
    .filter(({ path }) => statSync(path).size <= MAX_SEED_BYTES)
    .map(({ name, path }) => ({ name, bytes: readFileSync(path) }))
}

/** Sections that no object of the corpus has yet: arenas, jump tables, tags, old definitions. */
function fixtures(): { name: string; path: string }[] {
  const root = join(ROOT, 'test/fixtures')
  const names = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter(name => name.endsWith('.o'))
  const files = names.sort().map(name => ({ name, path: join(root, name) }))
  // There are hundreds of others: often enough to be changed in every way.
  return Array.from({ length: FIXTURE_SHARES }, () => files).flat()
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
export function check(number: number, seed: Seed, bytes: Buffer): Finding | undefined {
  const broken = attempt(seed, bytes)
  if (broken === undefined) return undefined
  // A pause of the collector or of the machine is no finding.
  const again = broken.again ? attempt(seed, bytes) : broken
  return again && { case: number, seed: seed.name, what: again.what, bytes }
}

function attempt(seed: Seed, bytes: Buffer): { what: string; again: boolean } | undefined {
  const before = memory()
  const start = performance.now()
  try {
    readAll(seed, bytes)
  } catch (error) {
    return { what: (error as Error).stack ?? String(error), again: false }
  }
  const elapsed = performance.now() - start
  const grown = memory() - before
  if (elapsed > LIMIT_MS) return { what: `took ${elapsed.toFixed(0)} ms`, again: true }
  if (grown > LIMIT_BYTES + LIMIT_FACTOR * bytes.length)
    return { what: `took ${grown} bytes for ${bytes.length}`, again: true }
  return undefined
}

function memory(): number {
  const { used_heap_size, external_memory } = getHeapStatistics()
  return used_heap_size + external_memory
}

/** Undefined where the input was refused as it should be. */
function orRefused<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    if (error instanceof FormatError || error instanceof ConflictError) return undefined
    throw error
  }
}

function readAll(seed: Seed, bytes: Buffer): void {
  const spec = orRefused(() => parseObject(bytes, { name: 'hostile' }))
  if (spec !== undefined) orRefused(() => planRights([{ name: 'hostile', spec }], { loader: 'libbpf' }))
  if (spec !== undefined) orRefused(() => needTypes(spec, spec.programs))
  if (spec?.btf !== undefined) decodeAll(spec.btf.types)
  // By themselves too, since what is wrong elsewhere would keep an object from being read as far as
  // here.
  const part = (extent: Seed['btf']) =>
    extent === undefined ? undefined : bytes.subarray(extent.off, extent.off + extent.sizeBytes)
  const btfBytes = part(seed.btf)
  const btf = btfBytes && orRefused(() => Btf.parse(btfBytes))
  if (btf !== undefined) {
    decodeAll(btf)
    orRefused(() => printTypes(btf))
  }
  const extBytes = part(seed.ext)
  if (extBytes !== undefined) orRefused(() => parseExtInfo(extBytes))
  if (spec !== undefined) relocateAll(seed, spec)
}

function decodeAll(types: Btf): void {
  for (let id = 1; id <= types.count; id++) orRefused(() => types.type(id))
  const step = Math.max(1, Math.floor(types.count / SAMPLE))
  for (let id = 1; id <= types.count; id += step) {
    orRefused(() => types.resolve(id))
    orRefused(() => types.sizeof(id))
    const name = orRefused(() => types.name(id))
    if (id % 16 === 1 && name !== undefined) types.find(name)
  }
}

/**
 * Against the object's own types, and against those that it had before the changes, in which most
 * is found.
 */
function relocateAll(seed: Seed, spec: ObjectSpec): void {
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
      whyBroken(spec, program)
      const linked = orRefused(() => linkProgram(spec.functions, program.function))
      // One by one, since the first that is refused would end the others.
      for (const { slot, relos } of linked?.coreRelos ?? [])
        for (const relo of relos) orRefused(() => resolver.apply(linked!.code, [relo], program.name, slot))
    }
  }
}
