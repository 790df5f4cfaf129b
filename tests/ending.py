"""How a campaign ends that somebody stops: as by the keyboard, so that no process of it stays behind."""

import signal


def as_by_keyboard() -> None:
    """SIGTERM is a KeyboardInterrupt from now on, and so is SIGINT, which may be ignored in the background."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
