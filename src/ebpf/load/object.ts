/**
 * Loading an object: `loadObject(parseObject(bytes))`. Stage three of three: from a spec to maps
 * and programs.
 *
 * Everything that depends on the running kernel is here and in what this file calls: where CO-RE
 * finds a field, which number a kernel function has, what the verifier says. With a token it works
 * for the unprivileged; then it asks for exactly the rights that src/needs/object.ts names: types
 * wherever the object has them, every map, every program.
 */
import { NotFoundError, NotSupportedError, type SyscallError, VerifierError } from '../../errors.ts'
import type { BtfObject } from '../btf/object.ts'
import { type CoreOutcome, CoreResolver, explainPoison } from '../core/relo.ts'
import { lookAtModulesAgain } from '../kernel/btf.ts'
import { Features } from '../kernel/features.ts'
import { encodeKconfig, readKconfig } from '../kernel/kconfig.ts'
import { KernelTypes } from '../kernel/kernel-types.ts'
import type { BpfMap } from '../map.ts'
import type { ObjectMap, ObjectProgram, ObjectSpec } from '../object/spec.ts'
import { needTypes } from '../object/types-needed.ts'
import { Owned } from '../owned.ts'
import { Program, type ProgramSpec } from '../prog.ts'
import { chooseToken, type Token, type TokenChoice } from '../token.ts'
import { Arena } from './arena.ts'
import { type ExternValue, externValues } from './extern-values.ts'
import { type Initial, initialData } from './initial-data.ts'
import { makeJumpTable } from './jump-table.ts'
import { type LinkedProgram, linkProgram } from './linker.ts'
import { LoadedObject } from './loaded-object.ts'
import { type MapChoice, makeMaps } from './maps.ts'
import { ModuleTypes } from './module-types.ts'
import { loadTypes, refusedTypes, typesWarning } from './object-types.ts'
import { type ProgramChoice, programKind } from './program-kind.ts'
import { explainMissing, fillIn } from './references.ts'
import { StructOpsMaps } from './struct-ops-maps.ts'

export { LoadedObject, type ProgramChoice }

export interface LoadOptions {
  /** Undefined: the token that `defaultToken` finds; null: none. */
  readonly token?: TokenChoice
  /** Only these programs are loaded, whatever their sections say. */
  readonly only?: readonly string[]
  readonly programs?: Readonly<Record<string, ProgramChoice>>
  readonly maps?: Readonly<Record<string, MapChoice>>
  /**
   * Values of `const volatile` variables, by their names: what `readValue` gives for their types,
   * enums also by name. The verifier takes them for the numbers that they are.
   */
  readonly constants?: Initial
  /** The same for other global variables: what they hold from the start. */
  readonly variables?: Initial
  /** A directory in a bpffs for maps that are shared by a pin; /sys/fs/bpf by default. */
  readonly pinRoot?: string
  /** Configuration values, instead of those of the running kernel. */
  readonly kconfig?: ReadonlyMap<string, string>
  /**
   * Types that CO-RE resolves against, instead of the running kernel's: for kernels that show none
   * of their own. What programs attach to, call and register stays the running kernel's.
   */
  readonly kernelTypes?: KernelTypes
  /** As `ProgramSpec.logLevel`. */
  readonly logLevel?: number
}

/**
 * Makes the maps and loads the programs of an object. Needs what BPF_BTF_LOAD, BPF_MAP_CREATE and
 * BPF_PROG_LOAD need; EPERM names the missing right or capability as hint. VerifierError: a program
 * was refused; a field that this kernel does not have is named. NotFoundError: this kernel has no
 * such hook, function or configuration value. ConflictError: it has one of another type. Types that
 * the kernel refuses, or that no right was lent for, are left out with a warning, where nothing
 * needs them. On failure nothing is left, but pins of maps that were made before.
 */
export async function loadObject(spec: ObjectSpec, options: LoadOptions = {}): Promise<LoadedObject> {
  if (!spec.littleEndian)
    throw new NotSupportedError('A big-endian object cannot be loaded on this machine', {
      hint: 'Compile it for bpfel',
      reason: 'big-endian',
    })
  using owned = new Owned()
  using transient = new Owned()
  // Awaited here, or what is owned would be disposed of while it is being made.
  return await new Loader(spec, options, owned, transient).load()
}

class Loader {
  readonly #spec: ObjectSpec
  readonly #options: LoadOptions
  /** What the caller gets. */
  readonly #owned: Owned
  /** What is needed only while loading. */
  readonly #transient: Owned
  readonly #token: Token | null
  readonly #modules: ModuleTypes
  readonly #programs: readonly ObjectProgram[]
  readonly #warnings: string[] = []
  #btf: BtfObject | undefined
  /** Why the kernel does not have the object's types. */
  #typesRefused: SyscallError | undefined
  #resolver: CoreResolver | undefined
  #externs: ReadonlyMap<string, ExternValue> = new Map()
  #structOps: StructOpsMaps | undefined
  #maps: ReadonlyMap<string, BpfMap> = new Map()
  #arena: Arena | undefined
  #arenaOff = 0
  readonly #initial: ReadonlyMap<string, Uint8Array>

  constructor(spec: ObjectSpec, options: LoadOptions, owned: Owned, transient: Owned) {
    this.#spec = spec
    // No name of a map or program is a property of all objects.
    const { maps = {}, programs = {} } = options
    this.#options = { ...options, maps: own(maps), programs: own(programs) }
    this.#owned = owned
    this.#transient = transient
    this.#token = chooseToken(options.token) ?? null
    this.#modules = transient.add(new ModuleTypes(this.#token))
    lookAtModulesAgain()
    this.#programs = chosenPrograms(spec, options)
    this.#initial = initialData(spec, options, own(maps))
  }

  async load(): Promise<LoadedObject> {
    const linked = this.#programs.map(program => ({
      program,
      code: linkProgram(this.#spec.functions, program.function),
    }))
    this.#btf = await this.#loadTypes()
    try {
      return await this.#loadAll(linked)
    } catch (error) {
      throw this.#withRefusedTypes(error)
    }
  }

  async #loadAll(linked: readonly { program: ObjectProgram; code: LinkedProgram }[]): Promise<LoadedObject> {
    const spec = this.#spec
    const loaded = new Set(this.#programs.map(({ name }) => name))
    this.#structOps = new StructOpsMaps(spec, map => this.#isMade(map), loaded)
    this.#externs = this.#findExterns(linked.map(({ code }) => code))
    await this.#makeMaps()
    const programs = new Map<string, Program>()
    for (const { program, code } of linked)
      programs.set(program.name, this.#owned.add(await this.#loadProgram(program, code)))
    this.#fillProgramArrays(programs)
    const structOps = this.#structOps.contents(programs)
    const made = { maps: this.#maps, programs, structOps, arena: this.#arena, warnings: this.#warnings }
    return new LoadedObject({ spec, ...made }, this.#owned)
  }

  /** The object's types in the kernel; undefined: they are not there. */
  async #loadTypes(): Promise<BtfObject | undefined> {
    const { btf, maps } = this.#spec
    const { object, refused } = await loadTypes(btf?.bytes, this.#token)
    if (object !== undefined) return this.#transient.add(object)
    if (refused === undefined) return undefined
    if (maps.some(map => map.structOps !== undefined && this.#isMade(map))) throw refused
    this.#warnings.push(typesWarning(refused))
    this.#typesRefused = refused
    return undefined
  }

  /** A failure that may come of types that were refused before is told as their refusal. */
  #withRefusedTypes(error: unknown): unknown {
    const refused = this.#typesRefused
    const needed = refused && needTypes(this.#spec, this.#programs, map => this.#isMade(map))[0]
    return refused === undefined || needed === undefined ? error : refusedTypes(refused, needed, error)
  }

  /** Whether the map will be made here. */
  #isMade({ name, autocreate }: ObjectMap): boolean {
    const { create, use } = this.#options.maps?.[name] ?? {}
    return use === undefined && (create ?? autocreate)
  }

  /** Only those that the programs use, and those of `.kconfig`, which is one map. */
  #findExterns(linked: readonly LinkedProgram[]): ReadonlyMap<string, ExternValue> {
    const used = new Set(
      linked.flatMap(({ references }) =>
        references.flatMap(one => (one.kind === 'extern' ? [one.extern] : [])),
      ),
    )
    const wanted = this.#spec.externs.filter(({ name, kind }) => kind === 'kconfig' || used.has(name))
    // Externs are declared in BTF, or they would not be there.
    return wanted.length === 0 ? new Map() : externValues(wanted, this.#spec.btf!.types)
  }

  async #makeMaps(): Promise<void> {
    const structOpsBtf = new Map(
      [...this.#structOps!.values].flatMap(([name, { module }]) =>
        module === undefined ? [] : [[name, this.#module(module)] as const],
      ),
    )
    const { maps, reused } = makeMaps(
      {
        spec: this.#spec,
        choices: this.#options.maps ?? {},
        btf: this.#btf,
        token: this.#token,
        pinRoot: this.#options.pinRoot,
        kconfig: this.#kconfig(),
        initial: this.#initial,
        structOps: this.#structOps!.values,
        structOpsBtf,
        warn: warning => this.#warnings.push(warning),
      },
      this.#owned,
    )
    this.#maps = maps
    const arena = this.#spec.arena
    const map = arena && maps.get(arena.map)
    if (arena === undefined || map === undefined) return
    const atEnd = (await new Features(this.#token).has('ldimm64_full_range_off')) === true
    this.#arenaOff = Arena.globalsOff(this.#spec, map, atEnd)
    // Whoever made it has put it where its pointers are good.
    if (!reused.has(arena.map)) this.#arena = this.#owned.add(this.#mapArena(map))
  }

  #mapArena(map: BpfMap): Arena {
    const { map: name, contents } = this.#spec.arena!
    return Arena.map(this.#spec, map, this.#arenaOff, this.#initial.get(name) ?? contents)
  }

  /** Contents of the map `.kconfig`. */
  #kconfig(): Uint8Array | undefined {
    const externs = this.#spec.externs.filter(({ kind }) => kind === 'kconfig')
    if (externs.length === 0) return undefined
    return encodeKconfig(externs, this.#options.kconfig ?? readKconfig)
  }

  /** A module's types, open until loading is done. */
  #module(name: string): BtfObject {
    return this.#modules.open(name, this.#btf)
  }

  async #loadProgram(program: ObjectProgram, linked: LinkedProgram): Promise<Program> {
    const outcomes = this.#relocate(program, linked)
    const callable = this.#callableModules()
    fillIn(linked, {
      spec: this.#spec,
      maps: this.#maps,
      externs: this.#externs,
      module: name => this.#module(name),
      callable,
      jumpTables: linked.jumpTables.map(table =>
        this.#transient.add(makeJumpTable(program.name, table, this.#token)),
      ),
      arenaOff: this.#arenaOff,
    })
    const modules = callable.map(name => this.#module(name).fd)
    const load: ProgramSpec = {
      ...programKind(program, {
        choice: this.#options.programs?.[program.name] ?? {},
        token: this.#token,
        structOps: this.#structOps!,
        module: name => this.#module(name),
      }),
      insns: linked.code,
      license: this.#spec.license,
      name: program.name,
      token: this.#token,
      ...(this.#btf === undefined || linked.funcInfo === undefined
        ? {}
        : {
            btf: {
              object: this.#btf,
              funcInfo: linked.funcInfo,
              ...(linked.lineInfo === undefined ? {} : { lineInfo: linked.lineInfo }),
            },
          }),
      // Index 0 means vmlinux, whatever stands there.
      ...(modules.length === 0 ? {} : { fdArray: [modules[0]!, ...modules] }),
      ...(this.#options.logLevel === undefined ? {} : { logLevel: this.#options.logLevel }),
    }
    try {
      return await Program.load(load)
    } catch (error) {
      throw this.#explained(error, program, outcomes)
    }
  }

  /** Modules of kernel functions, in libbpf's order: by the functions' names. */
  #callableModules(): string[] {
    const found = new Set<string>()
    for (const { name, kind } of this.#spec.externs) {
      const value = kind === 'kfunc' ? this.#externs.get(name) : undefined
      if (value?.kind === 'type' && value.module !== undefined) found.add(value.module)
    }
    return [...found]
  }

  #relocate(program: ObjectProgram, { code, coreRelos }: LinkedProgram): CoreOutcome[] {
    if (coreRelos.length === 0) return []
    const kernel = this.#options.kernelTypes ?? KernelTypes.running()
    this.#resolver ??= new CoreResolver(this.#spec.btf!.types, kernel.vmlinux, () => kernel.modules)
    const resolver = this.#resolver
    return coreRelos.flatMap(({ slot, relos }) => resolver.apply(code, relos, program.name, slot))
  }

  /** Puts programs into the arrays that want them from the start. */
  #fillProgramArrays(programs: ReadonlyMap<string, Program>): void {
    for (const { name, values } of this.#spec.maps) {
      const map = this.#maps.get(name)
      if (map === undefined || this.#options.maps?.[name]?.use !== undefined) continue
      for (const value of values) {
        const program = 'program' in value ? programs.get(value.program) : undefined
        if (program !== undefined) map.updateFd(value.index, program)
      }
    }
  }

  /** The same refusal, with what is behind an instruction that was made invalid on purpose. */
  #explained(error: unknown, program: ObjectProgram, outcomes: readonly CoreOutcome[]): unknown {
    if (!(error instanceof VerifierError)) return error
    const reason = explainPoison(error.log, outcomes) ?? explainMissing(error.log, this.#spec)
    if (reason === undefined) return error
    const { errno, errnoName, log } = error
    return new VerifierError({ program: program.name, errno, errnoName, summary: reason, log })
  }
}

function chosenPrograms(spec: ObjectSpec, { only, programs = {} }: LoadOptions): ObjectProgram[] {
  const known = new Set(spec.programs.map(({ name }) => name))
  for (const name of [...(only ?? []), ...Object.keys(programs)])
    if (!known.has(name))
      throw new NotFoundError(`The object has no program "${name}"`, {
        context: { program: name },
        hint: `It has: ${[...known].join(', ') || 'none'}`,
      })
  return spec.programs.filter(
    ({ name, autoload }) => only?.includes(name) ?? programs[name]?.load ?? autoload,
  )
}

function own<T>(named: Readonly<Record<string, T>>): Readonly<Record<string, T>> {
  return Object.assign(Object.create(null), named)
}
