#!/bin/sh
# The guest's first process, in the initramfs, run by busybox.
#
# It builds a root from the host's files (9p, read-only) under a memory layer (overlay, tmpfs), so that the guest may
# write anywhere and the host never changes, and hands over to guest.sh. The kernel's command line says where on the
# host the job of this run is (ullage.job=DIR, written by machine.py).
set -e
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys

while read -r module; do
    insmod "/modules/$module"
done < /modules/order

job=
for word in $(cat /proc/cmdline); do
    case "$word" in
    ullage.job=*) job=${word#ullage.job=} ;;
    ullage.probe) echo ready > /dev/vport0p1; exec poweroff -f ;;
    esac
done

mount -t tmpfs -o mode=755 overlay /layer
mkdir /layer/upper /layer/work
nine=trans=virtio,version=9p2000.L,msize=512000
mount -t 9p -o "ro,cache=loose,$nine" root /host
mount -t overlay -o lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work root /guest

. "/host$job/job.sh"

# What lies on the host below a directory that the guest mounts anew (a tree in /tmp, say) is held here meanwhile.
mkdir /held
mount --bind "/guest$rig_tree" /held
mkdir -p /guest/usr/lib/modules /guest/results
mount --bind "/host$rig_modules" /guest/usr/lib/modules

mount --move /dev /guest/dev
mkdir -p /guest/dev/pts /guest/dev/shm
# Opening these loads their modules; systemd would have made the nodes.
mknod -m 660 /guest/dev/btrfs-control c 10 234
mknod -m 666 /guest/dev/fuse c 10 229
mount -t devpts -o mode=620,gid=5,ptmxmode=666 devpts /guest/dev/pts
mount -t tmpfs -o mode=1777 shm /guest/dev/shm
mount -t tmpfs -o mode=755 run /guest/run
mount -t tmpfs -o mode=1777 tmp /guest/tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
case "$rig_tree/" in
/tmp/* | /run/* | /dev/*)
    mkdir -p "/guest$rig_tree"
    mount --move /held "/guest$rig_tree"
    ;;
esac
if [ "$rig_results" = yes ]; then
    # No cache: a file is on the host as soon as it is written, even when the run is cut off.
    mount -t 9p -o "cache=none,$nine" results /guest/results
fi

mkdir -m 700 /guest/run/rig /guest/run/lock
cp "/host$job/job.sh" "/host$job/guest.sh" /bin/busybox /guest/run/rig/
hostname "$rig_hostname"
printf '127.0.0.1 localhost %s\n::1 localhost\n' "$rig_hostname" > /guest/etc/hosts
ip link set lo up

mount --move /proc /guest/proc
mount --move /sys /guest/sys
exec switch_root /guest /bin/sh /run/rig/guest.sh
