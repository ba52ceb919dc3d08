/** A plan as the configuration of an LXD instance. Pure. */
import type { RightsPlan } from '../plan.ts'
import type { FormatFacts } from './container.ts'
import { instanceText, type Keys } from './instance.ts'

const KEYS: Keys = {
  cmds: 'security.delegate_bpf.cmd_types',
  maps: 'security.delegate_bpf.map_types',
  progs: 'security.delegate_bpf.prog_types',
  attachs: 'security.delegate_bpf.attach_types',
}

export function lxdText(plan: RightsPlan, facts: FormatFacts): string[] {
  return instanceText(plan, facts, KEYS, ':', ['  security.delegate_bpf: "true"'])
}
