"""What goes on beside a test: threads that begin with a block and end with it."""

import threading
from collections.abc import Callable
from typing import Self


class Meanwhile:
    """Runs ``works``, each on a thread, in a block; they look at ``_end``, and have ``within_s`` after it was set."""

    def __init__(self, *works: Callable[[], None], within_s: float = 30.0) -> None:
        self._end = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in works]
        self._within_s = within_s

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(self._within_s)
