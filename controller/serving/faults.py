"""What can go wrong with a request, and who is told what.

```
Fault
├── InputFault      4xx  the client must change the request; the message says where and what is allowed
├── ModelFault      500  the model (or its answer) is broken; the client gets one short sentence, the log the rest
└── OverloadFault   503  too much work at once; the client should try again
```
"""

from __future__ import annotations


class Fault(Exception):
    """An answer that is not a prediction. `message` is what the client may read: no paths, no stack traces."""

    status = 500
    error_code = "MODEL_ERROR"

    def __init__(self, message: str, *, status: int | None = None, error_code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if status is not None:
            self.status = status
        if error_code is not None:
            self.error_code = error_code


class InputFault(Fault):
    """The request is at fault."""

    status = 400
    error_code = "BAD_REQUEST"


class ModelFault(Fault):
    """The model is at fault. `details` goes to the log only."""

    def __init__(self, message: str, *, details: str | None = None) -> None:
        super().__init__(message)
        self.details = details


class OverloadFault(Fault):
    """Nobody is at fault: there is more work than the server takes on."""

    status = 503
    error_code = "TEMPORARILY_UNAVAILABLE"


class ModelRefused(Exception):
    """The model cannot be served as it is, and starting again would not help: the user must act."""


def shown(value: object, limit: int = 40) -> str:
    """A client's value as it may appear in an error message: its JSON type and a bounded excerpt."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "the boolean true" if value else "the boolean false"
    if isinstance(value, str):
        text = value if len(value) <= limit else value[:limit] + "…"
        return f"the string {text!r}"
    if isinstance(value, int | float):
        return f"the number {value!r}"
    return "a list" if isinstance(value, list) else "an object"
