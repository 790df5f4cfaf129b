"""What each path answers. Knows nothing of sockets: bytes and a callback in, an Answer out."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import logging
import traceback
from collections.abc import Callable

import orjson

from controller.serving.faults import Fault, InputFault, ModelFault, OverloadFault
from controller.serving.model import LoadedModel
from controller.serving.pool import ScoringPool, Ticket
from controller.serving.settings import ServeSettings

_logger = logging.getLogger("understudy.serve")
HEALTH_CACHE_SECONDS = 1.0
_LOGGED_PER_WINDOW = 5
_LOG_WINDOW_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class Answer:
    """A response without its framing."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


Respond = Callable[[Answer], None]


def json_answer(status: int, document: dict[str, object], headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    return Answer(status, orjson.dumps(document), headers=headers)


def fault_answer(fault: Fault, request_id: str) -> Answer:
    """The short JSON error of every fault."""
    headers = (("retry-after", "1"),) if isinstance(fault, OverloadFault) else ()
    document: dict[str, object] = {
        "error_code": fault.error_code,
        "message": fault.message,
        "request_id": request_id,
    }
    return json_answer(fault.status, document, headers)


def check_content_type(value: str) -> None:
    """Raises InputFault (415) for anything but JSON in UTF-8."""
    kind, *parameters = [part.strip() for part in value.split(";")]
    pairs = [parameter.partition("=") for parameter in parameters]
    utf8 = all(key.lower() == "charset" and text.strip('"').lower() == "utf-8" for key, _, text in pairs)
    if kind.lower() != "application/json" or not utf8:
        got = value[:60] or "none"
        raise InputFault(
            f"content type {got!r}; allowed: application/json (UTF-8)",
            status=415,
            error_code="UNSUPPORTED_MEDIA_TYPE",
        )


class Application:
    """Routes requests to the model, counts them, and keeps what the client must not see in the log.

    `on_due` is called once, when `max_requests` have been scored; `on_stuck` when all threads are overdue.
    """

    def __init__(
        self,
        model: LoadedModel,
        settings: ServeSettings,
        loop: asyncio.AbstractEventLoop,
        on_due: Callable[[], None],
        on_stuck: Callable[[], None],
    ) -> None:
        self._model = model
        self._settings = settings
        self._loop = loop
        self._on_due = on_due
        self.pool = ScoringPool(loop, settings.threads, settings.max_waiting, settings.timeout, on_stuck)
        self._scored = 0
        self._statuses: collections.Counter[int] = collections.Counter()
        self._health: Answer | None = None
        self._health_until = 0.0
        self._health_waiters: list[Respond] = []
        self._log_window = 0.0
        self._logged = 0

    def handle(
        self, method: str, path: str, content_type: str, body: bytes, request_id: str, respond: Respond
    ) -> Ticket | None:
        """Call `respond` once, now or later. A Ticket means later: abandon it when the client has gone."""
        allowed = "POST" if path == "/invocations" else "GET"
        if path not in ("/invocations", "/health", "/ping", "/version", "/metrics"):
            respond(fault_answer(InputFault("no such path", status=404, error_code="NOT_FOUND"), request_id))
        elif method != allowed and not (method == "HEAD" and allowed == "GET"):
            fault = InputFault(f"allowed: {allowed} {path}", status=405, error_code="METHOD_NOT_ALLOWED")
            answer = fault_answer(fault, request_id)
            respond(dataclasses.replace(answer, headers=(("allow", allowed),)))
        elif path == "/invocations":
            return self._invoke(content_type, body, request_id, respond)
        elif path == "/health":
            self.health(respond)
        elif path == "/ping":
            respond(json_answer(200, {"status": "ok"}))
        elif path == "/version":
            respond(json_answer(200, self.version()))
        else:
            respond(Answer(200, self.metrics().encode(), "text/plain; version=0.0.4; charset=utf-8"))
        return None

    def version(self) -> dict[str, object]:
        source = self._model.source
        return {
            "model_uri": self._settings.model_uri,
            "model_name": source.name,
            "model_version": source.version,
            "predict_fn": self._model.predict_fn,
            "input": self._model.path_taken,
            "mlflow_version": self._model.mlflow_version,
        }

    def metrics(self) -> str:
        lines = ["# TYPE understudy_serve_requests_total counter"]
        for status, count in sorted(self._statuses.items()):
            lines.append(f'understudy_serve_requests_total{{status="{status}"}} {count}')
        lines += [
            "# TYPE understudy_serve_predict_seconds_total counter",
            f"understudy_serve_predict_seconds_total {self._model.scorer.predict_seconds:.6f}",
            "# TYPE understudy_serve_overload_total counter",
            f"understudy_serve_overload_total {self.pool.refused}",
            "# TYPE understudy_serve_pending gauge",
            f"understudy_serve_pending {self.pool.pending}",
        ]
        return "\n".join(lines) + "\n"

    def count(self, answer: Answer) -> None:
        """Count one answer to /invocations, whoever wrote it."""
        self._statuses[answer.status] += 1

    def _invoke(self, content_type: str, body: bytes, request_id: str, respond: Respond) -> Ticket | None:
        def done(result: object) -> None:
            self._scored += 1
            answer = self._answer(result, request_id)
            self.count(answer)
            respond(answer)
            if self._scored == self._settings.max_requests:
                self._on_due()

        try:
            check_content_type(content_type)
            return self.pool.submit(lambda: self._model.scorer.score(body), done)
        except Fault as fault:
            answer = fault_answer(fault, request_id)
            self.count(answer)
            respond(answer)
            return None

    def _answer(self, result: object, request_id: str) -> Answer:
        if isinstance(result, bytes):
            return Answer(200, result)
        if isinstance(result, ModelFault):
            self._log(request_id, result.message, result.details)
            return fault_answer(result, request_id)
        if isinstance(result, Fault):
            return fault_answer(result, request_id)
        details = None
        if isinstance(result, BaseException):
            details = "".join(traceback.format_exception(result))
        self._log(request_id, "unexpected failure while scoring", details)
        return fault_answer(ModelFault("the model server failed on this request"), request_id)

    def _log(self, request_id: str, message: str, details: str | None) -> None:
        """Details of the first faults of a time window, one line for each later one: a log must not fill a disk."""
        now = self._loop.time()
        if now - self._log_window > _LOG_WINDOW_SECONDS:
            self._log_window, self._logged = now, 0
        self._logged += 1
        if self._logged <= _LOGGED_PER_WINDOW:
            _logger.error("request %s: %s%s", request_id, message, f"\n{details}" if details else "")
        else:
            _logger.error("request %s: %s", request_id, message)

    def health(self, respond: Respond) -> None:
        """Score the model's example, at most once a second and never twice at a time, however often it is asked."""
        if self._health is not None and self._loop.time() < self._health_until:
            respond(self._health)
            return
        if len(self._health_waiters) >= self._settings.max_connections:
            respond(json_answer(503, {"status": "failing", "reason": "too many health checks at once"}))
            return
        self._health_waiters.append(respond)
        if len(self._health_waiters) > 1:
            return
        example = self._model.example
        if example is None:
            self._settle_health(json_answer(200, {"status": "ok", "example": "missing"}))
        else:
            self.pool.submit(lambda: self._model.scorer.score(example), self._health_scored, beyond_bound=True)

    def _health_scored(self, result: object) -> None:
        if isinstance(result, bytes):
            self._settle_health(json_answer(200, {"status": "ok", "example": "scored"}))
            return
        if isinstance(result, ModelFault):
            self._log("health", result.message, result.details)
        if isinstance(result, Fault):
            code, reason = result.error_code, result.message
        else:
            code, reason = "MODEL_ERROR", "the model server failed on the example"
        document: dict[str, object] = {
            "status": "failing",
            "example": "failed",
            "error_code": code,
            "reason": f"the model's own example: {reason}",
        }
        self._settle_health(json_answer(503, document))

    def _settle_health(self, answer: Answer) -> None:
        self._health = answer
        self._health_until = self._loop.time() + HEALTH_CACHE_SECONDS
        waiters, self._health_waiters = self._health_waiters, []
        for respond in waiters:
            respond(answer)
