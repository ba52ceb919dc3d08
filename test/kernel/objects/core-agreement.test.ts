/**
 * Where CO-RE puts fields of this kernel's types, and of kernels that do not run here: beside
 * libbpf, instruction by instruction.
 */
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { CLASS, LD_IMM64, OP, SLOT_BYTES } from '../../../src/ebpf/asm/insn.ts'
import { CoreResolver, type CoreTarget } from '../../../src/ebpf/core/relo.ts'
import { KernelTypes } from '../../../src/ebpf/kernel/kernel-types.ts'
import type { FunctionSpec } from '../../../src/ebpf/object/functions.ts'
import { type ObjectSpec, parseObject } from '../../../src/ebpf/object/spec.ts'
import { ConflictError, FormatError } from '../../../src/errors.ts'
import { corpusFile, corpusObjects } from '../../corpus/corpus.ts'
import { askOracle, foreignKernels, needsOracle, type OracleAnswer } from '../../corpus/oracle.ts'
import { isRoot } from '../../helpers/machine.ts'

const VMLINUX = '/sys/kernel/btf/vmlinux'
const CALL = CLASS.JMP | OP.CALL
/** libbpf's number for a helper that does not exist. */
const POISON = 195_896_080
interface Subject {
  readonly name: string
  readonly spec: ObjectSpec
  readonly file: string
}

function subjects(): Subject[] {
  return corpusObjects().flatMap(object => {
    const file = corpusFile(object)
    try {
      const spec = parseObject(readFileSync(file))
      return spec.littleEndian && spec.btf !== undefined ? [{ name: object.name, spec, file }] : []
    } catch (error) {
      if (error instanceof FormatError) return []
      throw error
    }
  })
}

/**
 * Code of each function that a program reaches, in the order in which libbpf appends them: each one
 * with its own, first.
 */
function reached(functions: readonly FunctionSpec[], main: number): number[] {
  const order: number[] = []
  const add = (index: number) => {
    if (order.includes(index)) return
    order.push(index)
    for (const reference of functions[index]!.references)
      if (reference.kind === 'function') add(reference.target)
  }
  add(main)
  // No instruction leads to it, so it comes last.
  const { exceptionCallback } = functions[main]!
  if (exceptionCallback !== undefined) add(exceptionCallback)
  return order
}

/** Relocates copies of all functions that are asked for. */
class Relocated {
  readonly #spec: ObjectSpec
  readonly #resolver: CoreResolver
  readonly #code = new Map<number, Uint8Array>()
  relocations = 0
  poisoned = 0

  constructor(spec: ObjectSpec, vmlinux: CoreTarget) {
    this.#spec = spec
    this.#resolver = new CoreResolver(spec.btf!.types, vmlinux)
  }

  code(index: number): Uint8Array {
    const known = this.#code.get(index)
    if (known !== undefined) return known
    const { code, coreRelos, name } = this.#spec.functions[index]!
    const copy = Uint8Array.from(code)
    const outcomes = this.#resolver.apply(copy, coreRelos, name)
    this.relocations += outcomes.length
    this.poisoned += outcomes.filter(({ poisoned }) => poisoned).length
    this.#code.set(index, copy)
    return copy
  }
}

const hex = (bytes: Uint8Array, slot: number) =>
  Buffer.from(bytes.subarray(slot * SLOT_BYTES, (slot + 1) * SLOT_BYTES)).toString('hex')

/**
 * An instruction without what no two loads have in common: descriptors, addresses, numbers of
 * relocations.
 */
function masked(bytes: Uint8Array, slot: number, outer: boolean): string {
  const insn = Buffer.from(bytes.subarray(slot * SLOT_BYTES, (slot + 1) * SLOT_BYTES))
  const imm = insn.readInt32LE(4)
  if (outer) insn.fill(0, insn[0] === CALL ? 1 : 4)
  if (outer && insn[0] === LD_IMM64) insn[1]! &= 0xf
  const poison = insn[0] === CALL && insn[1] === 0 && imm === POISON
  return poison && !outer ? 'poison' : insn.toString('hex')
}

function immediate(bytes: Uint8Array, slot: number): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getInt32(slot * SLOT_BYTES + 4, true)
}

/** Differences between a program of ours and of libbpf. */
function differences(spec: ObjectSpec, main: number, relocated: Relocated, theirs: Uint8Array): string[] {
  const found: string[] = []
  const order = reached(spec.functions, main)
  const starts = new Map<number, number>()
  let slots = 0
  for (const index of order) {
    starts.set(index, slots)
    slots += relocated.code(index).length / SLOT_BYTES
  }
  if (slots * SLOT_BYTES !== theirs.length) return [`${slots} slots, libbpf ${theirs.length / SLOT_BYTES}`]
  for (const index of order) {
    const { name, references, code } = spec.functions[index]!
    const ours = relocated.code(index)
    const start = starts.get(index)!
    const referenceAt = new Map(references.map(reference => [reference.slot, reference]))
    const say = (slot: number, a: string, b: string) =>
      found.push(`${name}+${slot} (${hex(code, slot)}): ${a}, libbpf ${b}`)
    for (let slot = 0; slot < ours.length / SLOT_BYTES; slot++) {
      const reference = referenceAt.get(slot)
      if (reference?.kind === 'function') {
        const target = start + slot + 1 + immediate(theirs, start + slot)
        const wanted = starts.get(reference.target)
        if (target !== wanted) say(slot, `function at ${wanted}`, `at ${target}`)
      } else compareOne(slot, reference !== undefined)
      if (reference !== undefined && ours[slot * SLOT_BYTES] === LD_IMM64) slot++
    }

    function compareOne(slot: number, outer: boolean): void {
      const [a, b] = [masked(ours, slot, outer), masked(theirs, start + slot, outer)]
      if (a !== b) say(slot, a, b)
    }
  }
  return found
}

function compareAll(all: readonly Subject[], kernel: { name: string; path: string }, running: boolean) {
  // Read once, for all objects, as whoever loads several holds them.
  const { vmlinux } = KernelTypes.parse(readFileSync(kernel.path), { name: kernel.name })
  const files = all.map(({ file }) => file)
  const answers = askOracle('relocate', files, running ? undefined : kernel.path)
  const count = {
    objects: 0,
    programs: 0,
    relocations: 0,
    poisoned: 0,
    'struct_ops left out': 0,
    'not relocated by libbpf': 0,
  }
  const different: string[] = []
  for (const [i, { name, spec }] of all.entries()) {
    const answer: OracleAnswer = answers[i]!
    if (answer.stage === 'open' || answer.stage === 'externs') {
      count['not relocated by libbpf']++
      continue
    }
    const theirs = answer.stage === 'core' ? 'refused' : 'relocated'
    const relocated = new Relocated(spec, vmlinux)
    let ours: typeof theirs = 'relocated'
    let why = ''
    try {
      for (const program of answer.programs!) {
        const main = spec.programs.find(one => one.name === program.name)
        if (main === undefined) continue
        // The oracle leaves struct_ops out, so libbpf does not relocate their programs.
        if (main.rule?.type === 'struct_ops') {
          count['struct_ops left out']++
          continue
        }
        for (const index of reached(spec.functions, main.function)) relocated.code(index)
        if (theirs === 'refused') continue
        const code = Buffer.from(program.code!, 'hex')
        const found = differences(spec, main.function, relocated, code)
        if (found.length > 0)
          different.push(
            `${name} ${program.name}: ${found.length}`,
            ...found.slice(0, 4).map(one => `  ${one}`),
          )
        count.programs++
      }
    } catch (error) {
      if (!(error instanceof ConflictError || error instanceof FormatError)) throw error
      ours = 'refused'
      why = error.message
    }
    if (ours !== theirs)
      different.push(`${name}: ${ours} ${why}, libbpf ${theirs} ${answer.warnings[0] ?? ''}`)
    count.objects++
    count.relocations += relocated.relocations
    count.poisoned += relocated.poisoned
  }
  return { count, different }
}

const needs = (path: string): { skip?: string } => {
  if (!isRoot) return { skip: 'needs root' }
  return existsSync(path) ? needsOracle() : { skip: `${path} is missing` }
}

test('CoreResolver relocates as libbpf does, for the running kernel', needs(VMLINUX), t => {
  const { count, different } = compareAll(subjects(), { name: 'vmlinux', path: VMLINUX }, true)
  t.diagnostic(JSON.stringify(count))
  assert.deepEqual(different, [])
})

const foreign = foreignKernels()
test(
  'CoreResolver relocates as libbpf does, for kernels that do not run here',
  foreign.length === 0
    ? { skip: '.cache/btf is not complete: run test/corpus/foreign-btf.sh' }
    : needsOracle(),
  async t => {
    const all = subjects()
    for (const kernel of foreign)
      await t.test(kernel.name, needs(kernel.path), t => {
        const { count, different } = compareAll(all, kernel, false)
        t.diagnostic(JSON.stringify(count))
        assert.deepEqual(different, [])
      })
  },
)
