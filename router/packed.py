"""Which captured bodies are no text, told from what is left of them after they were read as UTF-8."""

import re

# What stands for bytes that are no UTF-8, and what no text holds.
_LOST = "\ufffd"
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f]")
_MOST_LOST = 1 / 4


def is_packed(text: str) -> bool:
    """Whether it was packed, or a picture. A text in another encoding has lost few of its letters, and JSON none of its
    signs.
    """
    lost = text.count(_LOST)
    if not lost or text.lstrip()[:1] in ("{", "["):
        return False
    return lost > len(text) * _MOST_LOST or _CONTROL.search(text) is not None
