#!/bin/busybox sh
# The first process of a VM: makes the machine that a test expects, runs /job/run, says how it
# ended, powers off. Kernel messages go to ttyS0; ttyS1 carries the output of the job and, marked,
# the words of this script.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# The root file system that boot made cannot be pivoted away from; a bind mount of it on top can.
mount --bind / /mnt
cd /mnt
mount --move . /
exec chroot . /bin/sh -c '
# A file system for what does not stay. Not above the repository: it would hide it.
volatile() {
	case "$(readlink /repository)" in
	"$1"/*) ;;
	*) mount -t tmpfs -o "nosuid,nodev,mode=$2" tmpfs "$1" ;;
	esac
}
mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
mount -t devtmpfs -o nosuid,mode=755 devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o nosuid,noexec,gid=5,mode=620,ptmxmode=666 devpts /dev/pts
volatile /dev/shm 1777
volatile /run 755
volatile /tmp 1777
mount -t securityfs securityfs /sys/kernel/security
mount -t tracefs tracefs /sys/kernel/tracing
mount -t debugfs debugfs /sys/kernel/debug
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 /sys/fs/cgroup
mount -t bpf -o nosuid,nodev,noexec,mode=700 bpf /sys/fs/bpf
mount --make-rshared /
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin
ln -s /proc/self/fd/1 /dev/stdout
ln -s /proc/self/fd/2 /dev/stderr
mkdir -p /run/out
ifconfig lo up
hostname vm

exec </dev/null >/dev/ttyS1 2>&1
stty -F /dev/ttyS1 raw -echo
mark=$(cat /job/mark)
printf "\036%s up %s\n" "$mark" "$(cut -d" " -f1 /proc/uptime)"

job() {
	# It finds a systemd that has started.
	while [ -e /job/first ] && [ ! -S /run/systemd/private ]; do sleep 0.2; done
	# It sees a pipe, not a terminal.
	mkfifo /run/pipe
	cat </run/pipe >/dev/ttyS1 &
	cat=$!
	/bin/sh /job/run >/run/pipe 2>&1
	status=$?
	# What the job left running may hold the pipe open; it is not waited for.
	tries=0
	while kill -0 $cat 2>/dev/null && [ $tries -lt 20 ]; do tries=$((tries + 1)); sleep 0.05; done

	printf "\036%s exit %s\n" "$mark" "$status"
	if [ -n "$(ls -A /run/out)" ]; then tar -C /run/out -c .; fi
	stty -F /dev/ttyS1 raw -echo # Waits until all is sent.
	poweroff -f
}
if [ ! -e /job/first ]; then job; fi
job &
exec /bin/sh /job/first
'
