{{/* What a person should look at; the metrics and what to do are in docs/metrics.md and docs/operations.md. */}}
{{- define "ullage.alerts" -}}
- alert: UllageStoreDown
  expr: ullage_store_up == 0
  for: 5m
  severity: critical
  summary: A node cannot read a store; its volumes can neither be made nor deleted.
- alert: UllagePoolUnavailable
  expr: ullage_pool_available == 0
  for: 15m
  severity: warning
  summary: A pool takes no new volumes.
- alert: UllageThinPoolFilling
  expr: ullage_thin_pool_data_ratio > 0.8 or ullage_thin_pool_metadata_ratio > 0.7
  for: 5m
  severity: warning
  summary: A thin pool fills; when it is full, every volume in it stops.
- alert: UllageVolumeProblem
  expr: ullage_volume_problems > 0 or ullage_object_problems{reason="VolumeMissing"} > 0
  for: 5m
  severity: critical
  summary: A volume is missing, degraded, or not as its object says.
- alert: UllageVolumesPending
  expr: ullage_objects{phase="Pending"} > 0
  for: 15m
  severity: warning
  summary: A volume was ordered on a node and is not made.
- alert: UllageOrphans
  expr: ullage_cluster_orphans{kind!="object_without_pv"} > 0
  for: 15m
  severity: warning
  summary: Volumes have lost their other half; `ullage orphans` lists them.
- alert: UllageApiSilent
  expr: ullage_informer_silence_seconds > 300
  for: 5m
  severity: warning
  summary: A process has heard nothing of the API server; what it knows grows old.
- alert: UllageNodesGone
  expr: ullage_gone_nodes > 0
  for: 1m
  severity: warning
  summary: A node with volumes has left the cluster; after the delay they are given up.
{{- end }}
