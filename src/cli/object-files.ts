/** BPF objects from files: object files, and those inside executables and libraries. */
import { basename } from 'node:path'
import { embeddedObjects } from '../ebpf/elf/embedded-objects.ts'
import { KernelTypes } from '../ebpf/kernel/kernel-types.ts'
import { parseObject } from '../ebpf/object/spec.ts'
import { printableName } from '../ebpf/printable.ts'
import { FormatError } from '../errors.ts'
import type { NamedSpec } from '../needs/plan.ts'
import { readInput } from './input-file.ts'

const OBJECT_HINT = 'Give the path of an object file that a compiler made for BPF'

/** Programs with objects inside are large, but none is larger than this. */
const MAX_OBJECT_BYTES = 512 * 1024 * 1024

/** Errors are those of `readInput`. */
export function readObjectFile(file: string, hint = OBJECT_HINT): Buffer {
  return readInput(file, { what: 'object', maxBytes: MAX_OBJECT_BYTES, hint })
}

/** Types of another kernel, from a file of BTF or a vmlinux. FormatError: it is neither. */
export function readKernelTypes(file: string): KernelTypes {
  const bytes = readInput(file, {
    what: 'types',
    maxBytes: MAX_OBJECT_BYTES,
    hint: 'Give a file of BTF, as /sys/kernel/btf/vmlinux is one, or a vmlinux that has it inside',
  })
  return KernelTypes.parse(bytes, { name: basename(file).replace(/\.btf$/, '') })
}

export interface FoundObject extends NamedSpec {
  readonly bytes: Uint8Array
}

export interface FoundObjects {
  readonly specs: readonly FoundObject[]
  /** What is wrong with objects inside other files that cannot be read. */
  readonly unreadable: readonly string[]
}

/**
 * Every object in the files, named `FILE` or, inside another file, `FILE@0xOFF`. FormatError: there
 * is none. `begin` is told of each file before it is read.
 */
export function readObjects(
  files: readonly string[],
  begin: (file: string) => void = () => {},
): FoundObjects {
  const specs: FoundObject[] = []
  const unreadable: string[] = []
  for (const file of files) {
    begin(file)
    const bytes = readObjectFile(file, `${OBJECT_HINT}, or of a program that has some inside`)
    const found = embeddedObjects(bytes)
    if (found.length === 0 && isExecutable(bytes))
      throw new FormatError('BPF object', `there is none in ${printableName(file)}`, {
        context: { file },
        hint: 'If its BPF code is compressed, or made when it runs, name the object file that it was made from',
      })
    // The reader says what is wrong with a file that should have been one.
    if (found.length === 0) found.push({ off: 0, bytes })
    for (const { off, bytes: object } of found) {
      const name = off === 0 ? file : `${file}@0x${off.toString(16)}`
      try {
        const spec = parseObject(object, { name: basename(file).replace(/\.o$/, '') })
        specs.push({ name, spec, bytes: object })
      } catch (error) {
        if (!(error instanceof FormatError)) throw error
        if (off === 0)
          throw new FormatError(printableName(name), error.message, {
            context: { ...error.context, file },
            hint: error.hint,
          })
        unreadable.push(`${printableName(name)}: ${error.message}`)
      }
    }
  }
  return { specs, unreadable }
}

const ET_EXEC = 2
const ET_DYN = 3

function isExecutable(bytes: Buffer): boolean {
  return bytes.length > 17 && bytes.readUInt32BE(0) === 0x7f454c46 && [ET_EXEC, ET_DYN].includes(bytes[16]!)
}
