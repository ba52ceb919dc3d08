/**
 * The #defines we need: BTF does not carry them, so they are listed by hand with their source.
 * Everything that BTF does carry is in bpf.ts. Paths are those of the kernel tree, include/uapi/.
 */

// linux/mount.h: fsopen(2), fsmount(2), fspick(2)
export const FSOPEN_CLOEXEC = 0x1
export const FSPICK_CLOEXEC = 0x1
export const FSPICK_EMPTY_PATH = 0x8
export const FSMOUNT_CLOEXEC = 0x1

// linux/mount.h: enum fsconfig_command
export const FSCONFIG_SET_FLAG = 0
export const FSCONFIG_SET_STRING = 1
export const FSCONFIG_CMD_CREATE = 6
export const FSCONFIG_CMD_RECONFIGURE = 7

// linux/mount.h: mount attributes of fsmount(2) and mount_setattr(2)
export const MOUNT_ATTR_NOSUID = 0x2
export const MOUNT_ATTR_NODEV = 0x4
export const MOUNT_ATTR_NOEXEC = 0x8

// linux/mount.h: move_mount(2)
export const MOVE_MOUNT_F_EMPTY_PATH = 0x4

// linux/mount.h: statmount(2) and listmount(2), since Linux 6.8
export const STATMOUNT_SB_BASIC = 0x1n
export const STATMOUNT_MNT_BASIC = 0x2n
export const STATMOUNT_MNT_ROOT = 0x8n
export const STATMOUNT_MNT_POINT = 0x10n
export const STATMOUNT_MNT_OPTS = 0x80n
export const LSMT_ROOT = 0xffff_ffff_ffff_ffffn

// linux/mount.h, include/linux/fs.h: mount(2) flags; include/linux/fs.h: umount2(2)
export const MS_REMOUNT = 0x20
export const MS_BIND = 0x1000
export const MS_MOVE = 0x2000
export const MNT_DETACH = 0x2

// linux/fcntl.h
export const AT_FDCWD = -100
export const AT_EMPTY_PATH = 0x1000
/** Without it, a file system may ask a server, and wait for it. */
export const AT_STATX_DONT_SYNC = 0x4000

// linux/openat2.h
export const RESOLVE_IN_ROOT = 0x10
/** Since Linux 5.12: nothing is asked of a file system; what is not known yet is EAGAIN. */
export const RESOLVE_CACHED = 0x20

// asm-generic/fcntl.h; arch/arm64/include/uapi/asm/fcntl.h differs in `O_DIRECTORY`
export const O_RDONLY = 0o0
export const O_RDWR = 0o2
export const O_DIRECTORY = process.arch === 'arm64' ? 0o40000 : 0o200000
export const O_CLOEXEC = 0o2000000
export const O_PATH = 0o10000000

// linux/mount.h: open_tree(2)
export const OPEN_TREE_CLONE = 0x1
export const OPEN_TREE_CLOEXEC = O_CLOEXEC

// linux/stat.h: statx(2)
export const STATX_INO = 0x100
export const STATX_MNT_ID = 0x1000
/** Since Linux 6.8. */
export const STATX_MNT_ID_UNIQUE = 0x4000

// linux/sched.h
export const CLONE_NEWNS = 0x20000
export const CLONE_NEWUSER = 0x10000000
export const CLONE_NEWNET = 0x40000000

// linux/pidfd.h: pidfd_open(2); the ioctls are of a pidfd, since Linux 6.11
export const PIDFD_GET_MNT_NAMESPACE = 0xff03
export const PIDFD_GET_NET_NAMESPACE = 0xff04
export const PIDFD_GET_PID_NAMESPACE = 0xff05
export const PIDFD_GET_USER_NAMESPACE = 0xff09

// linux/nsfs.h: ioctls of a namespace's file
export const NS_GET_USERNS = 0xb701
export const NS_GET_PARENT = 0xb702
export const NS_GET_OWNER_UID = 0xb704
/** _IOR(0xb7, 5, __u64), since Linux 6.11 */
export const NS_GET_MNTNS_ID = 0x8008b705
/** _IOR(0xb7, 13, __u64), since Linux 6.18 */
export const NS_GET_ID = 0x8008b70d

// linux/magic.h: statfs(2) f_type
export const BPF_FS_MAGIC = 0xcafe4a11
export const CGROUP2_SUPER_MAGIC = 0x63677270
export const PROC_SUPER_MAGIC = 0x9fa0
/** Since Linux 6.9: before, pidfds lie elsewhere. */
export const PID_FS_MAGIC = 0x5049_4446

// asm-generic/socket.h
export const SOL_SOCKET = 1
export const SO_TYPE = 3
export const SO_PEERCRED = 17
export const SO_ACCEPTCONN = 30
export const SO_DOMAIN = 39
/** Since Linux 6.5. */
export const SO_PEERPIDFD = 77
export const SO_ATTACH_BPF = 50
/** The kernel's SO_DETACH_FILTER under its other name. */
export const SO_DETACH_BPF = 27
export const SO_ATTACH_REUSEPORT_EBPF = 52
export const SO_DETACH_REUSEPORT_BPF = 68

// linux/bpf.h: sizes
export const BPF_OBJ_NAME_LEN = 16
/**
 * Longest verifier log the kernel writes: UINT_MAX >> 2 (kernel/bpf/log.c,
 * bpf_verifier_log_attr_valid).
 */
export const BPF_LOG_MAX_BYTES = 0xffffffff >>> 2

// include/linux/bpf_verifier.h: log_level
export const BPF_LOG_LEVEL1 = 1

// linux/bpf.h: BPF_PROG_ATTACH attach_flags (BPF_F_LINK is in bpf.ts, bpf_map_flags)
export const BPF_F_ALLOW_OVERRIDE = 0x1
export const BPF_F_ALLOW_MULTI = 0x2
export const BPF_F_REPLACE = 0x4
export const BPF_F_BEFORE = 0x8
export const BPF_F_AFTER = 0x10
export const BPF_F_ID = 0x20
// linux/bpf.h: BPF_PROG_QUERY query_flags
export const BPF_F_QUERY_EFFECTIVE = 0x1

// linux/bpf.h: BPF_PROG_LOAD prog_flags (BPF_F_TOKEN_FD is in bpf.ts, bpf_map_flags)
export const BPF_F_SLEEPABLE = 0x10
export const BPF_F_XDP_HAS_FRAGS = 0x20

// linux/bpf.h: BPF_PROG_TEST_RUN flags
export const BPF_F_TEST_RUN_ON_CPU = 0x1
export const BPF_F_TEST_XDP_LIVE_FRAMES = 0x2

// linux/if_link.h: how an XDP program is attached
export const XDP_FLAGS_SKB_MODE = 0x2
export const XDP_FLAGS_DRV_MODE = 0x4
export const XDP_FLAGS_HW_MODE = 0x8

/** Capabilities by their kernel name; linux/capability.h. */
export const CAPABILITIES = {
  CAP_CHOWN: 0,
  CAP_DAC_OVERRIDE: 1,
  CAP_DAC_READ_SEARCH: 2,
  CAP_FOWNER: 3,
  CAP_FSETID: 4,
  CAP_KILL: 5,
  CAP_SETGID: 6,
  CAP_SETUID: 7,
  CAP_SETPCAP: 8,
  CAP_LINUX_IMMUTABLE: 9,
  CAP_NET_BIND_SERVICE: 10,
  CAP_NET_BROADCAST: 11,
  CAP_NET_ADMIN: 12,
  CAP_NET_RAW: 13,
  CAP_IPC_LOCK: 14,
  CAP_IPC_OWNER: 15,
  CAP_SYS_MODULE: 16,
  CAP_SYS_RAWIO: 17,
  CAP_SYS_CHROOT: 18,
  CAP_SYS_PTRACE: 19,
  CAP_SYS_PACCT: 20,
  CAP_SYS_ADMIN: 21,
  CAP_SYS_BOOT: 22,
  CAP_SYS_NICE: 23,
  CAP_SYS_RESOURCE: 24,
  CAP_SYS_TIME: 25,
  CAP_SYS_TTY_CONFIG: 26,
  CAP_MKNOD: 27,
  CAP_LEASE: 28,
  CAP_AUDIT_WRITE: 29,
  CAP_AUDIT_CONTROL: 30,
  CAP_SETFCAP: 31,
  CAP_MAC_OVERRIDE: 32,
  CAP_MAC_ADMIN: 33,
  CAP_SYSLOG: 34,
  CAP_WAKE_ALARM: 35,
  CAP_BLOCK_SUSPEND: 36,
  CAP_AUDIT_READ: 37,
  CAP_PERFMON: 38,
  CAP_BPF: 39,
  CAP_CHECKPOINT_RESTORE: 40,
} as const

export type CapabilityName = keyof typeof CAPABILITIES
