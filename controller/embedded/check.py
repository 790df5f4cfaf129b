"""What keeps a new rollout from ever starting, asked once before it: the errors that a newcomer makes.

The loop would wait for each of them to be mended. With a person sitting before the terminal, saying so and ending is
better.
"""

import tempfile
from pathlib import Path

from controller.edges.registry import MlflowRegistry
from controller.errors import EdgeError, NotFound
from controller.spec import ModelRollout


def problems(registry: MlflowRegistry, rollout: ModelRollout) -> list[str]:
    """One line per fault: unknown model, missing alias or version, the same version twice, no signature."""
    model, servers = rollout.spec.model, rollout.spec.servers
    external = servers is not None and servers.champion is not None and servers.champion.external
    versions: dict[str, str] = {}
    said: list[str] = []
    try:
        for role, reference in (("champion", model.champion), ("challenger", model.challenger)):
            if role == "champion" and external:
                continue
            found = registry.resolve(model.name, reference)
            if found is None:
                said.append(f"spec.model.{role}: {registry.explain(model.name, reference)}")
                continue
            versions[role] = found.version
            if role == "challenger" and not found.signed:
                said.append(
                    f"spec.model.challenger: version {found.version} of {model.name!r} has no signature; log it"
                    " with one (mlflow.models.infer_signature)"
                )
    except NotFound as error:
        return [f"spec.model.name: {error}"]
    except EdgeError as error:
        return [str(error)]
    if versions.get("champion") == versions.get("challenger") is not None and not rollout.spec.allow_same_version:
        said.append(
            f"spec.model: champion ({model.champion}) and challenger ({model.challenger}) are both version"
            f" {versions['champion']}; allowSameVersion: true makes it an A/A run"
        )
    return said


def serving_example(model_uri: str) -> bytes:
    """The request body that MLflow keeps with a model; empty where there is none or it cannot be had."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    try:
        with tempfile.TemporaryDirectory() as folder:
            path = download_artifacts(artifact_uri=f"{model_uri}/serving_input_example.json", dst_path=folder)
            return Path(path).read_bytes()
    except (MlflowException, OSError):
        return b""
