# What systemd is on a node that has one: brings up disks, network and programs, and starts again what ends.
#
# Runs as the guest's job, in the directory that settings.py has filled. It never ends: the rig cuts the power.
. ./settings.sh

say() { echo "node: $(cut -d ' ' -f 1 /proc/uptime) $*"; }

# The host's own files are below the root (overlay): mounts on it are to reach Pods, and the Pods' mounts kubelet.
mount --make-rshared /

# As systemd's system.slice: the node's own programs weigh together against Pods, not each for itself.
mkdir /sys/fs/cgroup/system
echo $$ > /sys/fs/cgroup/system/cgroup.procs

# Each further thread that looks for work is dear where processors are emulated.
export GOMAXPROCS=1

keep() {
    name=$1
    shift
    while :; do
        "$@" >> "/results/$name.log" 2>&1
        echo "node: $name ended with $?, and is started again" >> "/results/$name.log"
        sleep 1
    done &
}

keep commands /usr/bin/python3 -S -E commands.py "$commands_port"

say "state disk"
state=/dev/disk/by-id/virtio-ullage-state
for directory in var/lib/kubelet var/lib/containerd var/log; do
    mkdir -p "/state/$directory" "/$directory"
done
mount "$state" /state || exit 1
for directory in var/lib/kubelet var/lib/containerd var/log; do
    mkdir -p "/state/$directory"
    mount --bind "/state/$directory" "/$directory"
done
mkdir -p /var/lib/ullage
mount /dev/disk/by-id/virtio-ullage-files /var/lib/ullage
mkdir -p /var/lib/ullage/files
mkdir -p /etc/cni/net.d /etc/kubernetes
cp cni.conflist /etc/cni/net.d/10-pods.conflist
: > /etc/kubernetes/resolv.conf
echo 1 > /proc/sys/net/ipv4/ip_forward

keep containerd "$containerd" --config containerd.toml

groups() {
    # Once in the life of a node's disks. LVM is slow here, and kubelet need not wait for it.
    if [ ! -e /state/groups-are-made ]; then
        # shellcheck disable=SC2086
        [ -z "$nvme_disks" ] || lvm vgcreate --quiet nvme $nvme_disks
        lvm vgcreate --quiet pooled "$pooled_disk"
        lvm lvcreate --quiet --yes --type thin-pool --extents 90%FREE --name thin pooled
        sync
        touch /state/groups-are-made
    fi
    lvm vgchange --quiet --activate ay
    say "volume groups are there"
    touch /run/rig/groups
}
groups &

say "kubelet"
keep kubelet "$kubelet" --config kubelet.yaml --kubeconfig kubelet.kubeconfig --hostname-override "$node_name" \
    --node-ip "$node_address" --node-labels "$node_labels" \
    --housekeeping-interval "$statistics_seconds"s --v 2
keep kube-proxy "$kube_proxy" --config kube-proxy.yaml --hostname-override "$node_name" --v 1
say "up"
wait
