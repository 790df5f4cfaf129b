"""The way to the API server: plain dicts in and out, one deadline for every call, one set of errors.

The official client finds the server and who we are (kubeconfig, or the pod's service account, whose token it renews);
requests go over its connection pool. Nothing is retried here: the next tick does that. A conflict (409) is
``Conflict``, a missing object (404) ``NotFound``, a resource version that the server has forgotten (410) ``Expired``.
"""

import contextlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import orjson

from controller.edges.cluster.resources import REVIEWS, Resource
from controller.edges.exchange import TooLong
from controller.errors import Conflict, EdgeError, NotFound, SpecError

Node = dict[str, Any]
MANAGER = "understudy"
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
PAGE = 500
ANSWER_BYTES = 32 << 20
DEEPEST = 200  # levels of an answer that is nested more deeply than we can read; what is below is cut off
WATCH_S = 60  # the server ends a watch after this time; resuming costs one request
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_SLACK_S = 10.0
_STRING_OR_BRACKET = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[][{}]', re.DOTALL)


class Expired(EdgeError):
    """The server has forgotten that resource version: list again."""


class Invalid(EdgeError):
    """The server takes no such object: asking again does not mend that."""


class Listed(NamedTuple):
    """All objects of a list, and the resource version to watch from."""

    items: list[Node]
    version: str


class Access:
    """One process's way to one API server; safe for several threads.

    Every method may raise EdgeError with verb, kind, name and what the server said. ``calls`` counts them by verb and
    kind. Writing goes with the field manager ``understudy``, and a field that the server does not know is an error.
    """

    def __init__(
        self,
        kubeconfig: Path | None = None,
        context: str | None = None,
        *,
        deadline_s: float = 10.0,
        connections: int = 32,
        manager: str = MANAGER,
    ) -> None:
        """With ``kubeconfig`` or ``context`` as that file says; without either as the pod's service account says,
        or, outside of a pod, as kubectl would. SpecError where none of them names a cluster. ``namespace`` is the one
        that is meant where nobody names one."""
        try:
            from kubernetes.client.rest import RESTClientObject
        except ModuleNotFoundError as error:
            text = f"kubernetes: the package {error.name!r} is needed: pip install 'understudy[kubernetes]'"
            raise SpecError(text) from error

        self._configuration, self.namespace = _configuration(kubeconfig, context)
        self._configuration.connection_pool_maxsize = connections
        self._host = self._configuration.host.rstrip("/")
        self._pool = RESTClientObject(self._configuration).pool_manager
        self._deadline_s = deadline_s
        self._manager = manager
        self._guard: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self.calls: Counter[tuple[str, str]] = Counter()

    def guarded(self, guard: Callable[[], None]) -> "Access":
        """The same access, which asks ``guard`` before every write: it raises where we may not write any more."""
        twin = object.__new__(Access)
        twin.__dict__.update(self.__dict__)
        twin._guard = guard
        return twin

    def check(self) -> None:
        """Ask the guard, for what is written elsewhere than here."""
        self._guard()

    def get(self, resource: Resource, namespace: str | None, name: str, subresource: str = "") -> Node:
        return self._call("get", "GET", resource, (namespace, name, subresource))

    def list(self, resource: Resource, namespace: str | None, selector: str = "") -> Listed:
        """All objects with the labels of ``selector``, in pages."""
        while True:
            items: list[Node] = []
            with contextlib.suppress(Expired):  # the pages took so long that the first is forgotten
                return Listed(items, self._pages(resource, namespace, selector, items.append))

    def each(
        self, resource: Resource, namespace: str | None, take: Callable[[Node], object], selector: str = ""
    ) -> str:
        """Hand all objects to ``take``, a page in memory at a time, and return the resource version to watch from;
        where the first page is forgotten before the last is read, from the beginning again."""
        while True:
            with contextlib.suppress(Expired):
                return self._pages(resource, namespace, selector, take)

    def version(self, resource: Resource, namespace: str | None, selector: str = "") -> str:
        """The resource version to watch from, for who need not know what is there."""
        page = self._call("list", "GET", resource, (namespace, None, ""), {"labelSelector": selector, "limit": "1"})
        return str(page["metadata"]["resourceVersion"])

    def watch(
        self, resource: Resource, namespace: str | None, since: str, selector: str = "", seconds: int = WATCH_S
    ) -> Iterator[tuple[str, Node]]:
        """Changes after the resource version ``since`` as (ADDED | MODIFIED | DELETED | BOOKMARK, object), until the
        server ends the watch, which it does after ``seconds``; each object carries the version to go on from.
        Expired where the server has forgotten ``since``. An iterator that is dropped is closed."""
        query = {"watch": "1", "resourceVersion": since, "allowWatchBookmarks": "true", "timeoutSeconds": str(seconds)}
        if selector:
            query["labelSelector"] = selector
        what = f"watch {resource.plural}"
        self._count("watch", resource)
        response = self._send("GET", resource.path(namespace), query, None, "", seconds + _SLACK_S, what)
        try:
            if response.status != 200:
                _decoded(response.status, self._body(response, what), what)
            for line in _lines(response, what):
                event = _parsed(line, what)
                if event["type"] == "ERROR":
                    _decoded(int(event["object"].get("code", 500)), line, what, event["object"])
                yield event["type"], event["object"]
        finally:
            response.close()

    def create(self, resource: Resource, body: Node) -> Node:
        """Conflict where it exists."""
        return self._write("create", "POST", resource, body, named=False)

    def replace(self, resource: Resource, body: Node, subresource: str = "") -> Node:
        """Put ``body`` in its place. Conflict where its ``resourceVersion`` or ``uid`` is not the stored one's."""
        return self._write("replace", "PUT", resource, body, subresource)

    def apply(self, resource: Resource, body: Node, subresource: str = "") -> Node:
        """Server-side apply: the fields of ``body`` are ours from now on, those that we applied before and left out
        now are removed, everybody else's stay. Made where it does not exist."""
        return self._write("apply", "PATCH", resource, body, subresource, APPLY)

    def patch(self, resource: Resource, body: Node, subresource: str = "") -> Node:
        """JSON merge patch of the object that ``body.metadata`` names; with a ``resourceVersion`` only onto that."""
        return self._write("patch", "PATCH", resource, body, subresource, MERGE)

    def delete(self, resource: Resource, namespace: str | None, name: str, uid: str | None = None) -> None:
        """NotFound where it is gone, Conflict where it has another ``uid``. Dependents go after it."""
        body: Node = {"propagationPolicy": "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        self._guard()
        self._call("delete", "DELETE", resource, (namespace, name, ""), {}, body, "application/json")

    def whoami(self) -> str:
        """The user name under which the server knows us."""
        said = self._call("create", "POST", REVIEWS, (None, None, ""), {}, _typed(REVIEWS), "application/json")
        return str(said["status"]["userInfo"]["username"])

    def close(self) -> None:
        self._pool.clear()

    def _pages(self, resource: Resource, namespace: str | None, selector: str, take: Callable[[Node], object]) -> str:
        limit, query = PAGE, {"labelSelector": selector} if selector else {}
        while True:
            try:
                page = self._call("list", "GET", resource, (namespace, None, ""), {**query, "limit": str(limit)})
            except TooLong:
                # Somebody's large objects may not hide everybody's: one alone is never too long (etcd takes 1.5 MiB).
                if limit == 1:
                    raise
                limit //= 2
                continue
            # Items of a list do not say what they are.
            for item in page["items"]:
                take({**_typed(resource), **item})
            query["continue"] = page["metadata"].get("continue", "")
            if not query["continue"]:
                return str(page["metadata"]["resourceVersion"])

    def _write(
        self,
        verb: str,
        method: str,
        resource: Resource,
        body: Node,
        subresource: str = "",
        kind: str = "application/json",
        *,
        named: bool = True,
    ) -> Node:
        meta = body["metadata"]
        place = (meta.get("namespace"), meta["name"] if named else None, subresource)
        query = {"fieldManager": self._manager, "fieldValidation": "Strict"}
        if kind == APPLY:
            query["force"] = "true"
        self._guard()
        return self._call(verb, method, resource, place, query, {**_typed(resource), **body}, kind)

    def _call(
        self,
        verb: str,
        method: str,
        resource: Resource,
        place: tuple[str | None, str | None, str],
        query: dict[str, str] | None = None,
        body: Node | None = None,
        kind: str = "",
    ) -> Node:
        namespace, name, subresource = place
        shown = name or ((body or {}).get("metadata") or {}).get("name") or ""
        where = "/".join(filter(None, (namespace, shown, subresource)))
        what = f"{verb} {resource.kind} {where}".strip()
        self._count(verb, resource)
        sent = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        response = self._send(method, resource.path(*place), query or {}, sent, kind, self._deadline_s, what)
        try:
            return _decoded(response.status, self._body(response, what), what)
        finally:
            response.release_conn()

    def _send(
        self, method: str, path: str, query: dict[str, str], body: bytes | None, kind: str, timeout_s: float, what: str
    ) -> Any:
        """The response with its body unread. ``timeout_s`` between two pieces; connecting has our own deadline."""
        import urllib3

        headers = {"accept": "application/json", "user-agent": "understudy"}
        if body is not None:
            headers["content-type"] = kind
        try:
            for auth in self._configuration.auth_settings().values():
                headers[auth["key"]] = auth["value"]
            return self._pool.request(
                method,
                self._host + path + (f"?{urlencode(query)}" if query else ""),
                body=body,
                headers=headers,
                timeout=urllib3.Timeout(connect=self._deadline_s, read=timeout_s),
                retries=False,
                redirect=False,
                preload_content=False,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise EdgeError(f"{what}: the API server is not reachable: {_said(error)}") from error

    def _body(self, response: Any, what: str) -> bytes:
        import urllib3

        end, body = time.monotonic() + self._deadline_s, bytearray()
        try:
            # One read of the socket at a time: to fill a buffer may take longer than the deadline.
            while chunk := response.read1(1 << 16):
                body += chunk
                if len(body) > ANSWER_BYTES:
                    response.close()
                    raise TooLong(f"{what}: an answer of more than {ANSWER_BYTES} bytes")
                if time.monotonic() > end:
                    response.close()
                    raise EdgeError(f"{what}: the answer did not end within {self._deadline_s:g} s")
        except (urllib3.exceptions.HTTPError, OSError) as error:
            response.close()
            raise EdgeError(f"{what}: the answer broke off: {_said(error)}") from error
        return bytes(body)

    def _count(self, verb: str, resource: Resource) -> None:
        with self._lock:
            self.calls[verb, resource.kind] += 1


def _configuration(kubeconfig: Path | None, context: str | None) -> tuple[Any, str]:
    """The client's configuration, and the namespace that goes with it."""
    from kubernetes import config
    from kubernetes.client import Configuration

    found = Configuration()
    try:
        if kubeconfig is None and context is None:
            with contextlib.suppress(config.ConfigException, OSError):
                config.load_incluster_config(found)  # type: ignore[no-untyped-call]
                return found, (SERVICE_ACCOUNT / "namespace").read_text().strip()
        file = str(kubeconfig) if kubeconfig is not None else None
        config.load_kube_config(file, context, found, persist_config=False)  # type: ignore[no-untyped-call]
        contexts, active = config.list_kube_config_contexts(file)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError, ValueError) as error:
        raise SpecError(f"kubernetes: no cluster is known: {error}; --kubeconfig and --context name one") from error
    chosen = next((c for c in contexts if c["name"] == context), active)
    return found, chosen["context"].get("namespace") or "default"


def _typed(resource: Resource) -> Node:
    return {"apiVersion": resource.api, "kind": resource.kind}


def _lines(response: Any, what: str) -> Iterator[bytes]:
    import urllib3

    rest = b""
    try:
        while chunk := response.read1(1 << 16):
            *whole, rest = (rest + chunk).split(b"\n")
            yield from filter(None, whole)
            if len(rest) > ANSWER_BYTES:
                raise EdgeError(f"{what}: an event of more than {ANSWER_BYTES} bytes")
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise EdgeError(f"{what}: broke off: {_said(error)}") from error


def _parsed(body: bytes, what: str) -> Node:
    with contextlib.suppress(ValueError):  # nested too deeply for it, or half a character: the long way
        quickly: Node = orjson.loads(body)
        if isinstance(quickly, dict):
            return quickly
    try:
        try:
            tree = json.loads(body)
        except RecursionError:
            tree = json.loads(_shallow(body))
    except ValueError:
        tree = None
    if not isinstance(tree, dict):
        raise EdgeError(f"{what}: the answer is no JSON object: {body[:200].decode(errors='replace')}")
    return tree


def _shallow(body: bytes) -> bytes:
    """``body`` with null for all that is nested more deeply than ``DEEPEST``: one object of a list may not hide the
    others."""
    kept: list[bytes] = []
    depth = begin = 0
    for found in _STRING_OR_BRACKET.finditer(body):
        if found[0] in (b"[", b"{"):
            depth += 1
            if depth == DEEPEST + 1:
                kept += body[begin : found.start()], b"null"
        elif found[0] in (b"]", b"}"):
            if depth == DEEPEST + 1:
                begin = found.end()
            depth -= 1
    return b"".join([*kept, body[begin:]])


def _decoded(status: int, body: bytes, what: str, said: Node | None = None) -> Node:
    """The object in ``body``, or the error that it tells."""
    if 200 <= status < 300:
        return _parsed(body, what)
    text = body[:300].decode(errors="replace")
    with contextlib.suppress(EdgeError):
        said = said or _parsed(body, what)
        text = str(said.get("message") or said.get("reason") or text)
    kinds: dict[int, type[EdgeError]] = {404: NotFound, 409: Conflict, 410: Expired, 422: Invalid}
    raise kinds.get(status, EdgeError)(f"{what}: {status}: {text}")


def _said(error: Exception) -> str:
    """The cause, without the address and the pool that urllib3 wraps around it."""
    reason = getattr(error, "reason", None) or error
    return str(reason).rpartition(": ")[2] or type(error).__name__
