/**
 * bpftoken obj show: what an object file holds, and which of its CO-RE accesses a kernel cannot
 * satisfy. Offline.
 */
import { CoreResolver } from '../../ebpf/core/relo.ts'
import { KernelTypes } from '../../ebpf/kernel/kernel-types.ts'
import { whyBroken } from '../../ebpf/object/reach.ts'
import type { ObjectSpec } from '../../ebpf/object/spec.ts'
import { printableName } from '../../ebpf/printable.ts'
import { ATTACH_TYPES } from '../../ebpf/type-names.ts'
import { BpftokenError, EXIT } from '../../errors.ts'
import { readKernelTypes, readObjects } from '../object-files.ts'
import { columns, print, printJson, warn } from '../output.ts'

export function show(file: string, options: { json?: boolean; btf?: string[] }): number {
  const { specs, unreadable } = readObjects([file])
  // Read once, for all objects.
  const kernels = (options.btf ?? []).map(readKernelTypes)
  const objects = specs.map(({ name, spec }) => facts(name, spec, kernels))
  if (options.json === true) printJson(objects)
  else print(...objects.flatMap((object, i) => [...(i === 0 ? [] : ['']), ...describe(object)]))
  for (const problem of unreadable) warn(problem)
  return unreadable.length === 0 ? EXIT.ok : EXIT.failed
}

type Facts = ReturnType<typeof facts>

function facts(name: string, spec: ObjectSpec, kernels: readonly KernelTypes[]) {
  return {
    name,
    byteOrder: spec.littleEndian ? 'little' : 'big',
    license: spec.license,
    btf: spec.btf === undefined ? null : { sizeBytes: spec.btf.bytes.length, types: spec.btf.types.count },
    coreRelocations: spec.functions.reduce((sum, { coreRelos }) => sum + coreRelos.length, 0),
    core: kernels.length === 0 ? againstKernel(spec, KernelTypes.running()) : null,
    otherKernels: kernels.map(kernel => ({ kernel: kernel.name, core: againstKernel(spec, kernel) })),
    programs: spec.programs.map(program => {
      const { rule, target, autoload, section } = program
      const { code, coreRelos } = spec.functions[program.function]!
      return {
        name: program.name,
        section,
        type: rule?.type ?? null,
        attachType: rule?.attachType === undefined ? null : ATTACH_TYPES.word(rule.attachType),
        target: target ?? null,
        instructions: code.length / SLOT_BYTES,
        coreRelocations: coreRelos.length,
        autoload,
        problem: whyBroken(spec, program) ?? null,
      }
    }),
    maps: spec.maps.map(map => ({
      name: map.name,
      kind: map.kind,
      type: map.type,
      keyBytes: map.keyBytes,
      valueBytes: map.valueBytes,
      maxEntries: map.maxEntries,
      flags: map.flags,
      pinByName: map.pinByName,
      autocreate: map.autocreate,
      inner: map.inner?.type ?? null,
      foreign: map.foreign ?? null,
      arenaDataBytes: spec.arena?.map === map.name ? spec.arena.sizeBytes : null,
    })),
    externs: spec.externs.map(({ name: extern, kind, weak }) => ({ name: extern, kind, weak })),
  }
}

const SLOT_BYTES = 8

interface CoreAnswer {
  /** Accesses that the kernel does not have, by function. Guarded ones do no harm. */
  readonly unsatisfied: readonly { readonly function: string; readonly what: string }[]
  /** Why some could not be looked up. */
  readonly errors: readonly string[]
}

/** CO-RE against a kernel's types; null: the object has no such access. */
function againstKernel(spec: ObjectSpec, kernel: KernelTypes): CoreAnswer | null {
  const functions = spec.functions.filter(({ coreRelos }) => coreRelos.length > 0)
  if (functions.length === 0 || spec.btf === undefined) return null
  const unsatisfied = new Map<string, CoreAnswer['unsatisfied'][number]>()
  const errors: string[] = []
  let resolver: CoreResolver | undefined
  for (const { name, code, coreRelos } of functions) {
    try {
      resolver ??= new CoreResolver(spec.btf.types, kernel.vmlinux, () => kernel.modules)
      for (const { poisoned, what } of resolver.apply(Uint8Array.from(code), coreRelos, name))
        if (poisoned) unsatisfied.set(`${name} ${what}`, { function: name, what })
    } catch (error) {
      if (!(error instanceof BpftokenError)) throw error
      errors.push(error.message)
    }
  }
  return { unsatisfied: [...unsatisfied.values()], errors: [...new Set(errors)] }
}

function describe(object: Facts): string[] {
  const { btf, license, byteOrder, coreRelocations } = object
  const types = btf === null ? 'no BTF' : `BTF of ${btf.types} types in ${btf.sizeBytes} bytes`
  return [
    `${printableName(object.name)}: ${byteOrder}-endian, license ${license === '' ? 'not given' : JSON.stringify(printableName(license))}`,
    `  ${types}, ${coreRelocations} CO-RE relocations`,
    ...missingTable('this kernel', object.core),
    ...object.otherKernels.flatMap(({ kernel, core }) => missingTable(printableName(kernel), core)),
    ...table('programs', object.programs.map(programRow)),
    ...table('maps', object.maps.map(mapRow)),
    ...table(
      'externs',
      object.externs.map(({ name, kind, weak }) => [printableName(name), kind, weak ? 'weak' : '']),
    ),
  ]
}

function table(title: string, rows: string[][]): string[] {
  return rows.length === 0 ? [] : [`  ${title}:`, ...columns(rows, '    ')]
}

function missingTable(kernel: string, core: CoreAnswer | null): string[] {
  return table(`not in ${kernel} (no harm where the program asks first)`, [
    ...(core?.unsatisfied ?? []).map(one => [printableName(one.function), printableName(one.what)]),
    ...(core?.errors ?? []).map(error => [error]),
  ])
}

function programRow(program: Facts['programs'][number]): string[] {
  const { type, attachType, instructions, autoload, section, problem } = program
  const remarks = [
    ...(autoload ? [] : ['not loaded by itself']),
    ...(problem === null ? [] : [`cannot be loaded: ${printableName(problem)}`]),
  ]
  return [
    printableName(program.name),
    printableName(section),
    type ?? 'type unknown',
    attachType ?? '-',
    `${instructions} instructions`,
    remarks.join(', '),
  ]
}

function mapRow(map: Facts['maps'][number]): string[] {
  return [
    printableName(map.name),
    `${map.type}${map.inner === null ? '' : ` of ${map.inner}`}`,
    `${map.keyBytes} -> ${map.valueBytes} bytes`,
    `${map.maxEntries} entries`,
    `flags 0x${map.flags.toString(16)}`,
    remarksOn(map),
  ]
}

function remarksOn({ kind, pinByName, autocreate, foreign, arenaDataBytes }: Facts['maps'][number]): string {
  const remarks = [
    ...(kind === 'declared' || kind === 'struct_ops' ? [] : ['global data']),
    ...(pinByName ? ['pinned by name'] : []),
    ...(autocreate ? [] : ['not made by itself']),
    ...(foreign === null ? [] : [`${foreign}: for another loader`]),
    ...(arenaDataBytes === null || arenaDataBytes === 0 ? [] : [`${arenaDataBytes} bytes of global data`]),
  ]
  return remarks.join(', ')
}
