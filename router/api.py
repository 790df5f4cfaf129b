"""The control and outcome API: the table in, the state out, outcomes in, journals out. FastAPI on a port of
its own.

Faults are answered ``{"error": text, "problems": [{"field", "message", "index"}]}``. Bodies are bounded while
they are read. A read of ``/v1/state`` and a write of ``/v1/table`` count as word from the controller; people
and dashboards look at ``/v1/table`` and ``/metrics``, which do not.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from pydantic import Field, TypeAdapter, ValidationError
from starlette.exceptions import HTTPException

from router import telemetry
from router.auth import Access
from router.events import Outcome
from router.faults import Fault, answer_broken, answer_fault, answer_invalid, answer_nowhere
from router.gate import Gate
from router.journal import Writer
from router.journal_reader import acknowledge, forget, journals, read_from
from router.outcomes import BadOutcomes, Outcomes
from router.settings import RouterSettings
from router.supervisor import Supervisor
from router.table import RouterState, RouteTable, Wire
from router.table_store import TableConflict, problems

_TABLE_BYTES = 1 << 20
_POSITIONS_BYTES = 1 << 20
_LONGEST_WAIT_S = 30.0
_BODY_S = 10.0
# Of a body that is refused for its size so much is still read: a client that is sending hears the refusal only then.
_READ_ON = 16 << 20
_APPEND_S = 5.0
_APPENDS_AT_ONCE = 8
_TAKING_AT_ONCE = 64
_JOURNAL_BYTES = 8 << 20
_JSON = {"application/json"}
_LINES = {"application/x-ndjson", "application/jsonl", "application/x-jsonlines"}


class Accepted(Wire):
    """Answer to outcomes that were taken: all of them, durable."""

    accepted: int = Field(description="outcomes in the request")
    written: int = Field(description="of them new")
    duplicates: int = Field(description="of them the same as before")
    conflicts: list[dict[str, Any]] = Field(
        description="of them under an id that came before with another content, which holds: index, outcome_id"
    )


class JournalListing(Wire):
    """A journal's files, oldest first."""

    journal: str
    files: list[dict[str, int]] = Field(description="file (number) and size (bytes)")


class Acknowledged(Wire):
    """The next byte of a journal that a reader wants."""

    file: int = Field(ge=0)
    offset: int = Field(ge=0)


_POSITIONS = TypeAdapter(dict[str, Acknowledged])


class ControlPlane:
    """What the API works on."""

    def __init__(self, settings: RouterSettings, supervisor: Supervisor, writer: Writer, access: Access) -> None:
        self.settings = settings
        self.supervisor = supervisor
        self.writer = writer
        self.access = access
        self.outcomes = Outcomes(writer.append, settings.outcome_window, settings.outcome_batch)
        self.threads = ThreadPoolExecutor(_APPENDS_AT_ONCE, thread_name_prefix="outcomes")
        self.taking = 0
        self.answered: dict[int, int] = {}

    def numbers(self) -> dict[str, float]:
        """Every metric of this router, by name."""
        supervisor, store = self.supervisor, self.supervisor.store
        state = supervisor.state()
        numbers: dict[str, float] = supervisor.counters()
        for name, value in self.writer.counters().items():
            numbers[name] = numbers.get(name, 0) + value
        numbers |= self.outcomes.counters()
        numbers |= {f'outcome_requests_total{{status="{s}"}}': n for s, n in self.answered.items()}
        return numbers | {
            "workers": len(state.workers),
            "workers_unconfirmed": sum(worker.generation < state.generation for worker in state.workers),
            "worker_restarts_total": supervisor.restarts,
            "table_generation": state.generation,
            "table_persisted": int(store.persisted),
            "controller_heard_timestamp_seconds": store.heard / 1e6,
            "breaker_open": sum(worker.breaker != "closed" for worker in state.workers),
            "breaker_open_seconds": max((w.breaker_open_ms for w in state.workers), default=0) / 1e3,
        }


def _plane(request: Request) -> ControlPlane:
    plane: ControlPlane = request.app.state.plane
    return plane


Plane = Annotated[ControlPlane, Depends(_plane)]
routes = APIRouter()


async def _body(request: Request, limit: int) -> bytes:
    """The body, refused where it is longer than ``limit``, and after ``_BODY_S`` seconds."""
    parts, size = [], 0
    if "content-encoding" in request.headers:
        raise Fault(415, "bodies are taken as they are, without Content-Encoding")
    try:
        async with asyncio.timeout(_BODY_S):
            async for part in request.stream():
                size += len(part)
                if size <= limit:
                    parts.append(part)
                elif size > limit + _READ_ON:
                    break
    except TimeoutError:
        if size <= limit:
            raise Fault(408, f"the body did not come within {_BODY_S:g} s") from None
    if size > limit:
        raise Fault(413, f"the body has more than {limit} bytes")
    return b"".join(parts)


def _media_type(request: Request, allowed: set[str]) -> str:
    """The media type; any other than the allowed is refused, so that no web page's form can send one."""
    named = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if named not in allowed:
        raise Fault(415, f"Content-Type has to be {' or '.join(sorted(allowed))}, not {named or 'missing'}")
    return named


def _documented(schema: dict[str, Any], *media_types: str) -> dict[str, Any]:
    content = {media: {"schema": schema} for media in media_types}
    return {"requestBody": {"required": True, "content": content}}


@routes.put(
    "/v1/table",
    response_model=RouterState,
    responses={409: {"description": "an older generation, or the same one with another content"}},
    openapi_extra=_documented(RouteTable.model_json_schema(), "application/json"),
)
async def put_table(
    request: Request,
    plane: Plane,
    wait: Annotated[float, Query(ge=0, le=_LONGEST_WAIT_S, description="seconds to wait for all workers")] = 0,
) -> RouterState:
    """Serve a table. Idempotent. The answer says what each worker serves; with ``wait`` once all have
    confirmed.
    """
    _media_type(request, _JSON)
    try:
        table = RouteTable.model_validate_json(await _body(request, _TABLE_BYTES))
    except ValidationError as error:
        found = [{**problem, "index": None} for problem in problems(error)]
        raise Fault(400, f"no route table: {found[0]['message']}", found) from None
    try:
        await plane.supervisor.put(table)
    except TableConflict as conflict:
        raise Fault(409, str(conflict)) from None
    if wait:
        await plane.supervisor.confirmed(table.generation, wait)
    return plane.supervisor.state()


@routes.get("/v1/table", response_model=RouteTable, responses={404: {"description": "no table yet"}})
async def get_table(plane: Plane) -> RouteTable:
    """The table held, the newest that was ever put."""
    table = plane.supervisor.store.table
    if table is None:
        raise Fault(404, "no route table yet")
    return table


@routes.get("/v1/state", response_model=RouterState)
async def get_state(plane: Plane) -> RouterState:
    """Which generation each worker serves (-1: none yet), and its breaker. For the controller: counts as its
    word.
    """
    plane.supervisor.hear()
    return plane.supervisor.state()


@routes.post(
    "/v1/outcomes",
    status_code=202,
    response_model=Accepted,
    responses={503: {"description": "the journal takes nothing now: send all of it again after Retry-After"}},
    openapi_extra=_documented(
        {
            "type": "object",
            "required": ["outcomes"],
            "properties": {"outcomes": {"type": "array", "items": Outcome.model_json_schema()}},
        },
        "application/json",
        "application/x-ndjson",
    ),
)
async def post_outcomes(request: Request, plane: Plane) -> Accepted:
    """Take outcomes, all or none, durable before the answer; the same ``outcome_id`` again changes nothing."""
    try:
        taken = await _take(request, plane)
    except Fault as fault:
        plane.answered[fault.status] = plane.answered.get(fault.status, 0) + 1
        raise
    plane.answered[202] = plane.answered.get(202, 0) + 1
    return taken


async def _take(request: Request, plane: ControlPlane) -> Accepted:
    media = _media_type(request, _JSON | _LINES)
    if plane.taking >= _TAKING_AT_ONCE:
        raise Fault(503, "too many requests with outcomes at once", retry_after=1)
    plane.taking += 1
    try:
        body = await _body(request, plane.settings.outcome_body_bytes)
        taken = await asyncio.get_running_loop().run_in_executor(
            plane.threads, lambda: plane.outcomes.take(body, lines=media in _LINES, timeout=_APPEND_S)
        )
    except BadOutcomes as error:
        raise Fault(400, f"nothing was taken: {error}", error.problems) from None
    except OSError as error:
        raise Fault(503, f"the journal does not take outcomes now: {error}", retry_after=1) from None
    finally:
        plane.taking -= 1
    return Accepted(**taken._asdict())


@routes.get("/v1/journals", response_model=list[JournalListing])
def get_journals(plane: Plane) -> list[JournalListing]:
    """Every journal of this router, with its files."""
    return [
        JournalListing(journal=journal, files=[file._asdict() for file in files])
        for journal, files in journals(plane.settings.journal_dir).items()
    ]


@routes.get(
    "/v1/journals/{journal}",
    response_class=Response,
    responses={
        200: {
            "content": {"application/octet-stream": {}},
            "headers": {
                "X-Journal-File": {"description": "next position: file", "schema": {"type": "integer"}},
                "X-Journal-Offset": {"description": "next position: offset", "schema": {"type": "integer"}},
            },
        }
    },
)
def get_journal(
    plane: Plane,
    journal: Annotated[str, Path(max_length=128)],
    file: Annotated[int, Query(ge=0, le=99_999_999)] = 0,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=_JOURNAL_BYTES, description="about so many bytes at most")] = 1 << 20,
) -> Response:
    """Whole lines of a journal from a position on; the next position is in the headers. Empty: nothing new."""
    directory = plane.settings.journal_dir
    try:
        if journal not in journals(directory):
            raise Fault(404, f"no journal {journal!r} here")
        chunk = read_from(directory, journal, file, offset, limit)
    except ValueError as error:
        raise Fault(416, str(error)) from None
    except OSError as error:
        raise Fault(503, f"the journal cannot be read now: {error}", retry_after=1) from None
    return Response(
        b"".join(line + b"\n" for line in chunk.lines),
        media_type="application/octet-stream",
        headers={"X-Journal-File": str(chunk.file), "X-Journal-Offset": str(chunk.offset)},
    )


@routes.put(
    "/v1/readers/{reader}",
    status_code=204,
    openapi_extra=_documented(
        {"type": "object", "additionalProperties": Acknowledged.model_json_schema()}, "application/json"
    ),
)
async def put_reader(request: Request, plane: Plane, reader: str) -> None:
    """Say that a reader needs nothing before these positions (by journal) any more."""
    _media_type(request, _JSON)
    body = await _body(request, _POSITIONS_BYTES)
    try:
        positions = {name: (at.file, at.offset) for name, at in _POSITIONS.validate_json(body).items()}
        await asyncio.to_thread(acknowledge, plane.settings.journal_dir, reader, positions)
    except ValidationError as error:
        found = [{**problem, "index": None} for problem in problems(error)]
        raise Fault(400, f"no positions: {found[0]['message']}", found) from None
    except ValueError as error:
        raise Fault(400, str(error)) from None
    except OSError as error:
        raise Fault(503, f"cannot be written now: {error}", retry_after=1) from None


@routes.delete("/v1/readers/{reader}", status_code=204)
def delete_reader(plane: Plane, reader: str) -> None:
    """Nothing is kept for this reader any more; one that nobody knows changes nothing."""
    try:
        forget(plane.settings.journal_dir, reader)
    except ValueError as error:
        raise Fault(400, str(error)) from None
    except OSError as error:
        raise Fault(503, f"cannot be written now: {error}", retry_after=1) from None


@routes.get("/healthz")
async def healthz() -> dict[str, str]:
    """The supervisor runs."""
    return {"status": "ok"}


@routes.get("/readyz", responses={503: {"description": "traffic should go elsewhere"}})
async def readyz(plane: Plane) -> dict[str, str]:
    """A table is held and a worker serves it."""
    why = plane.supervisor.unready()
    if why is not None:
        raise Fault(503, why, retry_after=1)
    return {"status": "ready"}


@routes.get("/metrics", response_class=Response)
async def metrics(plane: Plane) -> Response:
    """Prometheus metrics, those of all workers summed."""
    return Response(telemetry.page(plane.numbers()), media_type="text/plain; version=0.0.4; charset=utf-8")


def build_app(plane: ControlPlane) -> FastAPI:
    """The API over a control plane."""
    app = FastAPI(
        title="understudy router",
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(HTTPBearer(auto_error=False, description="needed without a client certificate"))],
    )
    app.state.plane = plane
    metrics = {"/metrics"} if plane.settings.open_metrics else set()
    app.state.routes = [*app.router.routes, *routes.routes]
    app.include_router(routes)
    app.add_exception_handler(Fault, answer_fault)
    app.add_exception_handler(RequestValidationError, answer_invalid)
    app.add_exception_handler(HTTPException, answer_nowhere)
    app.add_exception_handler(Exception, answer_broken)
    app.add_middleware(Gate, access=plane.access, probes={"/healthz", "/readyz"} | metrics)
    return app


__all__ = ["ControlPlane", "build_app"]
