{{/*
What the sidecars are told besides where the driver is: a list of the root, and whether there are snapshots. Why each flag:
docs/kubernetes.md. tests/rigs/cluster/sidecars.py has the same flags.
*/}}
{{- define "ullage.sidecars" -}}
{{- $values := (index . 0).Values.sidecars -}}
- name: csi-provisioner
  port: 9262
  portName: provisioner
  of: {{ toJson $values.provisioner }}
  args:
    - --strict-topology
    - --immediate-topology={{ not $values.provisioner.waitForFirstConsumerOnly }}
    - --extra-create-metadata
    - --default-fstype=ext4
- name: csi-resizer
  port: 9263
  portName: resizer
  of: {{ toJson $values.resizer }}
  args:
    - --handle-volume-inuse-error=false # expansion is online; it would watch all Pods
{{- if index . 1 }}
- name: csi-snapshotter
  port: 9264
  portName: snapshotter
  of: {{ toJson $values.snapshotter }}
  args:
    - --extra-create-metadata
{{- end }}
{{- end }}
