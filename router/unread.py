"""What came on a connection and was not read: whether there is any, and all of it where sending failed, after which
the event loop does not read any more.
"""

import asyncio
import contextlib
import fcntl
import os
import resource
import socket
import termios
from asyncio.trsock import TransportSocket
from typing import Final

_READS: Final = 64
_READ_BYTES: Final = 65_536
_SPARE_SHARE: Final = 0.75  # of a process's descriptors: beyond, none is kept twice
_NOTHING: Final = bytes(4)
# Written by the kernel, and by one thread. Of bytes, which cannot be, CPython makes an error first, for every request.
_waiting: Final = bytearray(4)


def has_unread(descriptor: int) -> bool:
    """Whether there is any. To be asked by the event loop's thread alone. Raises OSError for what is no open socket."""
    fcntl.ioctl(descriptor, termios.FIONREAD, _waiting)
    return _waiting != _NOTHING


def unread(transport: asyncio.Transport, spare: int) -> bytes:
    """What there is of it, 4 MiB at the most. ``spare``: the socket once more; -1 where there is none."""
    descriptor = spare
    if descriptor < 0:
        known = transport.get_extra_info("socket")
        # Another loop than asyncio's has closed the socket by now, and its number may be another connection's.
        if not isinstance(known, TransportSocket) or known.fileno() < 0:
            return b""
        descriptor = known.fileno()
    found = []
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as pending:
        for _ in range(_READS):
            data = pending.recv(_READ_BYTES)
            if not data:
                break
            found.append(data)
    return b"".join(found)


def spare(transport: asyncio.Transport, descriptor: int) -> int:
    """The socket of a connection once more, for ``unread``, where the loop is one that closes its own before, and
    descriptors are not so few that others need it: those are counted once for each connection. -1 where it is not.
    """
    if isinstance(transport.get_extra_info("socket"), TransportSocket):
        return -1
    with contextlib.suppress(OSError):
        found = os.dup(descriptor)
        if found <= _SPARE_SHARE * resource.getrlimit(resource.RLIMIT_NOFILE)[0]:
            return found
        os.close(found)
    return -1
