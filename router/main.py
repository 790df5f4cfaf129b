"""A router's life: ports, workers, API; ready; then serve until told to end."""

import asyncio
import contextlib
import errno
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from router.api import ControlPlane
from router.auth import Access, Unprotected, is_loopback, refuse_unprotected
from router.certificates import BadCertificate, Certificates
from router.control_server import ControlServer
from router.journal import Writer
from router.journal_reader import write_atomically
from router.listeners import EVERYWHERE, Listeners, addresses, raise_descriptor_limit
from router.settings import RouterSettings
from router.supervisor import StartFailed, Supervisor, WorkerCommand
from router.table import RouteTable
from router.table_store import TableStore, problems

log = logging.getLogger("understudy.router")

# A router that was killed leaves workers that let go of the port as soon as they notice.
_PORT_S = 2.0
_RENEW_S = 1.0


class BadUse(Exception):
    """The router was asked for what cannot be: exit code 2."""


def reserve(host: str, port: int, flag: str, *, shared: bool) -> socket.socket:
    """A bound socket. With ``shared`` others of this user may listen on its port (it never does), else it
    listens.

    Raises BadUse, naming the flag, where the port is taken or the address is none of this machine's.
    """
    try:
        family, address = addresses(host if shared or host != EVERYWHERE else "", port)[0]
    except OSError as error:
        raise BadUse(f"--{flag}host {host}: {error.strerror}") from None
    deadline = time.monotonic() + _PORT_S
    while True:
        try:
            return _bound(family, address, shared=shared)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                if time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
                raise BadUse(f"--{flag}port {port}: {host}:{port} is in use by another program") from None
            if error.errno == errno.EACCES:
                raise BadUse(f"--{flag}port {port}: this user may not listen on it") from None
            raise BadUse(f"--{flag}host {host}: {error.strerror}") from None


def _bound(family: int, address: object, *, shared: bool) -> socket.socket:
    # Sharing the port would also succeed beside another router of the same user: first see that it is free.
    probe = socket.socket(family, socket.SOCK_STREAM)
    try:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)  # type: ignore[arg-type]
        if not shared:
            probe.listen(1024)
            return probe
    except BaseException:
        probe.close()
        raise
    taken = probe.getsockname()
    probe.close()
    placeholder = socket.socket(family, socket.SOCK_STREAM)
    try:
        placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        placeholder.bind(taken)
    except BaseException:
        placeholder.close()
        raise
    return placeholder


def read_token(settings: RouterSettings) -> str | None:
    """The bearer token, from wherever it was given. Raises BadUse."""
    if settings.token is not None:
        return settings.token.get_secret_value()
    if settings.token_file is None:
        return None
    try:
        token = settings.token_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadUse(f"--token-file {settings.token_file}: {error}") from None
    if len(token) < 8:
        raise BadUse(f"--token-file {settings.token_file}: a token of at least 8 characters is needed")
    return token


def read_certificates(settings: RouterSettings) -> Certificates | None:
    """The certificates of the control API; None where it speaks plain HTTP. Raises BadCertificate."""
    files = settings.certificates
    return Certificates(files, server=True) if files.named() else None


def open_store(settings: RouterSettings) -> TableStore:
    """The table kept by an earlier life, or the one given to begin with where that is newer. Raises BadUse."""
    store = TableStore(settings.kept_table)
    try:
        store.load()
    except OSError as error:
        kept = settings.kept_table
        place = f"--table-file {kept}" if settings.table_file else f"--journal-dir {kept.parent}: {kept.name}"
        raise BadUse(f"{place}: {error.strerror}") from None
    if settings.table is None:
        return store
    try:
        given = RouteTable.model_validate_json(settings.table.read_bytes())
    except OSError as error:
        raise BadUse(f"--table {settings.table}: {error.strerror}") from None
    except ValidationError as error:
        raise BadUse(f"--table {settings.table}: {problems(error)[0]['message']}") from None
    if store.yields_to(given):
        store.table = given
        store.hear()
    return store


def make_paths(settings: RouterSettings) -> None:
    """Make the folder of the journals, and see that the ready file, of which none is left, can be written. Raises
    BadUse.
    """
    try:
        settings.journal_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        why = "is a file; name a folder" if isinstance(error, FileExistsError) else error.strerror
        raise BadUse(f"--journal-dir {settings.journal_dir}: {why}") from None
    ready = settings.ready_file
    if ready is None:
        return
    try:
        ready.unlink(missing_ok=True)  # left by a life that was killed
        ready.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=ready.parent).close()
    except OSError as error:
        raise BadUse(f"--ready-file {ready}: {error.strerror}") from None


def worker_command(settings: RouterSettings, port: int) -> WorkerCommand:
    """The program of a worker: a fresh interpreter that is told everything on its command line."""

    def command(worker: str, channel: int) -> list[str]:
        config = settings.worker_config(worker, port)
        return [
            sys.executable,
            "-m",
            "router.worker",
            "--config",
            config.model_dump_json(exclude_defaults=True),
            "--channel-fd",
            str(channel),
        ]

    return command


def worker_environment() -> dict[str, str]:
    """Ours, so that a worker finds the same packages wherever it starts, without the token."""
    package = str(Path(__file__).resolve().parents[1])
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_TOKEN")}
    return kept | {
        "PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")])),
        "PYTHONSAFEPATH": "1",
    }


class _Signals:
    """First SIGTERM or SIGINT: end in good order; the second: at once. SIGHUP: replace the workers."""

    def __init__(self, roll: Callable[[], None]) -> None:
        self.end = asyncio.Event()
        self.now = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ended)
        loop.add_signal_handler(signal.SIGHUP, roll)

    def _ended(self) -> None:
        (self.now if self.end.is_set() else self.end).set()


def run(settings: RouterSettings, command: Callable[[RouterSettings, int], WorkerCommand] = worker_command) -> int:
    """Serve until a signal; the exit code: 0, 1 where the workers did not come up, 2 for bad use (BadUse
    raised).
    """
    logging.basicConfig(
        stream=sys.stderr,
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    token = read_token(settings)
    try:
        refuse_unprotected(settings.control_host, token, settings.client_ca)
        certificates = read_certificates(settings)
        settings.worker_config("w0", settings.port)
    except (Unprotected, BadCertificate) as error:
        raise BadUse(str(error)) from None
    except ValidationError as error:
        raise BadUse(f"--{problems(error)[0]['message'].replace('_', '-')}") from None
    if certificates is None and not is_loopback(settings.control_host):
        log.warning("the token passes in the clear to --control-host %s: set --control-cert", settings.control_host)
    make_paths(settings)
    store = open_store(settings)
    with contextlib.ExitStack() as stack:
        traffic = stack.enter_context(reserve(settings.host, settings.port, "", shared=True))
        control = stack.enter_context(reserve(settings.control_host, settings.control_port, "control-", shared=False))
        try:
            writer = Writer(
                settings.journal_dir,
                f"{settings.name}-outcomes",
                # A batch that is allowed has room beside another one.
                capacity=max(settings.journal_capacity, 2 * settings.outcome_batch),
                flush_ms=settings.journal_flush_ms,
                rotate_bytes=settings.journal_rotate_bytes,
                rotate_s=settings.journal_rotate_s,
            )
        except (OSError, ValueError) as error:
            raise BadUse(f"--journal-dir {settings.journal_dir}: {error}") from None
        stack.callback(writer.close)
        workers = command(settings, traffic.getsockname()[1])
        access = Access(token, certificates=settings.client_ca is not None)
        return asyncio.run(_serve(settings, store, writer, (access, certificates), (traffic, control), workers))


async def _serve(
    settings: RouterSettings,
    store: TableStore,
    writer: Writer,
    door: tuple[Access, Certificates | None],
    sockets: tuple[socket.socket, socket.socket],
    command: WorkerCommand,
) -> int:
    descriptors = raise_descriptor_limit()
    listeners = Listeners(settings.host, sockets[0].getsockname()[1])
    supervisor = Supervisor(settings, store, command, worker_environment(), listeners)
    rolls: set[asyncio.Task[None]] = set()

    def roll() -> None:
        if len(rolls) > 1:  # one runs and one waits: that one will replace whatever runs now
            log.warning("a rolling restart waits already")
            return
        log.info("rolling restart asked for")
        task = asyncio.create_task(supervisor.roll())
        rolls.add(task)
        task.add_done_callback(rolls.discard)

    signals = _Signals(roll)
    starting = asyncio.create_task(supervisor.start())
    ending = asyncio.create_task(signals.end.wait())
    await asyncio.wait({starting, ending}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await supervisor.stop(0)
        return 0
    try:
        starting.result()
    except StartFailed as error:
        log.error("%s", error)
        return 1
    access, certificates = door
    plane = ControlPlane(settings, supervisor, writer, access)
    server = ControlServer(plane, certificates, descriptors)
    serving = asyncio.create_task(server.serve(sockets=[sockets[1]]))
    renewing = asyncio.create_task(_renew(certificates))
    try:
        announce(settings, sockets)
        await asyncio.wait({serving, ending}, return_when=asyncio.FIRST_COMPLETED)
        # The API ends by itself only where it failed.
        code = int(serving.done())
    finally:
        withdraw(settings)
        log.info("ending: requests in flight have up to %g s", settings.drain_s)
        hurry = asyncio.create_task(signals.now.wait())
        draining = asyncio.create_task(supervisor.stop(settings.drain_s))
        await asyncio.wait({draining, hurry}, return_when=asyncio.FIRST_COMPLETED)
        if not draining.done():
            draining.cancel()
            await asyncio.gather(draining, return_exceptions=True)
            await supervisor.stop(0)
        hurry.cancel()
        renewing.cancel()
        server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)
        plane.threads.shutdown(wait=False, cancel_futures=True)
    return code


async def _renew(certificates: Certificates | None) -> None:
    """Look again and again whether somebody has put new certificates in the place of the old ones."""
    while certificates is not None:
        await asyncio.sleep(_RENEW_S)
        try:
            if certificates.renew():
                log.info("the certificates of the control API were renewed")
        except BadCertificate as error:
            log.error("the new certificates are not used: %s", error)


def announce(settings: RouterSettings, sockets: tuple[socket.socket, socket.socket]) -> None:
    """Say, to people and to programs, that traffic is served, and where. Raises BadUse."""
    traffic, control = _url(sockets[0]), _url(sockets[1], tls=settings.control_cert is not None)
    if settings.ready_file is not None:
        said = {
            "pid": os.getpid(),
            "traffic": traffic,
            "control": control,
            "port": sockets[0].getsockname()[1],
            "control_port": sockets[1].getsockname()[1],
            "workers": settings.workers,
        }
        try:
            write_atomically(settings.ready_file, json.dumps(said).encode())
        except OSError as error:
            raise BadUse(f"--ready-file {settings.ready_file}: {error.strerror}") from None
    sys.stderr.write(f"router ready: traffic {traffic} control {control} workers {settings.workers}\n")
    sys.stderr.flush()


def withdraw(settings: RouterSettings) -> None:
    """Remove the ready file; where that cannot be, the end goes on."""
    try:
        if settings.ready_file is not None:
            settings.ready_file.unlink(missing_ok=True)
    except OSError as error:
        log.warning("--ready-file %s is not removed: %s", settings.ready_file, error.strerror)


def _url(bound: socket.socket, *, tls: bool = False) -> str:
    host, port = bound.getsockname()[:2]
    return f"http{'s' * tls}://{f'[{host}]' if ':' in host else host}:{port}"
