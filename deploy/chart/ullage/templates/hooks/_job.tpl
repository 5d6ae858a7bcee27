{{/*
A Job that runs a word of ours as a hook, with an account and rights that are there for as long as it runs: a list of the
root, its name, the hook, the words, and the rules of its ClusterRole. What it says is in helm's own output.
*/}}
{{- define "ullage.hook" -}}
{{- $root := index . 0 }}
{{- $name := index . 1 }}
{{- $hook := index . 2 }}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "ullage.labels" $root | nindent 4 }}
  annotations:
    helm.sh/hook: {{ $hook }}
    helm.sh/hook-weight: "-20"
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded,hook-failed
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ $name }}
  labels:
    {{- include "ullage.labels" $root | nindent 4 }}
  annotations:
    helm.sh/hook: {{ $hook }}
    helm.sh/hook-weight: "-20"
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded,hook-failed
rules:
  {{- toYaml (index . 4) | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ $name }}
  labels:
    {{- include "ullage.labels" $root | nindent 4 }}
  annotations:
    helm.sh/hook: {{ $hook }}
    helm.sh/hook-weight: "-10"
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded,hook-failed
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ $name }}
subjects:
  - kind: ServiceAccount
    name: {{ $name }}
    namespace: {{ $root.Release.Namespace }}
---
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "ullage.labels" $root | nindent 4 }}
  annotations:
    helm.sh/hook: {{ $hook }}
    helm.sh/hook-weight: "0"
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded # a failed one stays for `kubectl logs`
    helm.sh/hook-output-log-policy: hook-failed
spec:
  backoffLimit: 0
  activeDeadlineSeconds: 240 # helm waits for five minutes
  template:
    metadata:
      labels:
        {{- include "ullage.selector" (list $root $name) | nindent 8 }}
    spec:
      restartPolicy: Never
      serviceAccountName: {{ $name }}
      {{- with include "ullage.pullSecrets" $root }}{{ . | nindent 6 }}{{ end }}
      hostNetwork: {{ $root.Values.controller.hostNetwork }}
      nodeSelector:
        {{- toYaml $root.Values.controller.nodeSelector | nindent 8 }}
      tolerations:
        {{- toYaml $root.Values.controller.tolerations | nindent 8 }}
      securityContext:
        {{- include "ullage.restrictedPod" $root | nindent 8 }}
      containers:
        - name: ullage
          image: {{ include "ullage.image" $root }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          command: {{ index . 3 | toJson }}
          {{- with include "ullage.apiServerEnv" $root }}
          env:
            {{- . | nindent 12 }}
          {{- end }}
          terminationMessagePolicy: FallbackToLogsOnError # what it says is in `kubectl describe pod`, too
          securityContext:
            {{- include "ullage.restricted" $root | nindent 12 }}
          resources:
            requests: {cpu: 10m, memory: 64Mi}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
      volumes:
        - {name: tmp, emptyDir: {}}
{{- end }}
