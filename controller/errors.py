"""The errors of the controller.

::

    UnderstudyError
    ├── SpecError      terminal: the user must act (names the path and what is allowed)
    └── EdgeError      retryable: a system beyond an edge did not do its part
        ├── Conflict   somebody else wrote first; read again
        └── NotFound   the thing does not exist (yet)
"""


class UnderstudyError(Exception):
    """Root of all errors that understudy raises on purpose."""


class SpecError(UnderstudyError):
    """What the user declared cannot work. ``problems`` holds one line per fault: ``path: what is wrong``."""

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class EdgeError(UnderstudyError):
    """A registry, router, store, cluster or messenger failed; the next tick tries again."""


class Conflict(EdgeError):
    """The object changed since it was read."""


class NotFound(EdgeError):
    """The object does not exist."""
