{{- define "finetune-team.metadata" -}}
namespace: {{ .Values.namespace }}
labels: {{- include "finetune-team.labels" . | nindent 2 }}
{{- end -}}

{{- define "finetune-team.labels" -}}
app.kubernetes.io/name: finetune-team
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- /* Subjects of a RoleBinding: users and groups need their API group. */}}
{{- define "finetune-team.subjects" -}}
{{- range . }}
{{- if eq .kind "ServiceAccount" }}
- {kind: ServiceAccount, name: {{ .name | quote }}, namespace: {{ .namespace | quote }}}
{{- else }}
- {kind: {{ .kind }}, name: {{ .name | quote }}, apiGroup: rbac.authorization.k8s.io}
{{- end }}
{{- end }}
{{- end -}}
