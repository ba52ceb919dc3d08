/** Where the kernel's file systems are mounted, for whoever was told nothing else. */

/** The kernel makes this directory for a bpffs; libbpf and every loader that knows tokens look there. */
export const DEFAULT_BPFFS = '/sys/fs/bpf'

/** Cgroups of version 2. */
export const CGROUP_ROOT = '/sys/fs/cgroup'
