"""When a journal's files may go: all known readers have them, or they are older than anybody may ask for."""

import time
from pathlib import Path

from router.journal_reader import acknowledged, file_path, journals


def delete_old(directory: Path, retention_s: float) -> int:
    """Delete finished files that every known reader has acknowledged or that are too old; how many it were.

    Without a known reader only age counts, and a reader that never named a journal needs all of it. The
    newest file of a journal always stays, also where nobody writes it any more: it carries the journal's
    ``seq`` on. Raises OSError.
    """
    readers = acknowledged(directory).values()
    oldest = time.time() - retention_s
    deleted = 0
    for journal, files in journals(directory).items():
        needed = min((said[journal].file if journal in said else 0 for said in readers), default=0)
        for number, _ in files[:-1]:
            path = file_path(directory, journal, number)
            if number < needed or path.stat().st_mtime < oldest:
                path.unlink(missing_ok=True)
                deleted += 1
    return deleted
