"""What the API server was asked, by its own audit log: one JSON object a line."""

import json
from collections import Counter
from collections.abc import Iterable

from tests.bench_controller.places import ACTIVE, IDLE

Asked = tuple[str, str, str]  # about what kind of rollout ("" where that cannot be told), verb, resource


def counted(lines: Iterable[bytes], user: str) -> Counter[Asked]:
    """Requests of ``user``. A line that is torn at either end is left out."""
    found: Counter[Asked] = Counter()
    for line in lines:
        try:
            event = json.loads(line)
            if event["user"]["username"] == user:
                found[_asked(event)] += 1
        except (ValueError, KeyError):
            continue
    return found


def _asked(event: dict[str, object]) -> Asked:
    what, uri = event.get("objectRef"), str(event["requestURI"])
    named = what if isinstance(what, dict) else {}
    resource = "/".join(filter(None, (named.get("resource", uri), named.get("subresource"))))
    # Objects of a rollout begin with its name, lists of its pods select it.
    kind = next((kind for kind in (ACTIVE, IDLE) if f"{kind}-" in uri or f"{kind}-" in str(named.get("name"))), "")
    return kind, str(event["verb"]), resource
