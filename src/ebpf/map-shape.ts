/** What about the sizes and flags of a map its type does not take. Pure. */
import { bpf_map_flags } from '../uapi/bpf.ts'
import {
  BY_PROGRAM,
  entriesFit,
  isClosed,
  MAP_SHAPES,
  type MapShape,
  SHAPE_PAGE_BYTES,
  type SizeRule,
  sizeFits,
} from '../uapi/map-shapes.ts'
import type { MapType } from './type-names.ts'

export interface MapSizes {
  readonly keyBytes: number
  readonly valueBytes: number
  readonly maxEntries: number
  /** Without what a token or a NUMA node adds. */
  readonly flags: number
}

/**
 * Why the kernel says EINVAL to a map of these sizes, as a next step; undefined: the reason is
 * another one, or the type is none that we know.
 */
export function misfit(type: MapType, sizes: MapSizes): string | undefined {
  const word = type.replace(/_deprecated$/, '')
  if (!Object.hasOwn(MAP_SHAPES, word)) return undefined
  const shape: MapShape = MAP_SHAPES[word as keyof typeof MAP_SHAPES]
  const wrong = [
    ...sizeFault('keyBytes', sizes.keyBytes, shape.key),
    ...sizeFault('valueBytes', sizes.valueBytes, shape.value),
    ...entriesFault(sizes.maxEntries, shape.entries),
    ...flagFaults(sizes.flags, shape),
  ]
  return wrong.length === 0 ? undefined : `For the type ${word} ${wrong.join('; ')}`
}

function sizeFault(field: string, size: number, rule: SizeRule): string[] {
  return sizeFits(size, rule) ? [] : [`${field} must be ${sizeText(rule)}, not ${size}`]
}

function sizeText(rule: SizeRule): string {
  if (rule === 'any' || rule === 'free') return '1 or more'
  if (typeof rule === 'number') return `${rule}`
  if (!('from' in rule)) return rule.join(' or ')
  return rule.unit === undefined ? `${rule.from} to ${rule.to}` : `a multiple of ${rule.unit}`
}

function entriesFault(count: number, rule: MapShape['entries']): string[] {
  if (entriesFit(count, rule)) return []
  const wanted =
    rule === 'some'
      ? '1 or more'
      : rule === 'ring'
        ? `bytes of data: a power of two, and whole pages of ${SHAPE_PAGE_BYTES}`
        : `${rule}`
  return [`maxEntries must be ${wanted}, not ${count}`]
}

function flagFaults(flags: number, { flags: known, must = 0 }: MapShape): string[] {
  const unknown = flags & ~known
  const missing = must & ~flags
  return [
    ...(missing === 0 ? [] : [`flags must have ${flagText(missing)}`]),
    ...(unknown === 0 ? [] : [`flags cannot have ${flagText(unknown)}`]),
    ...(unknown === 0 && isClosed(flags) ? [`flags cannot have both ${flagText(BY_PROGRAM, ' and ')}`] : []),
  ]
}

/** Names of the flags, and the rest as a number. */
function flagText(flags: number, between = ', '): string {
  const named = Object.entries(bpf_map_flags).filter(([, bit]) => (flags & bit) !== 0)
  const rest = (flags & ~named.reduce((all, [, bit]) => all | bit, 0)) >>> 0
  return [...named.map(([name]) => name), ...(rest === 0 ? [] : [`0x${rest.toString(16)}`])].join(between)
}
