"""What one router worker is told when it starts; everything else comes with the route table."""

import importlib.util
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from router.table import Wire

# So many clients that were answered last, and only have to go, stay for a moment beyond the most connections.
GOING = 64
# Of a process's descriptors these are not for connections: journal, channels, listeners, libraries.
_OTHERS = 64
# JSON, by which a worker is told, has no number without end.
_LONGEST_S = 86_400 * 366

Seconds = Annotated[float, Field(gt=0, le=_LONGEST_S)]


class WorkerConfig(Wire):
    """Settings of one worker: one process, one event loop, one journal. Times in seconds, sizes in bytes."""

    router: str = Field(max_length=63)
    worker: str = Field(max_length=63, description="the worker's name; its journal is <router>-<worker>")
    host: str = "127.0.0.1"
    port: int = Field(0, ge=0, le=65_535, description="0 takes any free port")
    backlog: int = Field(2_048, ge=1)

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    loop: Literal["auto", "asyncio", "uvloop"] = Field("auto", description="the event loop; auto: uvloop if installed")

    journal_dir: Path
    journal_capacity: int = Field(10_000, ge=1)
    journal_flush_ms: float = Field(100.0, gt=0)
    journal_rotate_bytes: int = Field(64 << 20, ge=4_096)
    journal_rotate_s: Seconds = 3_600.0

    max_connections: int = Field(4_096, ge=1, description="clients; beyond, the longest idle one has to go")
    max_header_bytes: int = Field(32 << 10, ge=256, le=1 << 20)
    max_body_bytes: int = Field(64 << 20, ge=0)
    max_held_bytes: int = Field(
        256 << 20, ge=0, description="request bodies, and requests sent ahead, held at the same time, all clients"
    )
    max_held_answer_bytes: int = Field(
        256 << 20, ge=0, description="answers held until they are judged, or not read by their clients; all clients"
    )
    idle_s: Seconds = Field(75.0, description="a client's connection without a request")
    head_s: Seconds = Field(
        10.0,
        description="from the first byte of a request to the end of its head; who takes longer for a request or the "
        "last answer of a connection, goes first where connections run out",
    )
    body_s: Seconds = Field(60.0, description="longest pause between two parts of a request's body")
    min_body_rate: float = Field(
        1_024.0,
        gt=0,
        allow_inf_nan=False,
        description="least average rate of a request's body, bytes a second, beyond body_s",
    )
    stall_s: Seconds = Field(60.0, description="longest pause of a streamed answer, or of a client reading it")
    total_s: Seconds = Field(300.0, description="an answer that is passed on as it comes, from its first part")
    drain_s: float = Field(
        15.0, ge=0, le=_LONGEST_S, description="time for requests in flight when the worker is to end"
    )

    champion_connections: int = Field(1_024, ge=1, description="to each upstream")
    champion_queue: int = Field(1_024, ge=0, description="requests that may wait for one of them")
    challenger_connections: int = Field(1_024, ge=1, description="to each upstream; none free is Overload")
    mirrors: int = Field(64, ge=0, description="mirrored requests in flight; beyond, they are not sent")
    connect_s: Seconds = 1.0
    upstream_idle_s: Seconds = Field(
        4.0, description="a connection kept for the next request; below the servers' own limit"
    )
    upstream_fresh_s: float = Field(
        4.0,
        ge=0,
        le=_LONGEST_S,
        description="idle for less, a kept connection was not closed by a tired server: what it drops fails",
    )
    retry_after_s: int = Field(1, ge=1, description="said to clients that are turned away")

    @field_validator("loop")
    @classmethod
    def _installed(cls, loop: str) -> str:
        if loop == "uvloop" and importlib.util.find_spec("uvloop") is None:
            raise ValueError("uvloop is not installed: pip install uvloop, or choose auto or asyncio")
        return loop

    def within(self, descriptors: int) -> "WorkerConfig":
        """The same with no more clients than a process with so many descriptors can serve: connections to servers have
        up to a half of them.
        """
        servers = self.champion_connections + self.challenger_connections + self.mirrors
        left = descriptors - _OTHERS - GOING
        clients = max(1, left - min(servers, left // 2))
        return self if self.max_connections <= clients else self.model_copy(update={"max_connections": clients})
