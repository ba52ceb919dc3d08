/** The values of single enums, where start-up time counts. Pure. */
import { enumerators, index, sections } from './blob.ts'
import { BtfStrings } from './names.ts'
import { BTF_KIND } from './type.ts'

/**
 * The values of some enums, by name: `findEnums(vmlinux,
 * ['bpf_cmd']).get('bpf_cmd')!.get('BPF_PROG_LOAD')`. One scan, no index, no string decoded but
 * those asked for: a few milliseconds for a vmlinux in a fresh process. An enum that is not there
 * is missing from the result; of two with the same name the first counts. Only enums of 32-bit
 * values (BTF_KIND_ENUM).
 */
export function findEnums(bytes: Uint8Array, names: readonly string[]): Map<string, Map<string, number>> {
  const input = sections(bytes)
  const wanted = names.map(name => ({ name, needle: Buffer.from(`${name}\0`) }))
  const found = new Map<string, Map<string, number>>()
  const strings = new BtfStrings(input.strings)
  // Comparing at the few thousand enums costs less than searching 2 MB of strings for each name.
  for (const at of index(input, BTF_KIND.enum)) {
    for (const { name, needle } of wanted) {
      if (found.has(name) || !startsAt(input.strings, input.words[at]!, needle)) continue
      const values = enumerators(input.words, at, strings)
      found.set(name, new Map(values.map(({ name, value }) => [name, value])))
    }
  }
  return found
}

function startsAt(bytes: Uint8Array, off: number, needle: Uint8Array): boolean {
  for (let i = 0; i < needle.length; i++) if (bytes[off + i] !== needle[i]) return false
  return true
}
