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

{{- /* Of one of the operators that share the namespaces; takes [root, shard]. The first has no suffix. */}}
{{- define "finetune-operator.shard.suffix" -}}
{{- with last . }}-shard-{{ . }}{{ end -}}
{{- end -}}

{{- define "finetune-operator.shard.selector" -}}
app.kubernetes.io/name: finetune-operator
app.kubernetes.io/instance: {{ (first .).Release.Name }}{{ include "finetune-operator.shard.suffix" . }}
{{- end -}}

{{- define "finetune-operator.labels" -}}
{{- with .Values.commonLabels }}
{{- toYaml . }}
{{ end -}}
{{ include "finetune-operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "finetune-operator.openai.selector" -}}
app.kubernetes.io/name: finetune-openai
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "finetune-operator.openai.labels" -}}
{{- with .Values.commonLabels }}
{{- toYaml . }}
{{ end -}}
{{ include "finetune-operator.openai.selector" . }}
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

{{- /* Whether the chart's admission policies are made: "true" or nothing. ValidatingAdmissionPolicy is there since 1.30. */}}
{{- define "finetune-operator.policies" -}}
{{- if and .Values.admission.enabled (.Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy") -}}
true
{{- end -}}
{{- end -}}

{{- /* The condition of a policy on what is the operator's and Kubernetes' own to make: those controllers make Pods and
ReplicaSets by a template, or take owners that are gone out of an object. */}}
{{- define "finetune-operator.others" -}}
request.userInfo.username !=
"system:serviceaccount:{{ .Release.Namespace }}:{{ include "finetune-operator.name" . }}" &&
!(request.userInfo.username in ["system:kube-controller-manager",
"system:serviceaccount:kube-system:job-controller",
"system:serviceaccount:kube-system:deployment-controller",
"system:serviceaccount:kube-system:replicaset-controller",
"system:serviceaccount:kube-system:generic-garbage-collector"]) &&
!(request.userInfo.username in {{ toJson .Values.admission.exemptUsers }})
{{- end }}
