/**
 * What an errno means for one operation, and what to do about it: data, `[operation, errno, hint]`.
 *
 * Sources: kernel/bpf/token.c, kernel/bpf/inode.c, kernel/bpf/syscall.c, fs/fsopen.c, man pages.
 */
const HINTS: readonly (readonly [op: string, errno: string, hint: string])[] = [
  ['BPF_TOKEN_CREATE', 'ENOENT', 'Nothing is delegated on this bpffs: have a delegator mount it with rights'],
  ['BPF_TOKEN_CREATE', 'EPERM', 'Be in the user namespace that the bpffs was opened in, with CAP_BPF there'],
  ['BPF_TOKEN_CREATE', 'EOPNOTSUPP', 'Make the token inside a user namespace; the initial one needs none'],
  ['BPF_TOKEN_CREATE', 'EINVAL', 'Give the root directory of a bpffs; before Linux 6.9 there are no tokens'],
  ['BPF_TOKEN_CREATE', 'EBADF', 'Open the bpffs root without O_PATH'],
  ['BPF_TOKEN_CREATE', 'EACCES', 'A security module refused it: see the audit log'],
  [
    'BPF_MAP_CREATE',
    'EPERM',
    'Have map_create and this map type delegated, and the capability in your user namespace',
  ],
  [
    'BPF_PROG_LOAD',
    'EPERM',
    'Have prog_load, this program type and attach type delegated, and its capabilities',
  ],
  ['BPF_BTF_LOAD', 'EPERM', 'Have btf_load delegated, and CAP_BPF in your user namespace'],
  ['BPF_PROG_LOAD', 'E2BIG', 'Without CAP_BPF a program has at most 4096 instructions, with it 1000000'],
  ['BPF_OBJ_PIN', 'EINVAL', 'Only maps, programs, links can be pinned; a token never'],
  ['fsopen', 'EPERM', 'CAP_SYS_ADMIN is needed over the mount namespace'],
  ['fsopen', 'ENODEV', 'This kernel is built without bpffs (CONFIG_BPF_SYSCALL)'],
  ['fsconfig', 'EPERM', 'Setting rights needs CAP_SYS_ADMIN in the initial user namespace'],
  ['fsconfig', 'EINVAL', 'The kernel does not know this value, or the id is not mapped in the target'],
  [
    'FSCONFIG_CMD_CREATE',
    'EPERM',
    'A bpffs in a user namespace needs a delegator with CAP_SYS_ADMIN outside it',
  ],
  ['FSCONFIG_CMD_CREATE', 'EBUSY', 'This context was used or failed before: open a new one'],
  ['setns', 'EINVAL', 'The target is in this very user namespace: it needs one of its own'],
  ['setns', 'EPERM', 'CAP_SYS_ADMIN over the target user namespace is needed'],
  ['setns', 'ESRCH', 'The process has exited'],
  ['pidfd_open', 'ESRCH', 'There is no such process'],
  ['pidfd_getfd', 'EBADF', 'The process has no such descriptor'],
  ['pidfd_getfd', 'EPERM', 'CAP_SYS_PTRACE over the process is needed'],
  [
    'BPF_PROG_QUERY',
    'EPERM',
    'CAP_NET_ADMIN in the initial user namespace is needed, which no token gives; a link tells by itself',
  ],
  [
    'BPF_ENABLE_STATS',
    'EPERM',
    'CAP_SYS_ADMIN in the initial user namespace is needed, which no token gives',
  ],
  [
    'perf_event_open',
    'EACCES',
    'CAP_PERFMON in the initial user namespace is needed, which no token gives, or a lower kernel.perf_event_paranoid',
  ],
  ['openat2', 'EACCES', 'CAP_SYS_PTRACE over the process is needed: be root outside of containers'],
  ['openat2', 'ENOENT', 'Make the directory inside the target first, or name another'],
  ['openat2', 'ENOTDIR', 'Name a directory; a symbolic link as the last component is not followed'],
  ['openat2', 'ELOOP', 'Name the directory itself: magic links and link loops are not followed'],
  ['openat2', 'ETIMEDOUT', 'A file system of the target does not answer'],
  ['umount2', 'EBUSY', 'It is in use'],
]

/** What an errno means for whatever operation. */
const GENERAL: Readonly<Record<string, string>> = {
  EMFILE: 'Too many open files: raise the limit of this process, ulimit -n',
  ENFILE: 'Too many open files on this machine: raise sysctl fs.file-max',
}

/** The hint for this operation and errno name, if there is one. */
export function hintFor(op: string, errnoName: string): string | undefined {
  return GENERAL[errnoName] ?? HINTS.find(([o, e]) => o === op && e === errnoName)?.[2]
}
