{{/* The name of all objects: that of the release, and the chart's if it is not a part of that. */}}
{{- define "distmsg.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "distmsg.selector" -}}
app.kubernetes.io/name: distmsg
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "distmsg.labels" -}}
{{ include "distmsg.selector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "distmsg.clusterSecret" -}}
{{ .Values.clusterSecret.existingSecret | default (include "distmsg.name" .) }}
{{- end -}}

{{/* The file with the nodes' settings: what the chart needs, and over it what the user says. */}}
{{- define "distmsg.config" -}}
{{- $config := dict
  "listen" "0.0.0.0:7400"
  "admin-listen" "0.0.0.0:7401"
  "peer-listen" "0.0.0.0:7402"
  "insecure-listen" true
  "discovery" (printf "dns://%s-nodes:7402" (include "distmsg.name" .))
  "cluster-secret-file" "/etc/distmsg/secret/cluster-secret"
-}}
{{- if .Values.registryPassword.existingSecret }}
{{- $_ := set $config "registry-password-file" "/etc/distmsg/registry/password" }}
{{- end }}
{{- if .Values.tls.existingSecret }}
{{- $_ := set $config "tls-cert" "/etc/distmsg/tls/tls.crt" }}
{{- $_ := set $config "tls-key" "/etc/distmsg/tls/tls.key" }}
{{- if .Values.tls.clientCA }}
{{- $_ := set $config "tls-client-ca" "/etc/distmsg/tls/ca.crt" }}
{{- end }}
{{- end }}
{{- if .Values.tokens.existingSecret }}
{{- $_ := set $config "auth-token-file" "/etc/distmsg/tokens/tokens" }}
{{- end }}
{{- toYaml (mergeOverwrite $config (deepCopy .Values.config)) }}
{{- end -}}
