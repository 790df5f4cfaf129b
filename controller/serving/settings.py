"""The settings of one model server, and how they travel from the parent to a worker."""

from __future__ import annotations

import dataclasses
import json


@dataclasses.dataclass(frozen=True)
class ServeSettings:
    """Process settings; every field is a flag of `understudy serve`. Times in seconds, sizes in bytes."""

    model_uri: str
    host: str = "127.0.0.1"
    port: int = 8080
    max_requests: int = 0
    max_request_bytes: int = 8 * 1024 * 1024
    max_response_bytes: int = 8 * 1024 * 1024
    timeout: float = 10.0
    threads: int = 4
    max_waiting: int = 64
    max_connections: int = 1024
    drain_timeout: float = 15.0
    load_timeout: float = 300.0
    predict_fn: str | None = None
    model_name: str | None = None
    model_version: str | None = None
    allow_no_signature: bool = False


@dataclasses.dataclass(frozen=True)
class ModelSource:
    """Where the model was found. The first worker resolves it; its successors load exactly the same files,

    so that an alias which moved meanwhile, or a registry which is down, cannot change what is served.
    """

    path: str
    name: str | None = None
    version: str | None = None


@dataclasses.dataclass(frozen=True)
class WorkerOrder:
    """All that a worker process needs: settings, two file descriptors, a folder for downloads, and the source."""

    settings: ServeSettings
    listen_fd: int
    report_fd: int
    folder: str
    source: ModelSource | None = None

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> WorkerOrder:
        raw = json.loads(text)
        source = raw.pop("source")
        settings = ServeSettings(**raw.pop("settings"))
        return cls(settings=settings, source=ModelSource(**source) if source else None, **raw)
