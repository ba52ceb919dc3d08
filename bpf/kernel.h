/* The few declarations that programs need: no header of the system is used, so that any machine compiles the same object. */
#ifndef KERNEL_H
#define KERNEL_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;

#define SEC(name) __attribute__((section(name), used))
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
};
enum { BPF_ANY = 0, BPF_NOEXIST = 1, BPF_EXIST = 2 };
enum { BPF_F_NO_PREALLOC = 1, BPF_LOCAL_STORAGE_GET_F_CREATE = 1 };
enum { BPF_TOKEN_CREATE = 36 };

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
static long (*bpf_probe_read_kernel)(void *to, __u32 bytes, const void *from) = (void *)113;
static long (*bpf_probe_read_kernel_str)(void *to, __u32 bytes, const void *from) = (void *)115;
static __u64 (*bpf_get_current_ancestor_cgroup_id)(int level) = (void *)123;
static __u64 (*bpf_ktime_get_boot_ns)(void) = (void *)125;
static long (*bpf_ringbuf_output)(void *ringbuf, void *data, __u64 size, __u64 flags) = (void *)130;
static void *(*bpf_inode_storage_get)(void *map, struct inode *inode, void *value, __u64 flags) = (void *)145;
static struct task_struct *(*bpf_get_current_task_btf)(void) = (void *)158;

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
	struct ns_common ns;
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
	__u16 i_mode;
	__u32 i_nlink;
	unsigned long i_ino;
	struct super_block *i_sb;
} __core;

struct dentry {
	struct inode *d_inode;
} __core;

struct path {
	struct dentry *dentry;
} __core;

struct file {
	const void *f_op;
	struct inode *f_inode;
	void *private_data;
} __core;

struct mm_struct {
	struct file *exe_file;
} __core;

struct cred {
	struct user_namespace *user_ns;
} __core;

struct task_struct {
	__u32 tgid;
	const struct cred *cred;
	__u64 start_boottime;
	struct task_struct *group_leader;
	struct mm_struct *mm;
} __core;

/* Of enums CO-RE compares the names. */
enum fs_context_purpose { FS_CONTEXT_FOR_MOUNT };
enum bpf_map_type { BPF_MAP_TYPE_UNSPEC };
enum bpf_prog_type { BPF_PROG_TYPE_UNSPEC };
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
	char name[16];
} __core;

struct bpf_prog_aux {
	struct bpf_token *token;
	char name[16];
} __core;

struct bpf_prog {
	enum bpf_prog_type type;
	__u32 len;
	struct bpf_prog_aux *aux;
} __core;

#endif
