/** All rules and lists of the model, for whoever wants to turn each of them round once. */
import { ATTACH_RULES } from './attach.ts'
import { CALL_RULES } from './bpf-call.ts'
import { BPFFS_RULES } from './bpffs.ts'
import { BTF_RULES } from './btf.ts'
import { ID_RULES } from './ids.ts'
import { INODE_RULES } from './inode.ts'
import type { Rule, WordList } from './judge.ts'
import { MAP_RULES } from './map-create.ts'
import { NETWORK_MAPS, SEEDED_MAPS, UNPRIVILEGED_MAPS } from './map-types.ts'
import { PIN_RULES } from './pins.ts'
import { PROG_LISTS, PROG_RULES } from './prog-load.ts'
import { CAPABLE_RULES } from './task.ts'
import { TOKEN_RULES } from './token.ts'

export const KERNEL_RULES: readonly Rule[] = [
  CALL_RULES,
  CAPABLE_RULES,
  INODE_RULES,
  BPFFS_RULES,
  TOKEN_RULES,
  MAP_RULES,
  PROG_RULES,
  BTF_RULES,
  ID_RULES,
  ATTACH_RULES,
  PIN_RULES,
].flatMap(rules => Object.values(rules) as Rule[])

export const KERNEL_LISTS: readonly WordList[] = [UNPRIVILEGED_MAPS, NETWORK_MAPS, SEEDED_MAPS, ...PROG_LISTS]
