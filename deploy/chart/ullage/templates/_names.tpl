{{/* Of every object. */}}
{{- define "ullage.labels" -}}
app.kubernetes.io/part-of: ullage
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{/* Of the Pods of a component, a list of the root and its name; a selector never changes. */}}
{{- define "ullage.selector" -}}
app.kubernetes.io/part-of: ullage
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "ullage.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "ullage.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "ullage.logArgs" -}}
- --log-level={{ .Values.log.level }}
- --log-format={{ .Values.log.format }}
{{- end }}

{{/* Where the API server is; nothing where the Service `kubernetes` is good enough. */}}
{{- define "ullage.apiServerEnv" -}}
{{- if .Values.apiServer.host }}
- name: KUBERNETES_SERVICE_HOST
  value: {{ .Values.apiServer.host | quote }}
- name: KUBERNETES_SERVICE_PORT
  value: {{ .Values.apiServer.port | quote }}
{{- end }}
{{- end }}

{{/* A container that needs nothing of the machine. */}}
{{- define "ullage.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "ullage.restrictedPod" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* "true" or nothing. */}}
{{- define "ullage.hasSnapshots" -}}
{{- $wanted := .Values.snapshots.enabled -}}
{{- if kindIs "bool" $wanted }}{{ if $wanted }}true{{ end }}
{{- else if .Capabilities.APIVersions.Has "snapshot.storage.k8s.io/v1/VolumeSnapshotClass" }}true{{ end }}
{{- end }}

{{- define "ullage.extenderHasTls" -}}
{{- if or .Values.extender.tls.enabled .Values.webhook.enabled (eq .Values.extender.kind "Deployment") }}true{{ end }}
{{- end }}

{{/* "true" where it answers at 127.0.0.1 alone: there nobody but kube-scheduler has to reach it. */}}
{{- define "ullage.extenderIsLocal" -}}
{{- if and (eq .Values.extender.kind "DaemonSet") (not .Values.webhook.enabled) }}true{{ end }}
{{- end }}

{{- define "ullage.tlsSecretName" -}}
{{ .Values.extender.tls.secretName | default "ullage-extender-tls" }}
{{- end }}

{{/* Binds a ClusterRole to an account of ours: a list of the root, the role's name and the account's. */}}
{{- define "ullage.clusterRoleBinding" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ index . 1 }}
  labels:
    {{- include "ullage.labels" (index . 0) | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ index . 1 }}
subjects:
  - kind: ServiceAccount
    name: {{ index . 2 }}
    namespace: {{ (index . 0).Release.Namespace }}
{{- end }}

{{/* The same of a Role in our own namespace. */}}
{{- define "ullage.roleBinding" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ index . 1 }}
  namespace: {{ (index . 0).Release.Namespace }}
  labels:
    {{- include "ullage.labels" (index . 0) | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ index . 1 }}
subjects:
  - kind: ServiceAccount
    name: {{ index . 2 }}
    namespace: {{ (index . 0).Release.Namespace }}
{{- end }}

{{- define "ullage.serviceAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ index . 1 }}
  namespace: {{ (index . 0).Release.Namespace }}
  labels:
    {{- include "ullage.labels" (index . 0) | nindent 4 }}
{{- end }}
