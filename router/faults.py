"""What the control API answers where something is wrong.

``{"error": text, "problems": [{"field", "message", "index"}]}``; ``index`` is that of an outcome within its request.
"""

from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

# Answers given while the body is still coming and its rest is not waited for. After others it is thrown away as it
# comes: to close would reset the connection of who is still sending, and the answer could be lost on its way.
_UNREAD = {408, 413}


class Fault(Exception):
    """An answer that is none of the good ones."""

    def __init__(
        self, status: int, error: str, found: list[dict[str, Any]] | None = None, retry_after: int | None = None
    ) -> None:
        self.status = status
        self.content: dict[str, Any] = {"error": error, "problems": found or []}
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        if status in _UNREAD:
            self.headers["Connection"] = "close"
        super().__init__(error)

    def response(self) -> JSONResponse:
        return JSONResponse(self.content, self.status, self.headers)


async def answer_fault(_: Request, fault: Exception) -> Response:
    """What FastAPI calls for a Fault."""
    assert isinstance(fault, Fault)
    return fault.response()


async def answer_invalid(_: Request, error: Exception) -> Response:
    """What FastAPI calls where parameters, or a body that it reads itself, are not as declared."""
    assert isinstance(error, RequestValidationError)
    found = [
        {"index": None, "field": ".".join(map(str, fault["loc"][1:])), "message": str(fault["msg"])}
        for fault in error.errors()
    ]
    return Fault(400, f"{found[0]['field']}: {found[0]['message']}", found).response()


async def answer_nowhere(request: Request, error: Exception) -> Response:
    """What FastAPI calls where a path does not exist, or not for this method."""
    assert isinstance(error, HTTPException)
    path = request.url.path[:256]
    if error.status_code == 404:
        return Fault(404, f"no path {path!r} here: /openapi.json lists them").response()
    if error.status_code == 405:
        allowed = sorted(
            method
            for route in request.app.state.routes
            if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
            for method in route.methods or ()
        )
        response = Fault(405, f"{path} is for {', '.join(allowed)}, not for {request.method}").response()
        response.headers["Allow"] = ", ".join(allowed)
        return response
    return Fault(error.status_code, str(error.detail)).response()


async def answer_broken(_: Request, __: Exception) -> Response:
    """What FastAPI calls where the router itself is at fault; its log tells more."""
    return Fault(500, "an error of the router, which its log describes").response()
