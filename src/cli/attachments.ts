/** The option `--attach [PROGRAM=]SPEC`: what attaches where. */
import { type Placement, placementsOf, type Wish } from '../ebpf/attach/placement.ts'
import type { AttachSpec } from '../ebpf/attach/section.ts'
import type { ObjectProgram } from '../ebpf/object/spec.ts'
import { UsageError } from '../errors.ts'
import { parseAttachSpec } from './attach-spec.ts'

/** UsageError: it does not say where. */
export function parseWish(text: string): Wish {
  const [, program, rest = text] = /^(\w+)=(.*)$/s.exec(text) ?? []
  return {
    spec: rest === 'auto' ? rest : parseAttachSpec(rest),
    ...(program === undefined ? {} : { program }),
  }
}

/** As `parseWish` reads it. */
export function placementText({ program, spec }: Placement): string {
  return `${program}=${spec === undefined ? 'auto' : specText(spec)}`
}

export function specText(spec: AttachSpec): string {
  switch (spec.kind) {
    case 'xdp':
      return `xdp:${spec.device}${spec.mode === undefined ? '' : `/${spec.mode}`}`
    case 'tcx':
      return `tcx:${spec.device}/${spec.direction}`
    default:
      return `${spec.kind}:${spec.path}`
  }
}

/** What was asked for, each wish by some program. UsageError: one that none can meet. */
export function placementsFor(
  programs: readonly ObjectProgram[],
  wishes: readonly Wish[],
): readonly Placement[] {
  const { places, unmet } = placementsOf(programs, wishes)
  const lost = unmet.flatMap(({ spec }) => (spec === 'auto' ? [] : [spec]))
  if (lost.length > 0)
    throw new UsageError(`No program attaches to ${lost.map(specText).join(', ')}`, {
      hint: `There are: ${programs.map(({ name, section }) => `${name} (${section})`).join(', ') || 'none'}`,
    })
  return places
}
