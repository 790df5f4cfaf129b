"""Every artefact that describes a rollout, generated from ``controller.spec`` and ``controller.status``.

``documents`` says what each file has to hold, ``stale`` which of them do not. Nothing here is written by hand, so
the CRD, the chart's copy of it, the editors' schema and the README cannot drift from what the controller accepts.
"""

from pathlib import Path

from controller.errors import SpecError
from controller.schema.chart import chart_template
from controller.schema.crd import crd_yaml
from controller.schema.editor import editor_json
from controller.schema.fields import with_table

CRD = "manifests/crd.yaml"
CHART_CRD = "helm/understudy/templates/crd.yaml"
EDITOR = "docs/rollout.schema.json"
README = "README.md"

__all__ = ["CHART_CRD", "CRD", "EDITOR", "README", "documents", "stale", "write"]


def documents(root: Path) -> dict[str, str]:
    """The content of every generated file of the checkout at ``root``, by its path there.

    Raises SpecError where ``root`` is no checkout: it has no README, or one without the marks of the field table.
    """
    try:
        readme = (root / README).read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(
            f"--directory: {root} is no checkout of understudy, its {README} cannot be read ({error.strerror})"
        ) from error
    try:
        readme = with_table(readme)
    except ValueError as error:
        raise SpecError(f"{root / README}: {error}") from error
    return {CRD: crd_yaml(), CHART_CRD: chart_template(), EDITOR: editor_json(), README: readme}


def stale(root: Path) -> list[str]:
    """The generated files at ``root`` that are missing or differ from what the spec says now."""
    return [name for name, text in documents(root).items() if _content(root / name) != text]


def write(root: Path) -> list[str]:
    """Bring every generated file at ``root`` up to date; the names of those that changed."""
    changed = []
    for name, text in documents(root).items():
        path = root / name
        if _content(path) == text:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        changed.append(name)
    return changed


def _content(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
