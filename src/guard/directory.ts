/** Where the guard's links and maps are pinned, for root only. By itself, so that asking whether there is one loads no more. */
export const GUARD_DIRECTORY = '/sys/fs/bpf/bpftoken'
