"""A rollout from YAML or JSON: every fault is a line that names its path and what is allowed."""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from controller.errors import SpecError
from controller.gauge import built_in
from controller.kinds import KINDS
from controller.spec import API_VERSION, ModelRollout, RolloutSpec
from controller.specfile.document import LIMIT_BYTES, read
from controller.specfile.words import lines, place, shown

__all__ = ["Unreadable", "declared", "load", "of_prometheus", "parse", "unsupported"]


class Unreadable(SpecError):
    """The file itself cannot be had."""


def unsupported(spec: RolloutSpec) -> list[str]:
    """One line per declared field whose engine is not there yet; a rollout with any of them is refused."""
    metrics = list(enumerate(spec.metrics))
    said = [f"{_of_metric(i, 'kind', m.name)}: {_kind(m.kind)}" for i, m in metrics if not KINDS[m.kind].supported]
    if spec.after_promotion is not None and spec.after_promotion.watch is not None:
        said.append("spec.afterPromotion.watch: not supported yet; leave it out")
    if spec.on_rollback.diagnose:
        said.append("spec.onRollback.diagnose: not supported yet; leave it out")
    if spec.on_rollback.remedy == "Build":
        said.append("spec.onRollback.remedy: Build is not supported yet; allowed now: Off, Suggest")
    return said


def of_prometheus(spec: RolloutSpec) -> list[str]:
    """One line per question to a Prometheus, whose address is a setting and not in the file."""
    asked = [_of_metric(i, "query", m.name) for i, m in enumerate(spec.metrics) if m.query and not built_in(m.query)]
    if spec.traffic.gateway_api is not None:
        asked.append("spec.traffic.gatewayAPI.requests")
    needed = "is PromQL, which needs the address of a Prometheus: --prometheus-url (UNDERSTUDY_PROMETHEUS_URL)"
    return [f"{where}: {needed}" for where in asked]


def _of_metric(i: int, field: str, name: str) -> str:
    return f"{place(('spec', 'metrics', i, field))} ({name})"


def _kind(kind: str) -> str:
    return f"{kind} is not supported yet; supported: {', '.join(k for k, rule in KINDS.items() if rule.supported)}"


def parse(text: str | bytes, source: str = "rollout") -> ModelRollout:
    """A ``ModelRollout`` from YAML or JSON. SpecError has one line per fault: ``path: what is wrong``."""
    tree = read(text, source)
    if not isinstance(tree, dict):
        raise SpecError(
            f"{source}: a mapping with apiVersion, kind, metadata and spec is needed, it holds {shown(tree)}"
        )
    return declared(tree)


def declared(tree: dict[str, Any]) -> ModelRollout:
    """The ``ModelRollout`` that ``tree`` declares, as JSON has it. SpecError as ``parse`` says."""
    _is_rollout(tree)
    try:
        return ModelRollout.model_validate_json(json.dumps(tree), strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        raise SpecError(*_faults(tree, error)) from error


def load(path: Path) -> ModelRollout:
    """``parse`` of a file. Unreadable where there is none."""
    try:
        with path.open("rb") as file:
            content = file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}") from error
    return parse(content, str(path))


def _is_rollout(tree: dict[str, Any]) -> None:
    """SpecError for a document of another kind: its fields would all be unknown, which says nothing."""
    wanted = {"apiVersion": API_VERSION, "kind": "ModelRollout"}
    other = [f"{k}: is {shown(tree[k])}, expected is {v}" for k, v in wanted.items() if k in tree and tree[k] != v]
    if other:
        raise SpecError(*other)


def _faults(tree: dict[str, Any], error: ValidationError) -> list[str]:
    """All lines; first the kinds of metric that are not there yet, whose other faults can wait."""
    spec = tree.get("spec")
    metrics = spec.get("metrics") if isinstance(spec, dict) else None
    later: dict[int, str] = {}
    for i, metric in enumerate(metrics if isinstance(metrics, list) else []):
        kind = metric.get("kind") if isinstance(metric, dict) else None
        if isinstance(kind, str) and kind in KINDS and not KINDS[kind].supported:  # type: ignore[index]
            later[i] = f"{place(('spec', 'metrics', i, 'kind'), tree)}: {_kind(kind)}"
    said = list(later.values())
    for found in error.errors():
        loc = found["loc"]
        if found["type"] == "too_short" and found["input"]:
            continue  # pydantic counts only the items that are right
        of_kind = len(loc) == 3 and loc[:2] == ("spec", "metrics") and found["type"] == "value_error"
        if not (of_kind and loc[2] in later):
            said += lines(found, tree)
    return said
