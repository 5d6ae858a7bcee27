{{/* As deploy/scheduler/marked-pods.yaml with the webhook, as every-pod.yaml without. */}}
{{- define "ullage.schedulerConfiguration" -}}
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
leaderElection:
  leaderElect: true
  resourceNamespace: {{ .Release.Namespace }}
  resourceName: {{ .Values.scheduler.name }}
profiles:
  - schedulerName: {{ .Values.scheduler.name }}
extenders:
  - urlPrefix: https://ullage-extender.{{ .Release.Namespace }}.svc
    filterVerb: filter
    prioritizeVerb: prioritize
    preemptVerb: preempt
    weight: 5
    nodeCacheCapable: true
    httpTimeout: 5s
    enableHTTPS: true
    tlsConfig:
      caFile: /etc/ullage/ca.crt # without it nothing is checked
    {{- if .Values.webhook.enabled }}
    ignorable: false # Pods with local volumes wait while it is down; no other Pod is concerned
    managedResources:
      - name: ullage.io/capacity
        ignoredByScheduler: true
    {{- else }}
    ignorable: true
    {{- end }}
{{- end }}
