vgcreate --yes nvme /dev/nvme0n1
printf 'deviceClasses:\n- {name: fast, type: thick, volumeGroups: [nvme]}\n' > config.yaml
