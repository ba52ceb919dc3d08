# The first process of a VM becomes a systemd, with a file system and mounts of its own: the tree of
# .cache/vm/systemd, and this build in it, as the package for Debian installs it. /run and the
# guard's pins are the VM's. Who uses it writes units and files below /proc/1/root.
# In the file system and mounts that the kernel looks for modprobe in.
modprobe overlay
export tree="$1" repository="$2"
exec unshare --mount --propagation private sh -ec '
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
cd /mnt/upper
mkdir -p etc/systemd/system usr/bin usr/lib/x86_64-linux-gnu usr/lib/bpftoken old
printf "[Unit]\nDefaultDependencies=no\n" >etc/systemd/system/default.target
echo ID=test >etc/os-release
: >etc/machine-id
cp /etc/passwd /etc/group etc/
: >usr/bin/node
: >usr/lib/x86_64-linux-gnu/libstdc++.so.6
mount -t overlay -o "lowerdir=$tree,upperdir=/mnt/upper,workdir=/mnt/work" overlay /mnt/root
cd /mnt/root
for name in dev proc sys run; do mount --rbind /$name $name; done
for name in usr/bin/node usr/lib/x86_64-linux-gnu/libstdc++.so.6; do mount --bind /$name $name; done
mount --rbind "$repository" usr/lib/bpftoken
pivot_root . old
/bin/busybox umount -l /old
exec /bin/busybox env -i /lib/systemd/systemd --log-target=console --show-status=no
'
