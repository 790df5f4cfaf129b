"""What is said of something stored that cannot be read any more."""

from pydantic import ValidationError

from controller.errors import EdgeError


def unreadable(what: str, error: ValidationError) -> EdgeError:
    """The error for ``what``, with the place and the text of its first fault."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return EdgeError(f"{what} cannot be read: {where}: {first['msg']}; was it written by another release?")
