"""Asking model servers and the tracking server whether they are there."""

import json
import logging
from typing import NamedTuple

import httpx

from controller.edges.exchange import finite, named_version

# It logs every call, and these are made once a second.
logging.getLogger("httpx").setLevel(logging.WARNING)

_ANSWER_LIMIT = 1 << 20


class Readiness(NamedTuple):
    """``message`` says why not."""

    ready: bool
    message: str = ""


class Asking:
    """Short questions over HTTP; every one has an answer after ``deadline_s`` at the latest."""

    def __init__(self, deadline_s: float = 5.0) -> None:
        self._client = httpx.AsyncClient(timeout=deadline_s, trust_env=False)

    async def health(self, url: str) -> Readiness:
        """Our own model server: it scores the model's example when asked."""
        try:
            answer = await self._client.get(f"{url}/health")
        except httpx.HTTPError as error:
            return Readiness(False, f"{url} does not answer: {_said(error)}")
        if answer.status_code == 200:
            return Readiness(True)
        return Readiness(False, _reason(answer))

    async def adopted(self, url: str, version: str, example: bytes | None) -> Readiness:
        """Anybody's model server: it answers the model's own example usably; without one, it answers at all."""
        try:
            named = named_version((await self._client.get(f"{url}/version")).content)
            if named is not None and named != version:
                return Readiness(False, f"{url} serves version {named}, wanted is {version}")
            if example is None:
                answer = await self._client.get(f"{url}/ping")
            else:
                headers = {"content-type": "application/json"}
                answer = await self._client.post(f"{url}/invocations", content=example, headers=headers)
        except httpx.HTTPError as error:
            return Readiness(False, f"{url} does not answer: {_said(error)}")
        if not 200 <= answer.status_code < 300:
            return Readiness(False, f"{url}: {_reason(answer)}")
        if example is not None and not finite(answer.content):
            return Readiness(False, f"{url}: the answer to the model's own example is not JSON, or holds NaN")
        return Readiness(True)

    async def answers(self, url: str) -> Readiness:
        """Whether anybody speaks HTTP there."""
        try:
            answer = await self._client.get(f"{url.rstrip('/')}/health")
        except httpx.HTTPError as error:
            return Readiness(False, _said(error))
        return Readiness(answer.status_code < 500, f"status {answer.status_code}")

    async def close(self) -> None:
        await self._client.aclose()


def _reason(answer: httpx.Response) -> str:
    text = answer.content[:_ANSWER_LIMIT].decode(errors="replace")
    try:
        tree = json.loads(text)
        text = str(tree.get("reason") or tree.get("message") or text)
    except (ValueError, AttributeError, RecursionError):
        pass
    return f"status {answer.status_code}: {' '.join(text.split())[:300]}"


def _said(error: httpx.HTTPError) -> str:
    return str(error) or type(error).__name__
