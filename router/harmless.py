"""Texts without their numbers in which no hidden name was found: bodies of one model's requests are mostly alike.

Asked once or twice for every request while others wait, so that it is compiled, and by one search.
"""

from typing import Final

_LOWER: Final = bytes(range(256)).lower()
_MOST: Final = 4_096
_LONGEST: Final = 2_048
# A name may stand behind these, where a body is read further than it was here.
_DOUBTFUL: Final = b"%\\\0"


class Harmless:
    """What was found so far, bounded. ``hides``: there are names to be hidden. ``thrown``: characters that none has.

    The journal's thread adds to it while the event loop asks.
    """

    def __init__(self, hides: bool, thrown: bytes) -> None:
        self._hides = hides
        self._thrown = thrown
        self._texts: set[bytes] = set()
        # Those of them that say as much of whole bodies, whatever they are.
        self._bodies: set[bytes] = set()

    def flat(self, text: bytes) -> bytes:
        """A text in lower case without what is thrown away."""
        return text.translate(_LOWER, self._thrown)

    def add(self, flat: bytes) -> None:
        """No name is in texts that look like this."""
        if len(flat) > _LONGEST:
            return
        if len(self._texts) >= _MOST:
            self._texts.clear()
            self._bodies.clear()
        self._texts.add(flat)
        if _plain(flat):
            self._bodies.add(flat)

    def has(self, flat: bytes) -> bool:
        """Whether texts that look like this were found to hold none."""
        return flat in self._texts

    def spares(self, body: bytes) -> bool:
        """Whether a whole body may be written as it is, of any content type: ASCII, and like one that hid nothing."""
        if not self._hides:
            return body.isascii()
        return body.translate(_LOWER, self._thrown) in self._bodies


def _plain(text: bytes) -> bool:
    return text.isascii() and text.translate(None, _DOUBTFUL) == text
