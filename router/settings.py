"""Settings of a router process: one frozen model; each field is a flag and an environment variable.

``journal_dir`` is ``--journal-dir`` and ``UNDERSTUDY_ROUTER_JOURNAL_DIR``. What traffic does is no setting:
that is in the RouteTable.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from router.certificates import Files
from router.worker_config import Seconds, WorkerConfig

PREFIX = "UNDERSTUDY_ROUTER_"

Port = Annotated[int, Field(ge=0, le=65_535)]


def _of_worker(name: str, says: str = "") -> Any:
    """A field that each worker is told: default and meaning are the worker's; it is checked when one is
    configured.
    """
    field = WorkerConfig.model_fields[name]
    said = says or field.description or name
    return Field(field.default, description=f"{said[0].upper()}{said[1:]}.")


class RouterSettings(BaseModel):
    """Everything a router process is told at its start."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        "router",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        description="Name of this router; its journals are called after it.",
    )
    host: str = Field("127.0.0.1", min_length=1, description="Address for traffic; * for all, IPv4 and IPv6.")
    port: Port = Field(8080, description="Port for traffic; 0 takes a free one.")
    control_host: str = Field("127.0.0.1", min_length=1, description="Address for control, outcomes and metrics.")
    control_port: Port = Field(8081, description="Port for control, outcomes and metrics; 0 takes a free one.")
    workers: int = Field(1, ge=1, le=128, description="Worker processes that share the traffic port.")
    loop: str = _of_worker("loop", "Event loop of the workers: asyncio, uvloop, or auto: uvloop where it is installed")
    journal_dir: Path = Field(Path("journal"), description="Folder of the journals.")
    table_file: Path | None = Field(
        None,
        description="Where the last route table is kept for the next start.  [default: table.json among the journals]",
    )
    table: Path | None = Field(
        None, description="Route table (JSON) to begin with, where none of a later generation was kept."
    )
    ready_file: Path | None = Field(
        None, description="Written (JSON: ports, pid) once traffic is served; removed at the end."
    )
    token: SecretStr | None = Field(
        None, min_length=8, description="Bearer token of the control API (environment only, never a flag)."
    )
    token_file: Path | None = Field(None, description="File that holds the bearer token.")
    control_cert: Path | None = Field(
        None, description="Certificate (PEM) of the control API, which then speaks TLS; taken again when it changes."
    )
    control_key: Path | None = Field(None, description="Key (PEM, without a password) of that certificate.")
    client_ca: Path | None = Field(
        None,
        description="Authorities (PEM) of clients' certificates: who shows one of them needs no token, and without "
        "a token is needed one of them.",
    )
    open_metrics: bool = Field(False, description="Serve /metrics to everybody.")
    drain_s: Seconds = Field(15.0, description="Longest wait for requests in flight at the end, in seconds.")
    start_s: Seconds = Field(30.0, description="Longest wait for the workers at the start, in seconds.")
    # A worker speaks once a second and is looked at once a second: one that is only busy may miss a look or two.
    silence_s: Seconds = Field(
        10.0, ge=3, description="A worker that says nothing for so many seconds, at least 3, is replaced."
    )
    max_connections: int = _of_worker(
        "max_connections", "Connections of clients to each worker; beyond, the longest idle one has to go"
    )
    max_header_bytes: int = _of_worker("max_header_bytes", "Largest head of a request")
    max_body_bytes: int = _of_worker("max_body_bytes", "Largest body of a request")
    max_held_bytes: int = _of_worker("max_held_bytes")
    max_held_answer_bytes: int = _of_worker("max_held_answer_bytes")
    idle_s: float = _of_worker("idle_s", "Longest time that a connection of a client stays open without a request")
    head_s: float = _of_worker("head_s", "Longest time from the first byte of a request to the end of its head")
    body_s: float = _of_worker("body_s")
    min_body_rate: float = _of_worker("min_body_rate")
    stall_s: float = _of_worker("stall_s")
    total_s: float = _of_worker(
        "total_s", "Longest time of an answer that is passed on as it comes, from its first part"
    )
    champion_connections: int = _of_worker(
        "champion_connections", "Connections of a worker to each upstream of the champion"
    )
    champion_queue: int = _of_worker(
        "champion_queue", "Requests that may wait for one of the connections to the champion"
    )
    challenger_connections: int = _of_worker(
        "challenger_connections", "Connections of a worker to each upstream of the challenger; none free is Overload"
    )
    mirrors: int = _of_worker("mirrors", "Mirrored requests in flight in a worker; beyond, they are not sent")
    connect_s: float = _of_worker("connect_s", "Longest wait for a connection to an upstream")
    upstream_idle_s: float = _of_worker(
        "upstream_idle_s", "How long a connection to an upstream is kept idle; below the servers' own limit"
    )
    upstream_fresh_s: float = _of_worker(
        "upstream_fresh_s", "A connection that was idle for less and is closed has dropped the request: its arm failed"
    )
    retry_after_s: int = _of_worker("retry_after_s", "Retry-After of clients that are turned away")
    journal_capacity: int = Field(
        10_000, ge=1, description="Events that may wait for the disk in each worker; more are dropped and counted."
    )
    journal_flush_ms: float = Field(
        100.0, gt=0, le=10_000, description="Longest wait of an event for its batch, in ms."
    )
    journal_rotate_bytes: int = Field(64 << 20, ge=4_096, description="Size that finishes a log file.")
    journal_rotate_s: Seconds = Field(3_600.0, description="Age that finishes a log file, in seconds.")
    journal_retention_s: Seconds = Field(
        8 * 86_400.0, description="Age after which a finished log file is deleted though not every reader has it."
    )
    outcome_window: int = Field(
        200_000, ge=0, description="Outcome ids remembered, so that a repeated one is not written twice."
    )
    outcome_batch: int = Field(5_000, ge=1, description="Outcomes in one request at most.")
    outcome_body_bytes: int = Field(4 << 20, ge=1_024, description="Bytes of one request with outcomes at most.")
    log_level: str = Field(
        "info", pattern="^(debug|info|warning|error)$", description="What is logged, by the workers too."
    )

    @property
    def certificates(self) -> Files:
        """The files for TLS of the control API."""
        return Files(self.control_cert, self.control_key, self.client_ca, "client_ca")

    @property
    def kept_table(self) -> Path:
        """Where the last route table is kept."""
        return self.table_file or self.journal_dir / "table.json"

    def worker_config(self, worker: str, port: int) -> WorkerConfig:
        """What the worker of this name is told. Raises ValidationError for a value that it does not allow."""
        shared = WorkerConfig.model_fields.keys() & RouterSettings.model_fields.keys() - {"port"}
        return WorkerConfig(
            worker=worker,
            router=self.name,
            port=port,
            **{name: getattr(self, name) for name in shared},
        )


def environment_name(field: str) -> str:
    """The environment variable of a field."""
    return PREFIX + field.upper()
