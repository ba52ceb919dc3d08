/* Verdicts, and the events that tell of them. */
#ifndef GUARD_VERDICT_H
#define GUARD_VERDICT_H

#define NO_CMD (~0U)

/* What an event says beside the task. */
struct judged {
	__u64 delegation;
	__u32 mode;
	__u16 point;
	__u8 reason;
	__u8 quiet; /* no event unless refused */
	__u32 cmd;
	__u32 type;
	__u32 events; /* enum guard_events */
	const void *name; /* 16 bytes, read for an event only; 0: none */
	__u64 holder; /* of GUARD_FULL */
};

static __noinline int record(struct guard_event *event)
{
	struct guard_totals *total = bpf_map_lookup_elem(&totals, &first);
	__u64 task = bpf_get_current_pid_tgid();

	event->time_ns = bpf_ktime_get_boot_ns();
	event->cgroup = bpf_get_current_cgroup_id();
	event->tgid = task >> 32;
	event->tid = task;
	event->uid = bpf_get_current_uid_gid();
	bpf_get_current_comm(event->task, sizeof(event->task));
	if (bpf_ringbuf_output(&events, event, sizeof(*event), 0) && total)
		__sync_fetch_and_add(&total->lost_events, 1);
	return 0;
}

static __noinline int count_verdict(__u32 verdict)
{
	struct guard_totals *total = bpf_map_lookup_elem(&totals, &first);

	if (total && verdict == GUARD_REFUSED)
		__sync_fetch_and_add(&total->refused, 1);
	else if (total && verdict == GUARD_WOULD_REFUSE)
		__sync_fetch_and_add(&total->would_refuse, 1);
	return 0;
}

static __always_inline int is_audited(void)
{
	struct guard_config *found = configuration();

	return !found || found->audit;
}

/* 1: refused. Records and counts. */
static __noinline int settle(const struct judged *what)
{
	struct guard_event event = {
		.delegation = what->delegation,
		.point = what->point,
		.reason = what->reason,
		.cmd = what->cmd,
		.type = what->type,
		.holder = what->holder,
	};

	if (what->reason != GUARD_NONE) {
		event.verdict = what->mode == GUARD_PERMISSIVE ? GUARD_WOULD_REFUSE : GUARD_REFUSED;
		count_verdict(event.verdict);
		if (what->events == GUARD_EVENTS_NONE && !is_audited())
			return event.verdict == GUARD_REFUSED;
	}
	if (what->name)
		bpf_probe_read_kernel(event.name, sizeof(event.name), what->name);
	record(&event);
	return event.verdict == GUARD_REFUSED;
}

/* The verdict for `reason`, recorded: 0, or `errno`, which is negative, and a constant where it is asked: verifiers want to see it. */
static __always_inline int judge(const struct judged *what, int errno)
{
	if (what->reason == GUARD_NONE && (what->quiet || (what->events != GUARD_EVENTS_ALL && !is_audited())))
		return 0;
	return settle(what) ? errno : 0;
}

/*
 * The same where the call may go on, because of a permissive policy: then it goes on as if nothing had been wrong, and no event says
 * that it was allowed.
 */
static __always_inline int pass(struct judged *what, int errno)
{
	int verdict;

	if (what->reason == GUARD_NONE)
		return 0;
	verdict = judge(what, errno);
	what->quiet = 1;
	what->reason = GUARD_NONE;
	return verdict;
}

/* What holds of all that a delegation is judged by. */
static __always_inline void under(struct judged *what, const struct guard_delegation *of)
{
	what->delegation = of->id;
	what->mode = of->terms.mode;
	what->events = of->terms.events;
}

/* The same for what belongs to no delegation. */
static __always_inline void under_host(struct judged *what, __u8 reason)
{
	what->mode = guard_mode_of_host();
	what->reason = reason;
}

/* What cannot be held to anything is refused, whatever the mode. */
static __always_inline void beyond_mode(struct judged *what, __u8 reason)
{
	what->mode = GUARD_ENFORCE;
	what->reason = reason;
}

/* The delegation by which the call is judged, and a first verdict in `what`; 0: there is none of this id. */
static __always_inline struct guard_delegation *judged_by(__u64 id, struct judged *what)
{
	struct guard_delegation *of = delegation_by(id);

	if (!of) {
		under_host(what, GUARD_UNREGISTERED);
		return 0;
	}
	under(what, of);
	what->reason = liveness(of, id);
	return of;
}

#endif
