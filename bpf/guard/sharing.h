/* Sharing: a delegated bpffs stays in its place, a token with its workload, unless the policy says otherwise. */
#ifndef GUARD_SHARING_H
#define GUARD_SHARING_H

/* Whether a link, or what it is of, may be put to work by the current task, as bpf(2) judges it. */
static __noinline int guard_iterator(struct bpf_link *link)
{
	struct judged what = { .point = GUARD_ATTACH, .cmd = NO_CMD, .type = BPF_TRACE_ITER };
	struct guard_delegation *of = owner_of_link(link, &what);

	return judge_object(of, &what);
}

/*
 * A token that is opened again through /proc has no private data, and kernels up to 7.3 at least
 * crash on its use. Refused in every mode. A token is made without being opened.
 *
 * The pin of an iterator is a file whose reading runs the program: to open it is to attach.
 */
HOOK("file_open")
int guard_file_open(__u64 *ctx)
{
	struct file *file = (void *)ctx[0];
	struct judged what = { .point = GUARD_REOPEN, .cmd = NO_CMD };

	if (file->f_op == &bpf_iter_fops)
		return guard_iterator((struct bpf_link *)READ(file->f_inode, i_private));
	if (file->f_op != &bpf_token_fops)
		return 0;
	what.mode = GUARD_ENFORCE;
	what.reason = GUARD_REOPENED;
	return judge(&what, -EACCES);
}

/*
 * Descriptors travel by SCM_RIGHTS and pidfd_getfd(2). Whoever holds a token and has the capabilities there can use it, the host's
 * root for one; whoever holds a program may attach it in his own network, where it takes no capability. A map that carries devices is held to its user
 * namespace where the host's network is out of reach. Fork and exec do not come by here.
 */
HOOK("file_receive")
int guard_file_receive(__u64 *ctx)
{
	struct file *file = (void *)ctx[0];
	struct judged what = { .point = GUARD_RECEIVE, .cmd = NO_CMD };
	struct guard_delegation *of;
	struct guard_token *entry;
	struct bpf_token *token;

	if (file->f_op == &bpf_token_fops) {
		token = file->private_data;
	} else if (file->f_op == &bpf_prog_fops) {
		struct bpf_prog *prog = file->private_data;

		token = READ(READ(prog, aux), token);
		if (!token)
			return 0;
	} else {
		return file->f_op == &bpf_map_fops ? guard_passed_map(file->private_data) : 0;
	}
	of = delegation_of((__u64)token, &what, &entry);
	/* Of a token that is revoked nothing can be made; what counts here is where it goes. */
	if (of) {
		what.reason = GUARD_NONE;
		if (!(of->terms.flags & GUARD_PASS_TOKEN) &&
		    bpf_get_current_task_btf()->real_cred->user_ns != READ(token, userns))
			what.reason = GUARD_STRANGER;
	}
	return judge(&what, -EACCES);
}

/*
 * The mount that fsmount(2) made is put somewhere once. A copy of it (open_tree(2)) is another mount; mount(2) can still bind or move
 * it without coming by here, and then no token is made there: see is_in_place().
 */
HOOK("move_mount")
int guard_move_mount(__u64 *ctx)
{
	const struct path *from = (void *)ctx[0];
	struct mount *mount = CONTAINER(from->mnt, struct mount, mnt);
	struct judged what = { .point = GUARD_MOVE, .cmd = NO_CMD };
	__u64 at = (__u64)from->mnt->mnt_sb, id = READ(mount, mnt_id_unique), known, *delegation;
	struct guard_delegation *of;
	struct guard_usage *usage;

	if (from->mnt->mnt_sb->s_magic != BPF_FS_MAGIC)
		return 0;
	delegation = bpf_map_lookup_elem(&superblocks, &at);
	if (!delegation)
		return 0;
	of = delegation_by(*delegation);
	usage = usage_by(*delegation);
	if (!of || !usage)
		return 0;
	under(&what, of);
	if (!(of->terms.flags & GUARD_BIND_MOUNT)) {
		known = __sync_val_compare_and_swap(&usage->mount, 0, id);
		/* Its own parent: it is nowhere yet. */
		if ((known && known != id) || READ(mount, mnt_parent) != mount)
			what.reason = GUARD_ELSEWHERE;
	}
	return judge(&what, -EACCES);
}

#endif
