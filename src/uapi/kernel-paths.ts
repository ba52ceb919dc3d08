/** Where the kernel shows what we use of it, for whoever was told nothing else. */

/**
 * The kernel makes this directory for a bpffs; libbpf and every loader that knows tokens look
 * there.
 */
export const DEFAULT_BPFFS = '/sys/fs/bpf'

/** Cgroups of version 2. */
export const CGROUP_ROOT = '/sys/fs/cgroup'

/**
 * The types (BTF) of the kernel, `vmlinux`, and of each loaded module. Since Linux 5.4 and 5.11.
 */
export const KERNEL_BTF = '/sys/kernel/btf'
export const VMLINUX_BTF = `${KERNEL_BTF}/vmlinux`
