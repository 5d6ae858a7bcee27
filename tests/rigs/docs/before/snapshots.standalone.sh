# A directory whose files share blocks, two volumes in it that are used, and snapshots of one.
mkdir -p /var/tmp/ullage
truncate --size 4G /var/tmp/disk
mkfs.xfs -q -m reflink=1 /var/tmp/disk
mount -o loop /var/tmp/disk /var/tmp/ullage
printf 'deviceClasses:\n- {name: files, type: file, directory: /var/tmp/ullage}\n' > config.yaml
ullage standalone --config config.yaml --private-mounts &
until ullage pools; do sleep 0.2; done
for volume in db wal; do
  ullage volume create $volume --size 300Mi
  ullage volume mount $volume /srv/$volume
done
ullage snapshot create monday --source db
echo more > /srv/db/more
ullage snapshot create friday --source db
