{{- define "regent.site" -}}
{{- required "site: name this site as the charter does, for example --set site=ireland" .Values.site -}}
{{- end -}}

{{- define "regent.image" -}}
{{- $repository := required "image.repository: name the image with Regent's programs" .Values.image.repository -}}
{{- printf "%s:%s" $repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}

{{- define "regent.labels" -}}
app.kubernetes.io/name: regent
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "regent.selector" -}}
app.kubernetes.io/name: regent
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* The operator's account, as the API server names it. Regent lives in regent-system: the agents' identity and the roles of `kubectl regent standby prepare` name it. */}}
{{- define "regent.operator" -}}
{{- if ne .Release.Namespace "regent-system" -}}
{{- fail "Regent lives in namespace regent-system: install with --namespace regent-system" -}}
{{- end -}}
system:serviceaccount:regent-system:regent-operator
{{- end -}}

{{/* CEL: the pod is one that the GatedPods object `params` selects. */}}
{{- define "regent.selected" -}}
params != null &&
(!has(params.spec.selector) || (
  (!has(params.spec.selector.matchLabels) || params.spec.selector.matchLabels.all(k,
    has(object.metadata.labels) && k in object.metadata.labels && object.metadata.labels[k] == params.spec.selector.matchLabels[k])) &&
  (!has(params.spec.selector.matchExpressions) || params.spec.selector.matchExpressions.all(e,
    e.operator == 'In' ? has(object.metadata.labels) && e.key in object.metadata.labels && object.metadata.labels[e.key] in e.values :
    e.operator == 'NotIn' ? !has(object.metadata.labels) || !(e.key in object.metadata.labels) || !(object.metadata.labels[e.key] in e.values) :
    e.operator == 'Exists' ? has(object.metadata.labels) && e.key in object.metadata.labels :
    !has(object.metadata.labels) || !(e.key in object.metadata.labels)))))
{{- end -}}

{{/* CEL: not the API server's picture of a static pod, which no admission can change. */}}
{{- define "regent.notMirror" -}}
!has(object.metadata.annotations) || !('kubernetes.io/config.mirror' in object.metadata.annotations)
{{- end -}}

{{/* CEL: container c has the gate's volume at /regent, and nothing else there or below, however the path is spelled. */}}
{{- define "regent.gateMounted" -}}
has(c.volumeMounts) && c.volumeMounts.exists(m, m.name == 'regent-gate' && m.mountPath == '/regent') &&
c.volumeMounts.all(m, (m.name == 'regent-gate' && m.mountPath == '/regent' && !has(m.subPath) && !has(m.subPathExpr)) ||
  !m.mountPath.matches('^([.]?/+)*regent(/|$)|(^|/)[.][.](/|$)'))
{{- end -}}

{{/* CEL: a pod has no gate, or gate and tries are not of its own containers any more. */}}
{{- define "regent.gateIsStale" -}}
!has(object.spec.initContainers) || !object.spec.initContainers.exists(c, c.name == 'regent-gate') ||
object.spec.initContainers.exists(c, c.name == 'regent-gate' &&
  (c.image != object.spec.containers[0].image || has(c.env) || has(c.envFrom))) ||
object.spec.initContainers.exists(c, c.name.startsWith('regent-try-') &&
  !(object.spec.containers + object.spec.initContainers).exists(i,
    i.name != 'regent-gate' && !i.name.startsWith('regent-try-') && i.image == c.image &&
    (has(i.envFrom) ? i.envFrom : []) == (has(c.envFrom) ? c.envFrom : []) &&
    (!has(c.env) || (has(i.env) && c.env.all(e, i.env.exists(x, x == e))))))
{{- end -}}
