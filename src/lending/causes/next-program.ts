/** Which capabilities a program has that the process executes: it may lose what it has itself. Pure. */
import type { TaskStatus } from '../../delegation/preflight.ts'
import { MODEL_CAPABILITIES, type ModelCapability } from '../../model/task.ts'
import { CAPABILITIES, type CapabilityName } from '../../uapi/constants.ts'
import type { Identity } from './bpffs-place.ts'

/** Of a set of capabilities those that bpf(2) asks for. */
export function capabilitiesIn(set: bigint): ModelCapability[] {
  return MODEL_CAPABILITIES.filter(one => {
    const bit = CAPABILITIES[`CAP_${one.toUpperCase()}` as CapabilityName]
    return ((set >> BigInt(bit)) & 1n) === 1n
  })
}

/** capabilities(7): root gets what is in the bounding set, everybody else the ambient ones. */
export function keptByPrograms(status: TaskStatus, { uidMap }: Identity): ModelCapability[] {
  const { uids, ambient, bounding, permitted, noNewPrivs } = status
  const root = uidMap.find(({ inside }) => inside === 0)?.outside
  if (root === undefined || !uids.includes(root)) return capabilitiesIn(ambient)
  return capabilitiesIn(noNewPrivs ? bounding & permitted : bounding)
}

/** Undefined: its programs have what it has. `needed`: `CAP_BPF`. */
export function lossNote(
  has: readonly ModelCapability[],
  kept: readonly ModelCapability[],
  needed: readonly string[],
): string | undefined {
  const lost = needed.filter(name => {
    const is = (one: ModelCapability): boolean => `CAP_${one.toUpperCase()}` === name
    return has.some(is) && !kept.some(is)
  })
  return lost.length === 0
    ? undefined
    : `the next program that it executes has no ${lost.join(', ')}, which is not ambient`
}
