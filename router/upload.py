"""A client's request that is too large to be held, on its way to a model server at the pace of the slower side."""

from time import monotonic
from typing import TYPE_CHECKING

from router import answers
from router.call import Call
from router.pace import NEVER
from router.upstream import Connection

if TYPE_CHECKING:
    from router.downstream import Client


class Upload(Call):
    """A call for a client, who may still be sending. ``started``: the client has begun to receive an answer."""

    client: "Client"
    started = False
    uploaded = True
    _parts: list[bytes]

    def begin_upload(self) -> None:
        """The client has only begun to send."""
        self.streamed = True
        self.uploaded = False
        self._parts = []

    def request_part(self, data: bytes, done: bool) -> None:
        """A further part of a request that is too large to be held; ``done`` with the last one."""
        if self.request.length < 0:
            data = (answers.chunk(data) if data else b"") + (answers.LAST_CHUNK if done else b"")
        self._parts.append(data)
        self.uploaded = done
        if self.connection is not None:
            self._send()

    def sendable(self) -> None:
        """The connection takes more of the request. One that was held has been given to it whole."""
        if self.streamed and self.connection is not None and not self.connection.crowded:
            self._send()
            self.client.resume_upload()

    def crowded(self) -> None:
        """The connection takes no more of the request for now."""
        if not self.streamed:
            return
        self.client.stop_upload()
        if self.connection is not None:
            self._wait(self.connection)

    def _send(self) -> None:
        connection = self.connection
        assert connection is not None
        if self._parts:
            self.intact = False
            data = b"".join(self._parts)
            self._parts.clear()
            connection.send(data)
        if self.uploaded:
            connection.sent()
        self._wait(connection)

    def _wait(self, connection: Connection) -> None:
        """The server's time runs anew, for it cannot answer what it has not read; while the client is the one that is
        waited for, it does not run at all. That it has run out stays known: a challenger would have been given up.
        """
        now = monotonic()
        if now - self.asked_at > self.routes.challenger_s:
            self.unread = True
        runs = self.uploaded or connection.crowded
        self.asked_at = now if runs else NEVER
        if self.started:
            return
        if runs:
            # The queue as it is now: one that was empty went with a new table.
            self.waiting = self.plane.deadlines(self.waiting.seconds)
            self.waiting.add(self, now)
        else:
            self.waiting.remove(self)
