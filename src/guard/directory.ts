/**
 * Where the guard's links and maps are pinned, for root only. By itself, so that asking whether
 * there is one loads no more.
 */
import { DEFAULT_BPFFS } from '../uapi/kernel-paths.ts'

export const GUARD_DIRECTORY = `${DEFAULT_BPFFS}/bpftoken`
