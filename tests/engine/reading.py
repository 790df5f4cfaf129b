"""A process that reads journals over and over until it is killed: ``python -m tests.engine.reading DIRECTORY``."""

import sys
from pathlib import Path

from controller.edges.engine import JournalSource
from tests.engine.worlds import query


def main(directory: Path) -> None:
    """Read ``journals`` into ``state.duckdb``, at the time that the file ``now`` says."""
    source = JournalSource(directory / "journals", directory / "state.duckdb")
    print("reading", flush=True)
    while True:
        now = int((directory / "now").read_text())
        source.read(query()._replace(prediction="/predictions/0/late"), now)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
