/** A plan as the configuration of an Incus instance. Pure. */
import type { RightsPlan } from '../plan.ts'
import type { FormatFacts } from './container.ts'
import { instanceText, type Keys } from './instance.ts'

const KEYS: Keys = {
  cmds: 'security.bpffs.delegate_cmds',
  maps: 'security.bpffs.delegate_maps',
  progs: 'security.bpffs.delegate_progs',
  attachs: 'security.bpffs.delegate_attachs',
}

export function incusText(plan: RightsPlan, facts: FormatFacts): string[] {
  return instanceText(plan, facts, KEYS, ',', [])
}
