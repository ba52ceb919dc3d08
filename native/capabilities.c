/* The capabilities that a program is left with, and what they are called. */
#include "launch.h"

#include <errno.h>
#include <linux/capability.h>
#include <string.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* By number, as capabilities(7) has them, without CAP_. */
static const char *const NAMES[] = {
	"chown",
	"dac_override",
	"dac_read_search",
	"fowner",
	"fsetid",
	"kill",
	"setgid",
	"setuid",
	"setpcap",
	"linux_immutable",
	"net_bind_service",
	"net_broadcast",
	"net_admin",
	"net_raw",
	"ipc_lock",
	"ipc_owner",
	"sys_module",
	"sys_rawio",
	"sys_chroot",
	"sys_ptrace",
	"sys_pacct",
	"sys_admin",
	"sys_boot",
	"sys_nice",
	"sys_resource",
	"sys_time",
	"sys_tty_config",
	"mknod",
	"lease",
	"audit_write",
	"audit_control",
	"setfcap",
	"mac_override",
	"mac_admin",
	"syslog",
	"wake_alarm",
	"block_suspend",
	"audit_read",
	"perfmon",
	"bpf",
	"checkpoint_restore",
};

uint64_t capability_named(const char *name, size_t length)
{
	if (length > 4 && strncasecmp(name, "cap_", 4) == 0)
		return capability_named(name + 4, length - 4);
	for (size_t i = 0; i < sizeof(NAMES) / sizeof(NAMES[0]); i++)
		if (strlen(NAMES[i]) == length && strncasecmp(NAMES[i], name, length) == 0)
			return 1ull << i;
	return 0;
}

void keep_only(uint64_t caps, bool ambient)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	uint64_t inheritable = ambient ? caps : 0;
	struct __user_cap_data_struct data[2] = {
		{ (uint32_t)caps, (uint32_t)caps, (uint32_t)inheritable },
		{ (uint32_t)(caps >> 32), (uint32_t)(caps >> 32), (uint32_t)(inheritable >> 32) },
	};

	/*
	 * Bounding set first, it needs CAP_SETPCAP. EINVAL ends it: past the kernel's last
	 * capability.
	 */
	for (int cap = 0; cap < 64; cap++)
		if (!(caps >> cap & 1) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0) {
			if (errno == EINVAL && cap > CAP_BPF)
				break;
			die("PR_CAPBSET_DROP");
		}
	if (syscall(SYS_capset, &header, data) < 0)
		die("capset");
	for (int cap = 0; ambient && cap < 64; cap++)
		if ((caps >> cap & 1) && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) < 0)
			die("PR_CAP_AMBIENT_RAISE");
}
