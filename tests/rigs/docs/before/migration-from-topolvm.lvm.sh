printf 'deviceClasses:\n- {name: ssd, type: thick, volumeGroups: [myvg1]}\n' > config.yaml
