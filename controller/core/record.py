"""What was decided on which inputs: enough to derive the decision again, bit for bit.

A record holds the declared spec, the status before, the statistics and the time; ``digest`` is the SHA-256 of the
canonical JSON of the status after. Keyed (uid, generation, sequence): writing it twice writes it once.
"""

import hashlib
import json
from typing import Any, NamedTuple

from pydantic import BaseModel

_SCALARS = frozenset({int, float, str, bool})  # most of what a record holds


class Record(NamedTuple):
    """One decision. ``inputs`` is canonical JSON text of spec, status before, statistics and now."""

    uid: str
    generation: int
    sequence: int
    now: int
    decision: str
    reason: str
    message: str
    inputs: str
    digest: str

    @property
    def key(self) -> str:
        return f"{self.uid}/{self.generation}/{self.sequence}"


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces; integers of any size; pydantic models by their aliases."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 of ``canonical(value)``, hexadecimal."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if value is None or type(value) in _SCALARS:
        return value
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {k: _plain(v) for k, v in value._asdict().items()}
    if isinstance(value, dict):
        return {_key(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def _key(key: Any) -> str:
    return "|".join(key) if isinstance(key, tuple) else str(key)
