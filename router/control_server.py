"""The server of the control API: how many clients it takes in, and how they come and go."""

import asyncio
import contextlib
import gc
import socket
from collections.abc import Iterator

import uvicorn

from router.acceptor import Acceptor
from router.api import ControlPlane, build_app
from router.certificates import Certificates
from router.gate import MOST_CONNECTIONS, MOST_HANDSHAKES, ControlProtocol

_BACKLOG = 1_024
_AT_ONCE = 16
# Of a process's descriptors these are not for clients: journal, libraries, those that are just closing; and for each
# worker its channel and listeners, and those of the one that is to take its place.
_OTHERS = 92
_OTHERS_OF_A_WORKER = 8


class ControlServer(uvicorn.Server):
    """Serves the API of a process with so many ``descriptors``. Signals are the supervisor's business.

    Over TLS clients are counted from the moment they connect. Whoever has not ended the handshake goes before all
    others, so that nobody is kept out by those who never begin it, and what TLS takes for each is bounded.
    """

    def __init__(self, plane: ControlPlane, certificates: Certificates | None, descriptors: int) -> None:
        config = uvicorn.Config(
            build_app(plane),
            http=ControlProtocol,
            ws="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=5,
            limit_concurrency=1_000,
        )
        config.load()
        super().__init__(config)
        self.servers = []
        self._context = None if certificates is None else certificates.context
        most = most_connections(descriptors, plane.settings.workers)
        self._most_arriving = min(MOST_HANDSHAKES, most // 4)
        self._most = most if certificates is None else most - self._most_arriving
        self._acceptor: Acceptor | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take in clients on the sockets, which have to be given."""
        loop = asyncio.get_running_loop()
        self._acceptor = Acceptor(
            loop,
            sockets or [],
            _BACKLOG,
            self._protocol,
            context=self._context,
            most_arriving=self._most_arriving,
            at_once=_AT_ONCE,
        )
        # What is here by now stays: to look for what may go takes some milliseconds then.
        gc.collect()
        gc.freeze()
        self._acceptor.start()
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._acceptor is not None:
            await self._acceptor.stop()
        await super().shutdown(sockets)

    def _protocol(self) -> ControlProtocol:
        made = ControlProtocol(self.config, self.server_state, {})
        made.most_connections = self._most
        return made


def most_connections(descriptors: int, workers: int) -> int:
    """How many clients a process with so many descriptors may have and still start a worker."""
    left = descriptors - _OTHERS - _OTHERS_OF_A_WORKER * workers
    return min(MOST_CONNECTIONS, max(left, descriptors // 4))
