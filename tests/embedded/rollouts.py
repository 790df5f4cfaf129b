"""Rollouts that end within a minute."""

from pathlib import Path
from typing import Any

import yaml

from tests.embedded.registered import MODEL


def plan(name: str = "tiny", **changes: Any) -> dict[str, Any]:
    """A rollout from mirror to promotion in about half a minute; ``changes`` replace parts of the spec."""
    spec: dict[str, Any] = {
        "model": {"name": MODEL},
        "unit": {"header": "x-unit-id"},
        "steps": [
            {"mirror": 100, "hold": "3s"},
            {"weight": 20, "hold": "4s"},
            {"weight": 50, "hold": "6s"},
        ],
        "metrics": [
            {"name": "errors", "kind": "ErrorRate", "role": "Guardrail", "margin": "5pp"},
            {"name": "accuracy", "kind": "Accuracy", "outcome": "label", "window": "2s", "margin": "10pp"},
        ],
        "decision": {"minUnits": 100, "tick": "500ms", "block": "1s", "grace": "500ms", "promoteAlpha": 0.05},
    }
    return {
        "apiVersion": "understudy.dev/v1alpha1",
        "kind": "ModelRollout",
        "metadata": {"name": name},
        "spec": spec | changes,
    }


def write(path: Path, tree: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path
