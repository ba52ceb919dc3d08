/**
 * Where the guard's links and maps are pinned, for root only. A file of its own, so that asking
 * whether there is a guard loads nothing else.
 */
import { DEFAULT_BPFFS } from '../uapi/kernel-paths.ts'

export const GUARD_DIRECTORY = `${DEFAULT_BPFFS}/bpftoken`
