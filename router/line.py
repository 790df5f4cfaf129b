"""A line of the journal that is made by whoever has something to say, but for its place there."""


class Line:
    """An exposure's line: ``t`` in µs since the epoch, and ``rest``, the JSON behind it with the line's end."""

    __slots__ = ("rest", "t", "weight")

    def __init__(self, t: int, rest: bytes) -> None:
        self.t = t
        self.rest = rest
        # About how many bytes it holds.
        self.weight = 128 + len(rest)

    def written(self, seq: int, t: int) -> bytes:
        """The line in its place; ``t`` may have become later."""
        return b'{"type":"exposure","seq":%d,"t":%d,%b' % (seq, t, self.rest)
