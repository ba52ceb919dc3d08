/*
 * Self-protection: the guard's maps cannot be opened, nor its pins removed or others put beside
 * them, by a task that has not said that it means to. The word is no secret; but no program says it
 * by accident, and none in a container may.
 */
#ifndef GUARD_PROTECT_H
#define GUARD_PROTECT_H

static __always_inline int is_keeper(void)
{
	__u32 *mark = bpf_task_storage_get(&keepers, bpf_get_current_task_btf()->group_leader, 0, 0);

	return mark && *mark;
}

/* For the host's root, outside of any container. */
static __noinline int make_keeper(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct judged what = { .point = GUARD_PROTECT, .cmd = NO_CMD, .mode = GUARD_ENFORCE };
	struct pid *pid = READ(task, thread_pid);
	__u32 *mark;

	if (!is_host_admin(task) || !pid || READ(pid, level) != 0) {
		what.reason = GUARD_NO_KEEPER;
		return judge(&what, -EPERM);
	}
	mark = bpf_task_storage_get(&keepers, task->group_leader, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!mark)
		return -EPERM;
	*mark = 1;
	return 0;
}

static int guard_passed_map(struct bpf_map *map);

/*
 * A map becomes a descriptor. For reading too: a program that is loaded with it could write. ENOENT, because lists of maps go on after
 * that, and end at any other error.
 */
HOOK("bpf_map")
int guard_map(__u64 *ctx)
{
	struct bpf_map *map = (void *)ctx[0];
	struct judged what = { .point = GUARD_PROTECT, .cmd = NO_CMD, .mode = GUARD_ENFORCE };
	struct guard_config *found = configuration();
	__u32 id = map->id;

	if (!found || id < found->first_map || id > found->last_map || !bpf_map_lookup_elem(&own_maps, &id) || is_keeper()) {
		__u32 type = map->map_type;

		return type < 64 && DEVICE_MAPS >> type & 1 ? guard_passed_map(map) : 0;
	}
	what.reason = GUARD_NO_KEEPER;
	what.name = map->name;
	what.type = map->map_type;
	return judge(&what, -ENOENT);
}

/* Whether this is the directory of the guard's pins, or something in it. */
static __noinline int is_own_pin(struct dentry *entry)
{
	struct guard_config *found = configuration();

	if (!found || !found->pin_inode)
		return 0;
	for (int depth = 0; entry && depth < 3; depth++) {
		struct inode *inode = READ(entry, d_inode);

		if (inode && READ(inode, i_ino) == found->pin_inode)
			return 1;
		entry = READ(entry, d_parent);
	}
	return 0;
}

static __always_inline int judge_pin(const struct inode *directory, struct dentry *entry)
{
	struct judged what = { .point = GUARD_PROTECT, .cmd = NO_CMD, .mode = GUARD_ENFORCE };
	struct super_block *sb = directory->i_sb;
	struct guard_config *found;

	if (sb->s_magic != BPF_FS_MAGIC)
		return 0;
	found = configuration();
	if (!found || sb->s_dev != found->pin_device || !is_own_pin(entry) || is_keeper())
		return 0;
	what.reason = GUARD_NO_KEEPER;
	return judge(&what, -EPERM);
}

HOOK("inode_unlink")
int guard_unlink(__u64 *ctx)
{
	return judge_pin((void *)ctx[0], (void *)ctx[1]);
}

HOOK("inode_rmdir")
int guard_rmdir(__u64 *ctx)
{
	return judge_pin((void *)ctx[0], (void *)ctx[1]);
}

/* A pin is made as a file is. */
HOOK("inode_create")
int guard_create(__u64 *ctx)
{
	return judge_pin((void *)ctx[0], (void *)ctx[1]);
}

HOOK("inode_mkdir")
int guard_mkdir(__u64 *ctx)
{
	return judge_pin((void *)ctx[0], (void *)ctx[1]);
}

HOOK("inode_mknod")
int guard_mknod(__u64 *ctx)
{
	return judge_pin((void *)ctx[0], (void *)ctx[1]);
}

HOOK("inode_symlink")
int guard_symlink(__u64 *ctx)
{
	return judge_pin((void *)ctx[0], (void *)ctx[1]);
}

/* Another name of a pin, there or of one that is there. */
HOOK("inode_link")
int guard_link(__u64 *ctx)
{
	struct inode *directory = (void *)ctx[1];
	int verdict = judge_pin(directory, (void *)ctx[0]);

	return verdict ? verdict : judge_pin(directory, (void *)ctx[2]);
}

/* Owner and mode. */
HOOK("inode_setattr")
int guard_setattr(__u64 *ctx)
{
	struct dentry *entry = (void *)ctx[1];
	/* Newer verifiers want to know that there is one. */
	struct inode *inode = entry->d_inode;

	return inode ? judge_pin(inode, entry) : 0;
}

HOOK("inode_rename")
int guard_rename(__u64 *ctx)
{
	int verdict = judge_pin((void *)ctx[0], (void *)ctx[1]);

	return verdict ? verdict : judge_pin((void *)ctx[2], (void *)ctx[3]);
}

#endif
