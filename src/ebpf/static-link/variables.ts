/** Global variables of the result: which data section has them, and where. Pure. */
import { ConflictError } from '../../errors.ts'
import { BTF_KIND } from '../btf/type.ts'
import type { LinkedTypes } from './linked-types.ts'
import type { OutSection, Variable } from './out-section.ts'
import { isNonStatic, kindOf, type TextTable, vlenOf } from './raw-types.ts'
import { EXTERN_SECTION, type Source } from './source.ts'
import type { Shared } from './symbols.ts'

/** What there is already. */
interface Known {
  readonly texts: TextTable
  readonly types: LinkedTypes
  readonly shared: ReadonlyMap<string, Shared>
}

/** Those of an object whose types were added. */
export function addVariables(source: Source, known: Known): void {
  for (const datasec of source.btf!.types) {
    if (kindOf(datasec) !== BTF_KIND.datasec) continue
    const name = known.texts.name(datasec.words[0]!)
    if (name === EXTERN_SECTION) continue
    const index = source.sections.get(name)?.index
    const place =
      index === undefined ? { section: source.shells.get(name), off: 0 } : source.placed.get(index)
    if (place?.section === undefined) continue
    const { section, off } = place
    section.isDescribed = true
    for (let i = 0; i < vlenOf(datasec); i++) {
      const [type, at, size] = datasec.words.slice(2 + i * 3, 5 + i * 3) as [number, number, number]
      addVariable(section, { type: source.newIds[type]!, off: off + at, size }, source, known)
    }
  }
}

function addVariable(
  section: OutSection,
  variable: Variable,
  source: Source,
  { texts, types, shared: byName }: Known,
): void {
  const type = types.all[variable.type]!
  const name = texts.name(type.words[0]!)
  const shared = isNonStatic(type) ? byName.get(name) : undefined
  if (shared === undefined) {
    section.variables.add(variable)
    return
  }
  const { symbol, variable: known } = shared
  if (shared.section !== section) {
    // A weak definition in another section: the one that counts is elsewhere.
    if (!shared.isExtern && shared.section !== undefined && symbol.section === shared.section) return
    throw new ConflictError(
      `"${name}" is in section "${section.name}" in ${source.name}, and elsewhere before`,
      {
        context: { symbol: name, section: section.name, object: source.name },
      },
    )
  }
  if (known === undefined) {
    shared.variable = variable
    shared.listedIn = section
    section.variables.add(variable)
    return
  }
  if (shared.listedIn !== section) {
    shared.listedIn?.variables.delete(known)
    shared.listedIn = section
    section.variables.add(known)
  }
  if (kindOf(type) !== BTF_KIND.var) return
  known.size = types.read().sizeof(type.words[1]!)
  if (symbol.section !== undefined) known.off = symbol.value
}
