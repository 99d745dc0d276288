{{- /* The policy, as YAML: the one that is given, or that of the overlay which mode and runtimeClass ask for. */}}
{{- define "seccomp-floor.policy" }}
{{- $class := .Values.runtimeClass }}
{{- if .Values.policy }}
  {{- $mode := .Values.policy.mode | default "enforce" }}
  {{- if and .Values.mode (ne .Values.mode $mode) }}
    {{- fail (printf "mode is %q, and the policy's mode is %q: leave one of them out" .Values.mode $mode) }}
  {{- end }}
  {{- $handlers := dig "apply" "runtimeHandlers" list .Values.policy }}
  {{- if and $class (not (has $class $handlers)) (not (has "*" $handlers)) }}
    {{- fail (printf "runtimeClass is %q, and the policy's apply.runtimeHandlers does not name it: say [%q] for its pods only, or [\"*\"] for all" $class $class) }}
  {{- end }}
  {{- toYaml .Values.policy }}
{{- else }}
  {{- $mode := .Values.mode | default "enforce" }}
  {{- if not (has $mode (list "enforce" "log" "report")) }}
    {{- fail (printf "mode is %q, and not enforce, log or report" $mode) }}
  {{- end }}
  {{- $file := eq $mode "log" | ternary "overlays/watch/policy.yaml" "base/policy.yaml" }}
  {{- $policy := set (.Files.Get (printf "kubernetes/%s" $file) | fromYaml) "mode" $mode }}
  {{- if $class }}
    {{- $_ := set $policy "apply" (dict "runtimeHandlers" (list $class)) }}
  {{- end }}
  {{- toYaml $policy }}
{{- end }}
{{- end }}
