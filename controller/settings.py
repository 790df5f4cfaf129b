"""Settings of the controller's processes: a frozen model per place to run in; each field is a flag and a variable.

``state_dir`` is ``--state-dir`` and ``UNDERSTUDY_STATE_DIR``. What a rollout does is no setting: that is in its file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator

from controller.errors import SpecError
from controller.spec import Notify, SecretKey
from router.certificates import Files

PREFIX = "UNDERSTUDY_"
_SECRET = f"{PREFIX}SECRET_"

Port = Annotated[int, Field(ge=0, le=65_535)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
ModelRule = Annotated[str, Field(pattern=r"^([*]|[a-z0-9]([-a-z0-9]*[a-z0-9])?)=[^/:\x00-\x1f\x7f]+$")]


class ProcessSettings(BaseModel):
    """What every process is told at its start. Times in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state_dir: Path = Field(Path(".understudy"), description="Folder of all that has to survive a restart.")
    tracking_uri: str | None = Field(
        None,
        pattern=r"^https?://",
        description="Address of an MLflow tracking server; without one (MLFLOW_TRACKING_URI counts) one is started.",
    )
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="What is logged.")


class Settings(ProcessSettings):
    """Everything that the processes on one machine are told at their start."""

    control_url: str | None = Field(
        None, pattern=r"^https?://", description="Address of the router's control API, for the controller."
    )
    token: SecretStr | None = Field(
        None, min_length=8, description="Bearer token of the control API (environment only, never a flag)."
    )
    control_ca: Path | None = Field(
        None,
        description="Authorities (PEM) of the router's certificate, for a control API with https://; "
        "without: those of the system. With run also those of its clients.",
    )
    control_cert: Path | None = Field(
        None, description="Certificate (PEM) that the router is shown. With run also the router's own: for 127.0.0.1."
    )
    control_key: Path | None = Field(None, description="Key (PEM, without a password) of that certificate.")
    host: str = Field("127.0.0.1", min_length=1, description="Address for traffic.")
    port: Port = Field(8080, description="Port for traffic; 0 takes a free one.")
    control_port: Port = Field(0, description="Port for control, outcomes and the router's metrics; 0: a free one.")
    mlflow_port: Port = Field(0, description="Port of the tracking server that is started; 0 takes a free one.")
    metrics_port: Port = Field(0, description="Port of the controller's own metrics; 0 takes a free one.")
    workers: int = Field(1, ge=1, le=128, description="Worker processes of the router.")
    prometheus_url: str | None = Field(
        None, pattern=r"^https?://", description="Address of the Prometheus that metrics of kind Resource ask."
    )
    linger_s: Seconds = Field(60.0, description="How long the server of a version that nobody wants stays.")
    drain_s: Seconds = Field(10.0, description="Longest wait for requests in flight at the end.")
    ready_s: Seconds = Field(180.0, description="Longest wait for the tracking server and the router at the start.")

    @property
    def certificates(self) -> Files:
        """The files for TLS towards the router."""
        return Files(self.control_cert, self.control_key, self.control_ca)

    @property
    def rollouts_file(self) -> Path:
        return self.state_dir / "rollouts.sqlite"

    @property
    def servers_file(self) -> Path:
        return self.state_dir / "servers.sqlite"

    @property
    def journal_dir(self) -> Path:
        return self.state_dir / "journal"

    @property
    def table_file(self) -> Path:
        """The routers' last table."""
        return self.state_dir / "table.json"

    @property
    def engine_file(self) -> Path:
        return self.state_dir / "engine.duckdb"

    @property
    def latest_file(self) -> Path:
        """The newest tick of the controller, for those who watch."""
        return self.state_dir / "latest.json"

    @property
    def refusal_file(self) -> Path:
        """Why the controller would not start, for the parent to tell."""
        return self.state_dir / "refusal.json"


class OperatorSettings(ProcessSettings):
    """Everything that the controller on a cluster is told at its start."""

    tracking_uri: str | None = Field(
        None, pattern=r"^https?://", description="Address of the MLflow tracking server (MLFLOW_TRACKING_URI counts)."
    )
    namespace: str | None = Field(
        None, min_length=1, max_length=63, description="Only the rollouts of this namespace; without it, of all."
    )
    kubeconfig: Path | None = Field(None, description="File that names the cluster; in a pod its service account does.")
    context: str | None = Field(None, min_length=1, description="Context of the kubeconfig.")
    lease_name: str = Field("understudy-controller", min_length=1, description="Lease of the replica that decides.")
    lease_namespace: str | None = Field(
        None,
        min_length=1,
        description="Namespace of lease and key; without it, that of the rollouts, or the pod's own.",
    )
    key_name: str = Field(
        "understudy-key", min_length=1, description="Secret from whose key the routers' tokens follow; drawn once."
    )
    lease_s: float = Field(15.0, ge=1, le=3600, description="How long a leader that says nothing stays the leader.")
    call_s: float = Field(5.0, gt=0, le=60, description="Deadline of a call to the API server.")
    ticks: int = Field(16, ge=1, le=256, description="Rollouts that are ticked at the same time.")
    idle_s: Seconds = Field(300.0, description="How often a rollout that is over is looked at.")
    alias_s: Seconds = Field(
        15.0, description="How often MLflow is asked which aliases moved, by one query for all models."
    )
    router_image: str | None = Field(
        None, min_length=1, max_length=512, description="Image of the routers; python -m router is run in it."
    )
    router_replicas: int = Field(
        2, ge=1, le=32, description="Routers that a rollout begins with; later kubectl scale or an autoscaler says."
    )
    router_volume: str = Field(
        "1Gi", pattern=r"^[1-9][0-9]*(Mi|Gi|Ti)$", description="Size of each router's volume, for its journals."
    )
    prometheus_url: str | None = Field(
        None, pattern=r"^https?://", description="Address of the Prometheus that has the requests of HTTPRoutes."
    )
    linger_s: Seconds = Field(
        600.0, description="How long the pods of a version that nobody wants stay, of those that are ours."
    )
    allow_models: tuple[ModelRule, ...] | None = Field(
        None,
        min_length=1,
        description="Which namespace may release which models: NAMESPACE=PATTERN, a pattern as in a shell, * for all "
        "namespaces; given again for more, in the variable by a line each. Without it all may release all.",
    )
    health_host: str = Field("0.0.0.0", min_length=1, description="Address of /healthz, /readyz and /metrics.")
    health_port: Port = Field(8081, description="Port of /healthz, /readyz and /metrics; 0 takes a free one.")
    drain_s: Seconds = Field(20.0, description="Longest wait at the end for ticks under way and for MLflow.")

    @field_validator("allow_models", mode="before")
    @classmethod
    def _by_lines(cls, given: Any) -> Any:
        """A variable holds them all, a line each: a name of a model may have anything else in it."""
        lines = given.splitlines() if isinstance(given, str) else given
        texts = isinstance(lines, list | tuple) and all(isinstance(line, str) for line in lines)
        return [line.strip() for line in lines if line.strip()] if texts else given

    @field_validator("call_s")
    @classmethod
    def _within_the_lease(cls, call_s: float, info: ValidationInfo) -> float:
        if call_s > info.data.get("lease_s", call_s) / 2:
            raise ValueError("must be at most half of --lease-s, or a leader could not write before its lease is over")
        return call_s

    def home(self, own: str) -> str:
        """The namespace of lease and key, for a process whose own namespace is ``own``."""
        return self.lease_namespace or self.namespace or own

    @property
    def statistics_dir(self) -> Path:
        """Statistics, and copies of journals, in a folder for each rollout."""
        return self.state_dir / "rollouts"

    @property
    def record_dir(self) -> Path:
        return self.state_dir / "records"

    @property
    def reader_file(self) -> Path:
        """Under which name the routers know this replica."""
        return self.state_dir / "reader"


def environment_name(field: str) -> str:
    """The environment variable of a field."""
    return PREFIX + field.upper()


def slack_address(notify: Notify, variables: Mapping[str, str]) -> str | None:
    """The webhook's address, if one is declared. SpecError where the variable that has to hold it does not."""
    if notify.slack is None:
        return None
    name = secret_variable(notify.slack.secret_ref)
    if not variables.get(name):
        raise SpecError(f"spec.notify.slack.secretRef: set the variable {name} to the webhook's address")
    return variables[name]


def secret_variable(secret: SecretKey) -> str:
    """The environment variable that holds a secret on one machine."""
    return _SECRET + "_".join(part.upper().replace("-", "_").replace(".", "_") for part in (secret.name, secret.key))
