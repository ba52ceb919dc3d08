/* The few declarations that programs need: no header of the system is used, so that any machine compiles the same object. */
#ifndef KERNEL_H
#define KERNEL_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;

#define SEC(name) __attribute__((section(name), used))
/* A program of the LSM hook `name`. guard-cost.bpf.c makes plain functions of them. */
#ifndef HOOK
#define HOOK(name) SEC("lsm/" name)
#endif
/* Something of the kernel's of which only the address matters. There, too, it is something else. */
#ifndef KERNEL_SYMBOL
#define KERNEL_SYMBOL(name) extern const void name __ksym
#endif
#define __uint(name, value) int(*name)[value]
#define __type(name, value) typeof(value) *name
#define __noinline __attribute__((noinline))
#define __always_inline inline __attribute__((always_inline))
#define __ksym __attribute__((section(".ksyms")))
#define __core __attribute__((preserve_access_index))

enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_RINGBUF = 27,
	BPF_MAP_TYPE_INODE_STORAGE = 28,
	BPF_MAP_TYPE_TASK_STORAGE = 29,
};
enum { BPF_ANY = 0, BPF_NOEXIST = 1, BPF_EXIST = 2 };
enum { BPF_F_NO_PREALLOC = 1, BPF_LOCAL_STORAGE_GET_F_CREATE = 1 };

/* Commands of bpf(2). */
enum {
	BPF_MAP_CREATE = 0,
	BPF_PROG_LOAD = 5,
	BPF_MAP_UPDATE_ELEM = 2,
	BPF_PROG_ATTACH = 8,
	BPF_PROG_DETACH = 9,
	BPF_PROG_TEST_RUN = 10,
	BPF_PROG_GET_NEXT_ID = 11,
	BPF_MAP_GET_NEXT_ID = 12,
	BPF_PROG_GET_FD_BY_ID = 13,
	BPF_MAP_GET_FD_BY_ID = 14,
	BPF_PROG_QUERY = 16,
	BPF_RAW_TRACEPOINT_OPEN = 17,
	BPF_BTF_LOAD = 18,
	BPF_BTF_GET_FD_BY_ID = 19,
	BPF_TASK_FD_QUERY = 20,
	BPF_MAP_FREEZE = 22,
	BPF_BTF_GET_NEXT_ID = 23,
	BPF_MAP_UPDATE_BATCH = 26,
	BPF_LINK_CREATE = 28,
	BPF_LINK_UPDATE = 29,
	BPF_LINK_GET_FD_BY_ID = 30,
	BPF_LINK_GET_NEXT_ID = 31,
	BPF_ENABLE_STATS = 32,
	BPF_ITER_CREATE = 33,
	BPF_LINK_DETACH = 34,
	BPF_PROG_BIND_MAP = 35,
	BPF_TOKEN_CREATE = 36,
	BPF_PROG_ASSOC_STRUCT_OPS = 38,
};

/* Numbers of helpers: include/uapi/linux/bpf.h, ___BPF_FUNC_MAPPER. */
struct inode;
struct task_struct;
static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static __u64 (*bpf_get_current_pid_tgid)(void) = (void *)14;
static __u64 (*bpf_get_current_uid_gid)(void) = (void *)15;
static long (*bpf_get_current_comm)(void *buf, __u32 bytes) = (void *)16;
static __u64 (*bpf_get_current_cgroup_id)(void) = (void *)80;
static long (*bpf_probe_read_user)(void *to, __u32 bytes, const void *from) = (void *)112;
static long (*bpf_probe_read_kernel)(void *to, __u32 bytes, const void *from) = (void *)113;
static long (*bpf_probe_read_kernel_str)(void *to, __u32 bytes, const void *from) = (void *)115;
static __u64 (*bpf_get_current_ancestor_cgroup_id)(int level) = (void *)123;
static __u64 (*bpf_ktime_get_boot_ns)(void) = (void *)125;
static __u64 (*bpf_jiffies64)(void) = (void *)118;
static long (*bpf_ringbuf_output)(void *ringbuf, void *data, __u64 size, __u64 flags) = (void *)130;
static void *(*bpf_inode_storage_get)(void *map, struct inode *inode, void *value, __u64 flags) = (void *)145;
static void *(*bpf_task_storage_get)(void *map, struct task_struct *task, void *value, __u64 flags) = (void *)156;
static long (*bpf_loop)(__u32 count, void *callback, void *context, __u64 flags) = (void *)181;
static struct task_struct *(*bpf_get_current_task_btf)(void) = (void *)158;

/*
 * The same address, as the kernel's structure of that type: a read through it gives 0 where there is
 * nothing. It is no call when it runs.
 */
extern void *bpf_rdonly_cast(const void *address, __u32 type) __ksym;

/*
 * A field of a structure that the verifier does not follow, wherever the running kernel has it. The
 * comma takes `const` away, which has no name in the kernel's types.
 */
#define READ(ptr, field)                                                                                              \
	(((typeof(ptr))bpf_rdonly_cast(ptr, __builtin_btf_type_id(*(typeof(((void)0, *(ptr))) *)0, 1)))->field)

/* The structure that `ptr` is the field of. */
#define CONTAINER(ptr, type, field)                                                                                   \
	((type *)((char *)(ptr) - __builtin_preserve_field_info(((type *)0)->field, 0)))

/* Bit fields: where the bytes are that hold one, and how to shift it out of them (clang's field info kinds). */
#define READ_BITS(ptr, field)                                                                                         \
	({                                                                                                            \
		__u64 bits_ = 0;                                                                                      \
		bpf_probe_read_kernel(&bits_, __builtin_preserve_field_info((ptr)->field, 1),                         \
				      (const void *)(ptr) + __builtin_preserve_field_info((ptr)->field, 0));          \
		bits_ << __builtin_preserve_field_info((ptr)->field, 4) >>                                            \
			__builtin_preserve_field_info((ptr)->field, 5);                                               \
	})

/* The kernel's types: only the fields in use, found in the running kernel by CO-RE. */
struct ns_common {
	__u32 inum;
} __core;

struct user_namespace {
	struct user_namespace *parent;
	struct ns_common ns;
} __core;

struct bpf_prog;

struct netns_bpf {
	struct bpf_prog *progs[1];
} __core;

struct net {
	struct ns_common ns;
	struct netns_bpf bpf;
} __core;

struct nsproxy {
	struct net *net_ns;
} __core;

struct file_system_type {
	const char *name;
} __core;

struct dentry;

struct super_block {
	__u32 s_dev;
	unsigned long s_magic;
	struct dentry *s_root;
	void *s_fs_info;
	struct user_namespace *s_user_ns;
} __core;

struct inode {
	unsigned long i_ino;
	void *i_private;
	struct super_block *i_sb;
} __core;

struct dentry {
	struct inode *d_inode;
	struct dentry *d_parent;
} __core;

struct vfsmount {
	struct super_block *mnt_sb;
} __core;

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
	__u64 mnt_id_unique;
} __core;

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
} __core;

struct file {
	const void *f_op;
	struct inode *f_inode;
	void *private_data;
} __core;

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
} __core;

typedef struct {
	int counter;
} __core atomic_t;

struct files_struct {
	atomic_t count; /* tasks whose table of descriptors it is */
	struct fdtable *fdt;
} __core;

/* Pointers by number: a tree of nodes, each with as many places as a part of the number has values. */
struct xa_node {
	unsigned char shift;
	void *slots[1];
} __core;

struct xarray {
	void *xa_head;
} __core;

struct idr {
	struct xarray idr_rt;
	unsigned int idr_next;
} __core;

struct mm_struct {
	struct file *exe_file;
} __core;

typedef struct {
	__u64 val;
} __core kernel_cap_t;

struct cred {
	struct user_namespace *user_ns;
	kernel_cap_t cap_effective;
} __core;

struct pid {
	unsigned int level;
} __core;

struct kernfs_node {
	void *priv; /* of a directory of cgroup2: struct cgroup */
	const char *name;
	__u64 id;
} __core;

struct cgroup_subsys_state {
	struct cgroup_subsys_state *parent;
} __core;

struct hlist_node {
	struct hlist_node *next;
} __core;

struct hlist_head {
	struct hlist_node *first;
} __core;

/* Programs that are attached to a cgroup: a list and its flags for each of the kernel's own attach types. */
struct cgroup_bpf {
	struct hlist_head progs[1];
	__u8 flags[1];
} __core;

struct bpf_prog_list {
	struct hlist_node node;
	struct bpf_prog *prog;
} __core;

struct cgroup {
	struct cgroup_subsys_state self;
	struct kernfs_node *kn;
	struct cgroup_bpf bpf;
} __core;

struct css_set {
	struct cgroup *dfl_cgrp;
} __core;

struct task_struct {
	__u32 tgid;
	const struct cred *real_cred;
	__u64 start_boottime;
	struct task_struct *group_leader;
	struct mm_struct *mm;
	struct nsproxy *nsproxy;
	struct files_struct *files;
	struct pid *thread_pid;
	struct css_set *cgroups;
} __core;

/* Of enums CO-RE compares the names. */
enum fs_context_purpose { FS_CONTEXT_FOR_MOUNT };
enum bpf_map_type {
	BPF_MAP_TYPE_UNSPEC,
	BPF_MAP_TYPE_PROG_ARRAY = 3,
	BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
	BPF_MAP_TYPE_HASH_OF_MAPS = 13,
	BPF_MAP_TYPE_DEVMAP = 14,
	BPF_MAP_TYPE_SOCKMAP = 15,
	BPF_MAP_TYPE_CPUMAP = 16,
	BPF_MAP_TYPE_XSKMAP = 17,
	BPF_MAP_TYPE_SOCKHASH = 18,
	BPF_MAP_TYPE_REUSEPORT_SOCKARRAY = 20,
	BPF_MAP_TYPE_DEVMAP_HASH = 25,
	BPF_MAP_TYPE_STRUCT_OPS = 26,
	BPF_MAP_TYPE_USER_RINGBUF = 31,
	BPF_MAP_TYPE_ARENA = 33,
};
enum bpf_prog_type { BPF_PROG_TYPE_UNSPEC, BPF_PROG_TYPE_TRACING = 26, BPF_PROG_TYPE_STRUCT_OPS, BPF_PROG_TYPE_EXT, BPF_PROG_TYPE_LSM };
enum bpf_attach_type {
	BPF_CGROUP_INET_INGRESS,
	BPF_SK_SKB_STREAM_PARSER = 4,
	BPF_SK_SKB_STREAM_VERDICT = 5,
	BPF_SK_MSG_VERDICT = 7,
	BPF_LIRC_MODE2 = 16,
	BPF_FLOW_DISSECTOR = 17,
	BPF_TRACE_RAW_TP = 23,
	BPF_TRACE_FENTRY = 24,
	BPF_TRACE_FEXIT = 25,
	BPF_MODIFY_RETURN = 26,
	BPF_LSM_MAC = 27,
	BPF_TRACE_ITER = 28,
	BPF_XDP_DEVMAP = 33,
	BPF_XDP_CPUMAP = 35,
	BPF_SK_LOOKUP = 36,
	BPF_XDP = 37,
	BPF_SK_SKB_VERDICT = 38,
	BPF_SK_REUSEPORT_SELECT = 39,
	BPF_SK_REUSEPORT_SELECT_OR_MIGRATE = 40,
	BPF_PERF_EVENT = 41,
	BPF_TRACE_KPROBE_MULTI = 42,
	BPF_STRUCT_OPS = 44,
	BPF_NETFILTER = 45,
	BPF_TCX_INGRESS = 46,
	BPF_TCX_EGRESS = 47,
	BPF_TRACE_UPROBE_MULTI = 48,
	BPF_NETKIT_PRIMARY = 54,
	BPF_NETKIT_PEER = 55,
	BPF_TRACE_KPROBE_SESSION = 56,
	BPF_TRACE_UPROBE_SESSION = 57,
};
enum fs_value_type { fs_value_is_undefined, fs_value_is_flag, fs_value_is_string };

struct fs_parameter {
	const char *key;
	enum fs_value_type type : 8;
	char *string;
} __core;

struct fs_context {
	struct file_system_type *fs_type;
	void *s_fs_info;
	struct dentry *root;
	enum fs_context_purpose purpose : 8;
	_Bool oldapi : 1;
} __core;

struct bpf_mount_opts {
	__u64 delegate_cmds, delegate_maps, delegate_progs, delegate_attachs;
} __core;

struct bpf_token {
	struct user_namespace *userns;
} __core;

struct bpf_map {
	enum bpf_map_type map_type;
	__u32 key_size;
	__u32 value_size;
	__u32 max_entries;
	__u32 map_flags;
	__u32 id;
	char name[16];
} __core;

struct btf {
	__u32 id;
} __core;

enum bpf_link_type { BPF_LINK_TYPE_UNSPEC, BPF_LINK_TYPE_CGROUP = 3, BPF_LINK_TYPE_NETNS = 5, BPF_LINK_TYPE_STRUCT_OPS = 9 };

struct bpf_link {
	__u32 id;
	enum bpf_link_type type;
	struct bpf_prog *prog;
} __core;

struct bpf_struct_ops_link {
	struct bpf_map *map;
} __core;

struct bpf_cgroup_link {
	struct cgroup *cgroup;
} __core;

struct bpf_netns_link {
	struct net *net;
} __core;

struct bpf_prog_aux {
	__u32 id;
	struct bpf_token *token;
	struct btf *attach_btf;
	__u32 attach_btf_id;
	char name[16];
} __core;

struct bpf_prog {
	enum bpf_prog_type type;
	enum bpf_attach_type expected_attach_type;
	__u32 len;
	__u8 tag[8];
	struct bpf_prog_aux *aux;
} __core;

/* Since Linux 6.18 the tag is the beginning of this. */
struct bpf_prog___sha256 {
	__u8 digest[32];
} __core;

#endif
