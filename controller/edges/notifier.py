"""News to people: a Slack incoming webhook, a line in the log, or several at once.

A notice is kept in status until it is sent without an error, so a failure here only raises and the next tick comes
again. Between failures the messenger is left alone for a while, so that a dead one costs a tick nothing.
"""

import json
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping

from controller.edges.exchange import Call
from controller.edges.proxied import Proxied
from controller.errors import EdgeError, SpecError
from controller.ports import Notifier
from controller.status import Notice

_log = logging.getLogger("understudy.notifier")
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_EMOJI = {"info": "", "warning": ":warning: ", "error": ":rotating_light: "}
_TEXT_LIMIT = 30_000  # characters; Slack refuses more than 40,000
_LONGEST_PAUSE_S = 300.0
_REFUSALS = 5


class LogNotifier:
    """Each notice as one line of the log: the word ``notice`` and a JSON object with key, level, title and text."""

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger("understudy.notice")

    def send(self, notice: Notice) -> None:
        line = json.dumps(notice.model_dump(mode="json"), ensure_ascii=False, sort_keys=True)
        self._logger.log(_LEVELS[notice.level], "notice %s", line, extra={"notice": notice.key})


class SlackNotifier:
    """Posts to a Slack incoming webhook.

    Links in the text stay links. An outage is retried for as long as the notice is sent again, at growing distances
    (1 s to 5 min, or what ``Retry-After`` asks for); a notice that Slack itself refuses five times is given up, since
    the sixth time will be no better, and said so in the log. Where Slack takes a notice but its answer is lost, the
    repeat is a second message: a webhook has no key for repeats.
    """

    def __init__(self, url: str, deadline_s: float = 3.0, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock``: monotonic seconds. SpecError for what is no web address; the address itself is a secret."""
        if not url.startswith(("http://", "https://")):
            raise SpecError("notify.slack: the secret must hold the webhook's address, https://hooks.slack.com/…")
        self._url = url
        self._exchange = Proxied(deadline_s, answer_limit=1 << 16)
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._not_before = 0.0
        self._refusals: OrderedDict[str, int] = OrderedDict()
        self.given_up = 0

    def send(self, notice: Notice) -> None:
        """Post ``notice``. EdgeError: not delivered; without a call where the last failure was too short ago."""
        with self._lock:
            wait = self._not_before - self._clock()
        if wait > 0:
            raise EdgeError(f"Slack: not delivered, the next attempt is in {wait:.0f} s")
        body = json.dumps({"text": slack_text(notice), "unfurl_links": False}).encode()
        try:
            answer = self._exchange.one(Call("POST", self._url, body))
        except EdgeError as error:
            self._pause(None)
            raise EdgeError(f"Slack: not delivered: {error}") from error
        if 200 <= answer.status < 300:
            with self._lock:
                self._failures = 0
                self._refusals.pop(notice.key, None)
            return
        self._pause(_seconds(answer.headers.get("retry-after")))
        said = f"status {answer.status} {answer.body[:200].decode(errors='replace')}".strip()
        if 400 <= answer.status < 500 and answer.status not in (408, 425, 429) and self._refused(notice.key):
            self.given_up += 1
            _log.error("Slack refused notice %s %d times (%s): given up", notice.key, _REFUSALS, said)
            return
        raise EdgeError(f"Slack: not delivered: {said}")

    def close(self) -> None:
        self._exchange.close()

    def _pause(self, asked_s: float | None) -> None:
        with self._lock:
            self._failures += 1
            pause = asked_s if asked_s is not None else 2.0 ** min(self._failures - 1, 9)
            self._not_before = self._clock() + min(max(pause, 0.0), _LONGEST_PAUSE_S)

    def _refused(self, key: str) -> bool:
        """Count a refusal of ``key``; True with the last one that is tried."""
        with self._lock:
            count = self._refusals.pop(key, 0) + 1
            if count >= _REFUSALS:
                return True
            self._refusals[key] = count
            while len(self._refusals) > 1000:
                self._refusals.popitem(last=False)
            return False


class Fanout:
    """Sends to several, each independent of the others' failures.

    Remembers, for the newest ``remembered`` keys, who has a notice already: a repeat goes only to the rest. The
    memory ends with the process, so that a crash between sending and writing it down repeats one message.
    """

    def __init__(self, parts: Mapping[str, Notifier], remembered: int = 10_000) -> None:
        self._parts = dict(parts)
        self._remembered = remembered
        self._lock = threading.Lock()
        self._delivered: OrderedDict[str, set[str]] = OrderedDict()

    def send(self, notice: Notice) -> None:
        """EdgeError names the parts that did not deliver; the others have."""
        with self._lock:
            have = set(self._delivered.get(notice.key, ()))
        failed: list[str] = []
        for name, part in self._parts.items():
            if name in have:
                continue
            try:
                part.send(notice)
            except EdgeError as error:
                failed.append(f"{name}: {error}")
            else:
                self._remember(notice.key, name)
        if failed:
            raise EdgeError("; ".join(failed))

    def close(self) -> None:
        """Let go of the connections of those that have some."""
        for part in self._parts.values():
            getattr(part, "close", lambda: None)()

    def _remember(self, key: str, name: str) -> None:
        with self._lock:
            self._delivered.setdefault(key, set()).add(name)
            self._delivered.move_to_end(key)
            while len(self._delivered) > self._remembered:
                self._delivered.popitem(last=False)


def slack_text(notice: Notice) -> str:
    """Title and text in Slack's own markup. Only &, < and > have a meaning that has to be taken from them."""
    title, text = (
        part.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for part in (notice.title, notice.text)
    )
    whole = f"{_EMOJI[notice.level]}*{title}*\n{text}".rstrip()
    return whole if len(whole) <= _TEXT_LIMIT else whole[: _TEXT_LIMIT - 1] + "…"


def _seconds(header: str | None) -> float | None:
    """``Retry-After`` in seconds; None for a date or nonsense."""
    try:
        return float(header) if header else None
    except ValueError:
        return None
