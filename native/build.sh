#!/bin/sh
# Compiles what is native into DIR: the addon as ADDON, and the programs: bpftoken-launch,
# bpftoken-executor, bpftoken-run, bpftoken-hook, bpftoken-runc, bpftoken-launchd, bpftoken-hold.
#
#   native/build.sh DIR ADDON [programs]
#
# Only a C compiler and Node's headers are needed. From the environment: CC, CFLAGS and LDFLAGS as
# usual, NODE_INCLUDE for the headers. With "-" for ADDON only the programs are made, without
# "programs" only the addon. Each file is put in place when it is complete: what runs keeps the one
# that it was started from.
set -eu
native=$(dirname "$0")
out=$1
addon=$2
programs=${3-}
cc=${CC:-cc}
FLAGS='-std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -Werror -fstack-protector-strong -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2'

mkdir -p "$out"
partial=$out/.partial-$$
trap 'rm -f "$partial" "$partial.c"' EXIT

# compile NAME ARGUMENT...
compile() {
	name=$1
	shift
	# CC and the flags are lists of words.
	# shellcheck disable=SC2086
	$cc $FLAGS ${CFLAGS-} "$@" ${LDFLAGS-} -o "$partial"
	mv -f "$partial" "$out/$name"
}

if [ "$addon" != - ]; then
	compile "$addon" -DNAPI_VERSION=8 -I"$NODE_INCLUDE" -fPIC -shared "$native"/addon.c "$native"/aside.c \
		"$native"/call.c "$native"/memory.c "$native"/poll.c "$native"/socket.c "$native"/tasks.c "$native"/write.c
fi

if [ "$programs" = programs ]; then
	# Linked statically where there is a static C library: they are executed again for each plan and each run.
	static=-static
	echo 'int main(void) { return 0; }' >"$partial.c"
	# shellcheck disable=SC2086
	$cc ${CFLAGS-} $static "$partial.c" ${LDFLAGS-} -o "$partial" 2>/dev/null || static=
	set -- "$native"/capabilities.c "$native"/loopback.c "$native"/program.c "$native"/terminal.c "$native"/text.c
	# shellcheck disable=SC2086
	compile bpftoken-launch $static "$native"/launch.c "$native"/watch.c "$@"
	compile bpftoken-run $static "$native"/run/*.c "$native"/client/*.c "$native"/launched.c "$@"
	compile bpftoken-launchd $static "$native"/launchd/*.c "$native"/launched.c "$native"/text.c
	compile bpftoken-executor $static "$native"/executor/*.c
	compile bpftoken-hold $static "$native"/hold/*.c
	# It runs beside the start of a container, where each page counts that it maps.
	compile bpftoken-hook $static -Wl,--gc-sections -ffunction-sections "$native"/hook/*.c "$native"/client/*.c "$native"/text.c
	compile bpftoken-runc $static -Wl,--gc-sections -ffunction-sections "$native"/runc/*.c "$native"/client/json.c "$native"/text.c
fi
