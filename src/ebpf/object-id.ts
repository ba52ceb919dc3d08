/**
 * Ids of all BPF objects on this machine: BPF_*_GET_NEXT_ID. Needs CAP_SYS_ADMIN in the initial
 * user namespace; a token does not help. Objects may come and go while the ids are read: opening
 * one can fail with ENOENT.
 */
import { getNextId } from '../sys/bpf.ts'

type NextIdCmd = Parameters<typeof getNextId>[0]

function* idsOf(cmd: NextIdCmd): Generator<number> {
  for (let id = getNextId(cmd, 0); id !== undefined; id = getNextId(cmd, id)) yield id
}

/** Since Linux 4.13. */
export const programIds = (): Generator<number> => idsOf('BPF_PROG_GET_NEXT_ID')
/** Since Linux 4.13. */
export const mapIds = (): Generator<number> => idsOf('BPF_MAP_GET_NEXT_ID')
/** Since Linux 5.4. */
export const btfIds = (): Generator<number> => idsOf('BPF_BTF_GET_NEXT_ID')
/** Since Linux 5.8. */
export const linkIds = (): Generator<number> => idsOf('BPF_LINK_GET_NEXT_ID')
