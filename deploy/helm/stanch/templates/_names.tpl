{{- define "stanch.labels" -}}
app.kubernetes.io/name: stanch
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "stanch.selector" -}}
app.kubernetes.io/name: stanch
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "stanch.serverLabels" -}}
{{ include "stanch.serverSelector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "stanch.serverSelector" -}}
app.kubernetes.io/name: stanch-server
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Everything but who may evict: what a watched namespace must allow. */}}
{{- define "stanch.rules" -}}
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
{{- if and .Values.recycle (not .Values.dryRun) }}
- apiGroups: [""]
  resources: [pods/eviction]
  verbs: [create]
{{- end }}
{{- end }}

{{- define "stanch.subject" -}}
- kind: ServiceAccount
  name: {{ .Release.Name }}
  namespace: {{ .Release.Namespace }}
{{- end }}
