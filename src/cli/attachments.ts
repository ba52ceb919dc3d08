/** The option `--attach [PROGRAM=]SPEC`: what attaches where. */
import { type Placement, placementsOf, type Wish } from '../ebpf/attach/placement.ts'
import type { ObjectProgram } from '../ebpf/object/spec.ts'
import { printableName, quoted } from '../ebpf/printable.ts'
import { UsageError } from '../errors.ts'
import { parseAttachSpec, specText } from './attach-spec.ts'

/** Names that a C compiler gives, and what LLVM adds to them: `count.llvm.1`. */
const PROGRAM_AND_REST = /^([\w.$]+)=(.*)$/s

/**
 * Reads `[PROGRAM=]SPEC`, or `["PROGRAM","SPEC"]` in JSON, which has room for any name. UsageError:
 * it does not say where.
 */
export function parseWish(text: string): Wish {
  if (text.startsWith('[')) return parseExact(text)
  const [, program, rest = text] = PROGRAM_AND_REST.exec(text) ?? []
  return { spec: parsePlace(rest), ...(program === undefined ? {} : { program }) }
}

function parseExact(text: string): Wish {
  const [program, place, ...surplus] = jsonList(text)
  if (typeof program !== 'string' || typeof place !== 'string' || surplus.length > 0)
    throw new UsageError(`${quoted(text)} is not of the form ["PROGRAM","SPEC"]`, {
      context: { attach: printableName(text) },
      hint: 'Give [PROGRAM=]SPEC, where the name has letters, digits, "_", "." and "$" only',
    })
  return { program, spec: parsePlace(place) }
}

/** Empty: it is none. */
function jsonList(text: string): unknown[] {
  try {
    return JSON.parse(text) as unknown[]
  } catch {
    return []
  }
}

function parsePlace(text: string): Wish['spec'] {
  return text === 'auto' ? text : parseAttachSpec(text)
}

/** Text for people. `parseWish` reads it back, whatever the program is called. */
export function placementText(placement: Placement): string {
  const { program } = placement
  const plain = `${program}=${placeText(placement)}`
  return PROGRAM_AND_REST.exec(plain)?.[1] === program ? plain : exactText(placement)
}

/** For another bpftoken: an object's names never say where a program attaches. */
export function exactText(placement: Placement): string {
  return JSON.stringify([placement.program, placeText(placement)])
}

function placeText({ spec }: Placement): string {
  return spec === undefined ? 'auto' : specText(spec)
}

/** The wishes, each met by some program. UsageError: no program can meet one of them. */
export function placementsFor(
  programs: readonly ObjectProgram[],
  wishes: readonly Wish[],
): readonly Placement[] {
  const { places, unmet } = placementsOf(programs, wishes)
  const lost = unmet.flatMap(({ spec }) => (spec === 'auto' ? [] : [spec]))
  if (lost.length > 0)
    throw new UsageError(`No program attaches to ${lost.map(specText).join(', ')}`, {
      hint: `There are: ${programs.map(({ name, section }) => printableName(`${name} (${section})`)).join(', ') || 'none'}`,
    })
  return places
}
