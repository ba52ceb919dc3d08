#!/bin/sh
# The least policy for an object, and then the object under just that policy. As root.
set -eu
object=${1:-examples/library/filter.bpf.o}
policy=$(mktemp)
trap 'rm -f "$policy"' EXIT
bpftoken plan --loader bpftoken "$object" > "$policy"
bpftoken policy check "$policy"
bpftoken run --policy "$policy" -- bpftoken obj load "$object" --set port=8080 --set mode=MODE_DROP
