"""What the contract suites of the ports declare and decide."""

from typing import Any

from controller.core.record import Record, canonical
from controller.spec import ModelRollout
from controller.status import Attempt, PersonRequest, RolloutStatus

STARTED = 1_760_000_000_000_000


def rollout(name: str = "flight-delay", *, labels: dict[str, str] | None = None, **spec: Any) -> ModelRollout:
    """A small valid rollout; keyword arguments replace fields of its spec."""
    return ModelRollout.model_validate(
        {
            "metadata": {"name": name, "labels": labels or {}},
            "spec": {
                "model": {"name": name},
                "unit": {"header": "x-unit-id"},
                "steps": [{"mirror": 100, "hold": "1m"}, {"weight": 5, "hold": "10m"}],
                "metrics": [{"name": "errors", "kind": "ErrorRate", "margin": "0.05pp"}],
                **spec,
            },
        }
    )


def record(uid: str, sequence: int, generation: int = 1, message: str = "5 % → 25 %") -> Record:
    inputs = canonical({"now": STARTED + sequence, "spec": {"name": "Ö ∑ \u2028"}})
    return Record(uid, generation, sequence, STARTED + sequence, "Hold", "MinUnits", message, inputs, "0" * 64)


def request(identity: str, verb: str = "pause") -> PersonRequest:
    return PersonRequest.model_validate({"id": identity, "verb": verb, "who": "Ada", "at": STARTED})


def attempt(number: int = 1, champion: str = "1", challenger: str = "2") -> Attempt:
    return Attempt(number=number, champion=champion, challenger=challenger, salt=f"u/{number}", started_at=STARTED)


def advanced(status: RolloutStatus, sequence: int, **changes: Any) -> RolloutStatus:
    """``status`` after ``sequence`` decisions."""
    return status.model_copy(update={"sequence": sequence, "clock": STARTED + sequence, **changes})
