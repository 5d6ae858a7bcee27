# An agent on a volume group of one disk, and a volume on it.
vgcreate --yes nvme /dev/nvme0n1
printf 'deviceClasses:\n- {name: fast, type: thick, volumeGroups: [nvme]}\n' > config.yaml
ullage standalone --config config.yaml &
until ullage pools; do sleep 1; done
ullage volume create db --size 64Mi
