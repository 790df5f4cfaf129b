"""A rollout from YAML or JSON: every fault is a line that names its path and what is allowed."""

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from controller.errors import SpecError
from controller.kinds import KINDS
from controller.spec import ModelRollout, RolloutSpec


def unsupported(spec: RolloutSpec) -> list[str]:
    """One line per declared field whose engine is not there yet; a rollout with any of them is refused."""
    said = [
        f"spec.metrics.{m.name}.kind: {m.kind} is not supported yet; supported: "
        + ", ".join(k for k, rule in KINDS.items() if rule.supported)
        for m in spec.metrics
        if not KINDS[m.kind].supported
    ]
    said += [f"spec.metrics.{m.name}.covariate: not supported yet" for m in spec.metrics if m.covariate]
    if spec.traffic.gateway_api is not None:
        said.append("spec.traffic.gatewayAPI: not supported yet; leave traffic out to use the router")
    if spec.servers is not None and spec.servers.template is not None:
        said.append("spec.servers.template: not supported yet; adopt servers, or leave servers out")
    if spec.after_promotion is not None and spec.after_promotion.watch is not None:
        said.append("spec.afterPromotion.watch: not supported yet")
    if spec.on_rollback.remedy == "Build":
        said.append("spec.onRollback.remedy: Build is not supported yet; allowed now: Off, Suggest")
    return said


def parse(text: str | bytes, source: str = "rollout") -> ModelRollout:
    """A ``ModelRollout`` from YAML or JSON. SpecError has one line per fault: ``path: what is wrong``."""
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpecError(f"{source}: not YAML: {str(error).replace(chr(10), ' ')}") from error
    if not isinstance(tree, dict):
        raise SpecError(f"{source}: a mapping with apiVersion, kind, metadata and spec is needed")
    try:
        return ModelRollout.model_validate(tree)
    except ValidationError as error:
        raise SpecError(*(_line(e) for e in error.errors())) from error


def load(path: Path) -> ModelRollout:
    """``parse`` of a file."""
    try:
        return parse(path.read_bytes(), str(path))
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror}") from error


def _line(error: Any) -> str:
    path = ".".join(str(part) for part in error["loc"] if not re.fullmatch(r"function-.*", str(part))) or "rollout"
    if error["type"] == "extra_forbidden":
        return f"{path}: unknown field"
    return f"{path}: {error['msg'].removeprefix('Value error, ')}"
