{{- define "finetune-operator.name" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "finetune-operator.host" -}}
{{ include "finetune-operator.name" . }}.{{ .Release.Namespace }}.svc
{{- end -}}

{{- define "finetune-operator.selector" -}}
app.kubernetes.io/name: finetune-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "finetune-operator.labels" -}}
{{ include "finetune-operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "finetune-operator.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end -}}

{{- define "finetune-operator.uninstall" -}}
helm.sh/hook: post-delete
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}

{{- /* The policy condition for requests by the operator and Kubernetes' own controllers. */}}
{{- define "finetune-operator.others" -}}
request.userInfo.username !=
"system:serviceaccount:{{ .Release.Namespace }}:{{ include "finetune-operator.name" . }}" &&
!request.userInfo.username.startsWith("system:serviceaccount:kube-system:") &&
request.userInfo.username != "system:kube-controller-manager" &&
!(request.userInfo.username in {{ toJson .Values.admission.exemptUsers }})
{{- end }}
