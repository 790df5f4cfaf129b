"""A worker without a data plane: a real process that speaks the supervisor's channel and holds its share of the port.

It answers any request with the generation that it serves. ``GET /slow`` takes half a second. Started as
``python -m tests.router.channel_worker MODE --config JSON --channel-fd N``; MODE is ``good``, ``exits`` (at once),
``mute`` (never says anything), ``garbles`` (its first words are nonsense), ``spoils`` (removes the folder ``ready``
beside its journals first) or ``rolls-badly`` (a worker that is to replace a living one exits at once).
"""

import asyncio
import json
import socket
import sys
from pathlib import Path
from typing import Any

from router.journal import Writer


class ChannelWorker:
    def __init__(self, mode: str, config: dict[str, Any], channel: socket.socket) -> None:
        self.mode, self.config, self.channel = mode, config, channel
        self.generation = -1
        self.answered = 0
        self.heard = 0
        self.busy: set[asyncio.Task[None]] = set()
        self.journal = Writer(Path(config["journal_dir"]), f"{config['router']}-{config['worker']}")

    def say(self) -> None:
        if self.mode == "mute":
            return
        state = {"worker": self.config["worker"], "generation": self.generation}
        counters = {'requests_total{arm="champion"}': self.answered, "journal_queued": 1}
        self.out.write(json.dumps({"type": "state", "state": state, "counters": counters}).encode() + b"\n")

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.busy.add(task)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if b" /slow " in head:
                await asyncio.sleep(0.5)
            said = {"generation": self.generation, "worker": self.config["worker"], "heard": self.heard}
            body = json.dumps(said).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            self.answered += 1
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self.busy.discard(task)

    async def run(self) -> None:
        reader, self.out = await asyncio.open_connection(sock=self.channel)
        if self.mode == "garbles":
            self.out.write(b'no json\n{"type":"other"}\n{"type":"state","state":{}}\n[]\n')
        port = socket.create_server((self.config.get("host", "127.0.0.1"), self.config["port"]), reuse_port=True)
        server = None
        while line := await reader.readline():
            message = json.loads(line)
            if message["type"] == "drain":
                break
            if message["type"] == "table":
                self.generation = message["table"]["generation"]
            if message["type"] == "heard":
                self.heard = message["t"]
            if message["type"] == "poll" and server is None:
                server = await asyncio.start_server(self.answer, sock=port)
            self.say()
        if server is not None:
            # One more turn for connections that the kernel has accepted already.
            await asyncio.sleep(0.05)
            server.close()
        if self.busy:
            await asyncio.wait(self.busy, timeout=5)
        self.journal.close()


def main() -> None:
    mode = sys.argv[1]
    config = json.loads(sys.argv[sys.argv.index("--config") + 1])
    channel = socket.socket(fileno=int(sys.argv[sys.argv.index("--channel-fd") + 1]))
    if mode == "spoils":
        (Path(config["journal_dir"]).parent / "ready").rmdir()
    if mode == "exits" or (mode == "rolls-badly" and config["worker"].endswith("b")):
        sys.exit(3)

    async def beat() -> None:
        worker = ChannelWorker(mode, config, channel)
        running = asyncio.create_task(worker.run())
        while not running.done():
            await asyncio.wait({running}, timeout=0.5)
            if not running.done():
                worker.say()
        running.result()

    asyncio.run(beat())


if __name__ == "__main__":
    main()
