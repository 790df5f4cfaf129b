"""The routers' control API: hands them the table, and asks which one each of their workers serves."""

import json
import logging
import time
from collections.abc import Sequence

from pydantic import ValidationError

from controller.edges.exchange import Answer, Call, Exchange, Untrusted
from controller.errors import EdgeError, SpecError
from controller.ports import TrafficObservation
from router.certificates import BadCertificate, Certificates, Files
from router.table import RouterState, RouteTable

log = logging.getLogger("understudy.routes")

_POLL_S = 0.02


class RouterTraffic:
    """Every router that serves the rollout, asked in parallel: a dead one does not hold up the others."""

    def __init__(
        self,
        control_urls: Sequence[str],
        token: str | None = None,
        files: Files = Files(),  # noqa: B008 — nothing in it can change
        deadline_s: float = 2.0,
    ) -> None:
        """``control_urls``: ``http://host:port`` or ``https://host:port`` of each control API; ``files``: for https,
        whom to trust (without: the authorities of the system) and what to show; ``deadline_s``: of a whole call to
        all. SpecError for what cannot be used."""
        wrong = [url for url in control_urls if not url.startswith(("http://", "https://"))]
        if wrong or not control_urls:
            raise SpecError(f"router: each control address must begin with http:// or https://, got {wrong or 'none'}")
        self._urls = tuple(url.rstrip("/") for url in control_urls)
        headers = {"authorization": f"Bearer {token}"} if token else None
        self._certificates = _certificates(self._urls, files)
        tls = None if self._certificates is None else self._certificates.context
        self._exchange = Exchange(deadline_s, headers=headers, answer_limit=8 << 20, tls=tls)

    def apply(self, table: RouteTable) -> None:
        """Give ``table`` to every router; returns before their workers confirm it. EdgeError has one line per router
        that did not take it; the others have it."""
        body = table.model_dump_json().encode()
        answers = self._ask([Call("PUT", f"{url}/v1/table", body) for url in self._urls])
        failed = [
            f"router {url}: {_refusal(answer, table.generation)}"
            for url, answer in zip(self._urls, answers, strict=True)
            if isinstance(answer, EdgeError) or not 200 <= answer.status < 300
        ]
        if failed:
            raise EdgeError("; ".join(failed))

    def observe(self) -> TrafficObservation:
        """The state of every router that answers. EdgeError where one answers with anything but its state, or not to
        us: that is a wrong token, certificate, address or version, which waiting does not mend."""
        answers = self._ask([Call("GET", f"{url}/v1/state") for url in self._urls])
        states = [
            _state(url, answer)
            for url, answer in zip(self._urls, answers, strict=True)
            # Restarting routers and gateways before them say 502 to 504.
            if isinstance(answer, Untrusted) or (isinstance(answer, Answer) and answer.status < 500)
        ]
        return TrafficObservation(tuple(states), complete=len(states) == len(self._urls))

    def wait_confirmed(self, generation: int, deadline_s: float) -> TrafficObservation:
        """Ask until every worker of every router serves ``generation`` or a newer one, and return what the last
        answer was. EdgeError after ``deadline_s`` names who does not."""
        end = time.monotonic() + deadline_s
        while True:
            seen = self.observe()
            if seen.confirmed >= generation:
                return seen
            if time.monotonic() >= end:
                behind = [f"{s.router} serves {s.confirmed}" for s in seen.routers if s.confirmed < generation]
                behind += [] if seen.complete else [f"{len(self._urls) - len(seen.routers)} without an answer"]
                raise EdgeError(f"table {generation} is not confirmed after {deadline_s:g} s: " + ", ".join(behind))
            time.sleep(_POLL_S)

    def close(self) -> None:
        self._exchange.close()

    def _ask(self, calls: Sequence[Call]) -> list[Answer | EdgeError]:
        try:
            if self._certificates is not None and self._certificates.renew():
                log.info("the certificates for the routers were renewed")
        except BadCertificate as error:
            log.error("the new certificates are not used: %s", error)
        return self._exchange.all(calls)


def _certificates(urls: Sequence[str], files: Files) -> Certificates | None:
    if all(url.startswith("http://") for url in urls):
        if files.named():
            setting = next(iter(files.named())).replace("_", "-")
            raise SpecError(f"--{setting} is for a control address with https://, not {', '.join(urls)}")
        return None
    try:
        return Certificates(files, server=False)
    except BadCertificate as error:
        raise SpecError(str(error)) from None


def _refusal(answer: Answer | EdgeError, generation: int) -> str:
    if isinstance(answer, EdgeError):
        return str(answer)
    detail = _detail(answer)
    if answer.status == 409:
        return f"refuses table {generation}: {detail}"
    if answer.status == 401:
        return f"refuses the token (UNDERSTUDY_ROUTER_TOKEN): {detail}"
    return f"status {answer.status}: {detail}"


def _state(url: str, answer: Answer | Untrusted) -> RouterState:
    if isinstance(answer, Untrusted) or answer.status != 200:
        raise EdgeError(f"router {url}: {_refusal(answer, -1)}")
    try:
        return RouterState.model_validate_json(answer.body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise EdgeError(f"router {url}: its state cannot be read: {where}: {first['msg']}") from error


def _detail(answer: Answer) -> str:
    """What the router says is wrong, with the first field it names."""
    text = answer.body[:2000].decode(errors="replace")
    try:
        tree = json.loads(text)
        problems = [f"{p['field']}: {p['message']}" for p in tree["problems"][:1]]
        return "; ".join([str(tree["error"]), *problems])
    except (ValueError, KeyError, TypeError, RecursionError):
        return text[:300]
