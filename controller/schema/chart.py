"""The CustomResourceDefinition as a template of the Helm chart.

Not in the chart's folder ``crds``, because Helm installs what is there once and never upgrades it. As a template it is
upgraded, but would be deleted by ``helm uninstall`` too, and with it every rollout: an annotation forbids that.
"""

from controller.schema.crd import crd_yaml
from controller.schema.rules import Node

_MORE = """\
  labels:
    {{- include "understudy.labels" . | nindent 4 }}
  annotations:
    # Whoever deletes the definition deletes every rollout with it, so Helm never does.
    helm.sh/resource-policy: keep
"""


def chart_template(tree: Node | None = None) -> str:
    """The definition (``crd`` where no other is given) as the text of the template; crd.enabled leaves it out."""
    text = crd_yaml(tree).replace("{{", '{{ "{{" }}')
    head, _, spec = text.partition("spec:\n")
    return f"{{{{- if .Values.crd.enabled }}}}\n{head}{_MORE}spec:\n{spec}{{{{- end }}}}\n"
