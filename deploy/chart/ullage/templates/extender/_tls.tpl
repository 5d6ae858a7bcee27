{{/*
What of the extender's certificate is the same in all templates of one rendering, as JSON: {"ca", "certificate", "key"}, PEM.
What the cluster has is kept; there is nothing new for whoever checks it then. With a Secret that somebody else brings
only the authority is known, and only if it is told.
*/}}
{{- define "ullage.tls" -}}
{{- if not (hasKey .Values "tlsOfRendering") -}}
{{- $made := dict "ca" .Values.extender.tls.caCertificate -}}
{{- if not .Values.extender.tls.secretName -}}
{{- $kept := (lookup "v1" "Secret" .Release.Namespace (include "ullage.tlsSecretName" .)).data -}}
{{- if $kept -}}
{{- $made = dict "ca" (b64dec (index $kept "ca.crt")) "certificate" (b64dec (index $kept "tls.crt")) "key" (b64dec (index $kept "tls.key")) -}}
{{- else -}}
{{- $host := printf "ullage-extender.%s.svc" .Release.Namespace -}}
{{- $authority := genCA "ullage-extender" 3650 -}}
{{- $pair := genSignedCert $host (list "127.0.0.1" "::1") (list $host "localhost" (printf "%s.cluster.local" $host)) 3650 $authority -}}
{{- $made = dict "ca" $authority.Cert "certificate" $pair.Cert "key" $pair.Key -}}
{{- end -}}
{{- end -}}
{{- $_ := set .Values "tlsOfRendering" $made -}}
{{- end -}}
{{- toJson .Values.tlsOfRendering -}}
{{- end }}
