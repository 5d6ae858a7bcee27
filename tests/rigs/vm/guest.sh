# The guest's first process after init.sh, run by the host's own /bin/sh on the overlay root.
#
# Starts udevd (LVM waits for it when it makes device links), runs the job and says on the control port first "ready",
# then "exit N"; the rig kills QEMU on hearing that, nothing is shut down in order.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
cd /run/rig
. ./job.sh

ln -sfn /proc/self/fd /dev/fd
ln -sf /proc/self/fd/0 /dev/stdin
ln -sf /proc/self/fd/1 /dev/stdout
ln -sf /proc/self/fd/2 /dev/stderr

if [ -n "$rig_address" ]; then
    modprobe virtio_net
    ./busybox ip link set eth0 up
    ./busybox ip address add "$rig_address" dev eth0
    ./busybox ip route add default via "$rig_gateway"
    rm -f /etc/resolv.conf
    echo "nameserver $rig_nameserver" > /etc/resolv.conf
fi

/lib/systemd/systemd-udevd --daemon
udevadm trigger --action=add --subsystem-match=block --subsystem-match=misc
udevadm settle --timeout=60

if [ "$rig_interactive" = yes ]; then
    echo ready > /dev/vport0p1
    # The size is set by the process that keeps the terminal open: it is forgotten with the last one.
    ./busybox setsid -c sh -c '
        . /run/rig/job.sh
        stty rows "$rig_rows" cols "$rig_columns"
        echo "A shell in the guest: its disks are blank, all it writes is gone at the end; exit ends it."
        rig_command
    ' <> /dev/hvc0 >&0 2>&1
    echo "exit $?" > /dev/vport0p1
else
    # A port can be opened once only, so the job gets pipes: its children may open /dev/stdout again.
    mkfifo out err
    ./busybox cat < out > /dev/vport0p2 &
    out_pid=$!
    ./busybox cat < err > /dev/vport0p3 &
    err_pid=$!
    echo ready > /dev/vport0p1
    (rig_command) < /dev/null > out 2> err
    status=$?
    # A daemon that the job left behind may hold the pipes open; it does not hold up the result.
    (sleep 2; kill "$out_pid" "$err_pid") 2> /dev/null &
    wait "$out_pid" "$err_pid"
    [ "$rig_results" != yes ] || sync -f /results
    echo "exit $status" > /dev/vport0p1
fi
# The first process must not end (the kernel would panic before the rig has read the console).
while :; do sleep 60; done
