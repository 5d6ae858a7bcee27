{{/*
The directories of the host that file classes need, as a YAML list of {path, propagation}. The parent of each class's
directory: what is not there is made by kubelet, and a class whose directory is made so would be served from the root disk
of a node that does not have it.
*/}}
{{- define "ullage.hostDirectories" -}}
{{- $found := list -}}
{{- $paths := list -}}
{{- range .Values.deviceClasses -}}
{{- if eq (.type | default "") "file" -}}
{{- $parent := dir (.directory | default "") -}}
{{- $top := printf "/%s" (first (splitList "/" (trimPrefix "/" $parent))) -}}
{{- if or (eq $parent "/") (eq $parent ".") (has $top (list "/bin" "/boot" "/dev" "/etc" "/lib" "/lib64" "/proc" "/root" "/run" "/sbin" "/sys" "/tmp" "/usr")) -}}
{{- fail (printf "deviceClasses: the directory %q of %s cannot be mounted into a Pod; take one two levels deep, such as /srv/ullage/files, and not below the system's own" (.directory | default "") .name) -}}
{{- end -}}
{{- if not (has $parent $paths) -}}
{{- $paths = append $paths $parent -}}
{{- $found = append $found (dict "path" $parent "propagation" "HostToContainer") -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range .Values.node.hostDirectories -}}
{{- if not (has .path $paths) -}}
{{- $paths = append $paths .path -}}
{{- $found = append $found (dict "path" .path "propagation" (.propagation | default "HostToContainer")) -}}
{{- end -}}
{{- end -}}
{{- toYaml $found -}}
{{- end }}
