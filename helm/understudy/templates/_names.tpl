{{- /* What everything is named after; with the release "understudy" it is that. */ -}}
{{- define "understudy.fullname" -}}
{{- $given := .Values.fullnameOverride | default .Release.Name -}}
{{- if or .Values.fullnameOverride (contains .Chart.Name $given) -}}
{{- $given | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" (.Release.Name | trunc 29 | trimSuffix "-") .Chart.Name -}}
{{- end -}}
{{- end -}}

{{- /* The controller: its pods, its account, its lease. */ -}}
{{- define "understudy.controller" -}}
{{- include "understudy.fullname" . -}}-controller
{{- end -}}

{{- /* The Secret from whose key the routers' tokens follow. */ -}}
{{- define "understudy.key" -}}
{{- include "understudy.fullname" . -}}-key
{{- end -}}

{{- /* The labels of Helm. Pods do not have them: each new version of the chart would replace the pods. */ -}}
{{- define "understudy.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- /* What the pods are selected by. */ -}}
{{- define "understudy.selector" -}}
app.kubernetes.io/name: {{ include "understudy.controller" . }}
{{- end -}}

{{- define "understudy.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag }}{{ end -}}
{{- end -}}
{{- end -}}

{{- /* The settings as variables, those first that the chart decides: where names and namespaces are not the program's
own defaults. */ -}}
{{- define "understudy.variables" -}}
{{- range $name := list "trackingUri" "logLevel" "leaseS" "callS" "ticks" "idleS" "aliasS" "routerImage" "routerReplicas" "routerVolume" "prometheusUrl" "lingerS" "allowModels" "drainS" -}}
{{- if hasKey $.Values.settings $name }}
{{- $value := get $.Values.settings $name }}
- {name: UNDERSTUDY_{{ $name | snakecase | upper }}, value: {{ if kindIs "slice" $value }}{{ join "\n" $value | quote }}{{ else }}{{ quote $value }}{{ end }}}
{{- end -}}
{{- end -}}
{{- with .Values.watchNamespace }}
- {name: UNDERSTUDY_NAMESPACE, value: {{ . | quote }}}
- {name: UNDERSTUDY_LEASE_NAMESPACE, value: {{ $.Release.Namespace | quote }}}
{{- end -}}
{{- if ne (include "understudy.fullname" .) "understudy" }}
- {name: UNDERSTUDY_LEASE_NAME, value: {{ include "understudy.controller" . | quote }}}
- {name: UNDERSTUDY_KEY_NAME, value: {{ include "understudy.key" . | quote }}}
{{- end -}}
{{- with .Values.env }}
{{ toYaml . }}
{{- end -}}
{{- end -}}

{{- /* What the schema cannot say, because it is about two values. */ -}}
{{- define "understudy.checked" -}}
{{- $lease := .Values.settings.leaseS | default 15.0 | float64 -}}
{{- if gt (.Values.settings.callS | default 5.0 | float64) (divf $lease 2.0) -}}
{{- fail "settings.callS: must be at most half of settings.leaseS, or a leader could not write before its lease is over" -}}
{{- end -}}
{{- end -}}
