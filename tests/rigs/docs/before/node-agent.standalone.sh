mkdir -p /var/tmp/ullage
printf 'deviceClasses:\n- {name: files, type: file, directory: /var/tmp/ullage}\n' > config.yaml
